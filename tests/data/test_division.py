"""Sources that name no test: which pictures are set apart, and what is said of it."""

from __future__ import annotations

import json

import pytest

from builders.images import COLOURS, paint
from cl_complora.config import load_scenario
from cl_complora.config.sources import FolderSource, ManifestSource
from cl_complora.data.checks.notes import notes
from cl_complora.data.discovery.discover import describe
from cl_complora.data.kinds import open_source
from cl_complora.data.planning import plan
from cl_complora.errors import UserError

RED, BLUE = COLOURS["red"], COLOURS["blue"]


def keys(source, split: str) -> list[str]:
    return [item.key for item in source.items(split)]


def pictures(folder, *places: str, each: int = 3) -> None:
    for seed, place in enumerate(places):
        for number in range(each):
            paint(folder / place / f"{number}.png", (RED, BLUE)[seed % 2], 100 * seed + number)


def opened(folder, **settings):
    return open_source(FolderSource(kind="folder", root=str(folder), **settings), folder)


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Training", "Testing"), ("train", "val")])
def test_splits_inside_the_class_folders(tmp_path, train, test):
    pictures(tmp_path, *(f"{name}/{part}" for name in ("rose", "lily") for part in (train, test)))
    source = opened(tmp_path)
    assert source.class_names == ["lily", "rose"]
    assert {key.split("/")[1] for key in keys(source, "train")} == {train} and len(keys(source, "train")) == 6
    assert {key.split("/")[1] for key in keys(source, "test")} == {test} and len(keys(source, "test")) == 6
    assert "divided by the folders" in source.notes[0]
    assert any("serves as the test" in n or "serve as the test" in n for n in source.notes) == (test == "val")
    text, _ = describe([tmp_path], tmp_path / "s.yaml")
    assert "2 classes, 6 training and 6 test images" in text
    assert len(keys(opened(tmp_path, splits="none"), "train")) == 6  # half of all twelve


def test_classes_of_which_some_hold_splits_are_refused(tmp_path):
    pictures(tmp_path, "rose/train", "rose/test", "lily")
    with pytest.raises(UserError, match=r"'rose' holds 'train' and 'test', and 'lily' does not") as caught:
        opened(tmp_path)
    assert "splits: none" in str(caught.value)


def test_what_lies_beside_the_inner_splits_is_told(tmp_path):
    pictures(tmp_path, "rose/train", "rose/test", "rose/masks", "lily/train", "lily/test", "lily/val", "rose")
    told = " ".join(opened(tmp_path).notes)
    assert "not used: val, masks, pictures beside these folders" in told


def test_a_folder_of_sets_is_no_folder_of_classes(tmp_path):
    pictures(tmp_path, *(f"pets/{part}/{name}" for part in ("train", "test") for name in ("cat", "dog")))
    pictures(tmp_path, "flowers/rose", "flowers/lily")
    text, _ = describe([tmp_path], tmp_path / "s.yaml")
    assert text.count("kind: folder, root: ") == 2 + 1  # and the comment on the zero-shot set
    assert any("if it is a set of its own" in note for note in opened(tmp_path).notes)


def table(folder, rows, head="path,label", **settings):
    (folder / "t.csv").write_text("\n".join([head, *rows]) + "\n")
    return open_source(ManifestSource(kind="manifest", file="t.csv", **settings), folder)


def test_a_table_without_splits_sets_a_share_apart_and_says_so(tmp_path):
    pictures(tmp_path, "a", "b", each=4)
    rows = [f"{name}/{number}.png,{name}" for name in "ab" for number in range(4)]
    source = table(tmp_path, rows)
    train, test = keys(source, "train"), keys(source, "test")
    assert len(train) == len(test) == 4 and not set(train) & set(test)
    assert "50 % of every class is set apart" in source.notes[0] and "column split" in source.notes[0]
    again = table(tmp_path, rows[::-1])
    assert set(keys(again, "test")) == set(test)  # whatever the order of the rows
    assert len(keys(table(tmp_path, rows, test_fraction=1), "test")) == 8
    assert len(keys(table(tmp_path, [r + "," for r in rows], "path,label,split"), "test")) == 4


SCENARIO = """
name: mine
model: {name: embedded}
shots: 1
tasks:
  - {name: t, source: {kind: manifest, file: t.csv}}
reference: {source: {kind: manifest, file: t.csv}, images: 8}
"""


def test_a_reference_takes_what_of_such_a_table_nothing_is_measured_on(tmp_path):
    pictures(tmp_path, "a", "b", each=4)
    table(tmp_path, [f"{name}/{number}.png,{name}" for name in "ab" for number in range(4)])
    (tmp_path / "s.yaml").write_text(SCENARIO)
    located = load_scenario(str(tmp_path / "s.yaml"))
    plans = plan(located, 0)
    tested = {item.key for item in plans.tasks[0].test}
    assert len(plans.reference.test) == len(tested) == 4
    assert not tested & {item.key for item in plans.reference.test}
    assert any("is set apart" in line for line in notes(located, plans, every=True))


def test_a_reference_holds_nothing_that_a_value_is_chosen_by(tmp_path):
    pictures(tmp_path, "a", "b", each=8)
    table(tmp_path, [f"{name}/{number}.png,{name}" for name in "ab" for number in range(8)])
    general = "{source: {kind: manifest, file: t.csv}, name: z, images: 4}"
    (tmp_path / "s.yaml").write_text(f"{SCENARIO}zero_shot: [{general}]\n")
    settings = ["validation_shots=1", "measure=validation"]
    plans = plan(load_scenario(str(tmp_path / "s.yaml"), settings), 0)
    chosen_by = {item.key for one in plans.zero_shot for item in one.test}
    chosen_by |= {item.key for item in plans.tasks[0].validation}
    assert chosen_by and plans.reference.test
    assert not chosen_by & {item.key for item in plans.reference.test}
    # Nor what is reported afterwards.
    reported = {
        item.key for one in plan(load_scenario(str(tmp_path / "s.yaml")), 0).zero_shot for item in one.test
    }
    assert len(reported) == 4 and not reported & {item.key for item in plans.reference.test}


def test_a_set_that_is_all_for_tests_gives_values_to_choose_by_what_no_test_uses(tmp_path, monkeypatch):
    pictures(tmp_path, "a", "b", each=8)
    table(tmp_path, [f"{name}/{number}.png,{name}" for name in "ab" for number in range(8)])
    general = "{source: {kind: manifest, file: t.csv, test_fraction: 1}, name: z, images: 4}"
    text = SCENARIO.partition("reference:")[0]
    (tmp_path / "s.yaml").write_text(f"{text}zero_shot: [{general}]\n")
    settings = ["validation_shots=1", "measure=validation"]
    one, other = (plan(load_scenario(str(tmp_path / "s.yaml"), more), 0) for more in ([], settings))
    tested, chosen_by = ({item.key for item in made.zero_shot[0].test} for made in (one, other))
    assert len(tested) == len(chosen_by) == 4 and not tested & chosen_by
    # Nor are those opened to find out what more than eight bits hold.
    source, read = other.zero_shot[0].source, []
    stored = source.stored
    monkeypatch.setattr(source, "stored", lambda item: read.append(item.key) or stored(item))
    source.taken(thorough=True)
    assert set(read) >= chosen_by and not tested & set(read)


def test_a_table_whose_split_names_no_test_is_refused_with_what_to_write(tmp_path):
    pictures(tmp_path, "a", "b")
    table(tmp_path, [f"{name}/{n}.png,{name},train" for name in "ab" for n in range(3)], "path,label,split")
    (tmp_path / "s.yaml").write_text(SCENARIO)
    with pytest.raises(UserError, match="no test images; rows for it say test in the column split"):
        plan(load_scenario(str(tmp_path / "s.yaml")), 0)


def test_json_lines_without_splits_are_divided_too(tmp_path):
    pictures(tmp_path, "a", "b")
    rows = [json.dumps({"path": f"{name}/{n}.png", "label": name}) for name in "ab" for n in range(3)]
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    source = open_source(ManifestSource(kind="manifest", file="t.jsonl"), tmp_path)
    assert len(keys(source, "test")) == 4 and len(keys(source, "train")) == 2


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("is_train", ("1", "0")),
        ("is_valid", ("False", "True")),
        ("Is Test", ("0.0", "1.0")),
        ("training", ("yes", "no")),
    ],
)
def test_columns_of_yes_and_no_say_which_part(tmp_path, column, cells):
    pictures(tmp_path, "a", "b", each=4)
    rows = [f"{name}/{number}.png,{name},{cells[number > 2]}" for name in "ab" for number in range(4)]
    source = table(tmp_path, rows, f"path,label,{column}")
    assert len(keys(source, "train")) == 6 and keys(source, "test") == ["a/3.png", "b/3.png"]
    assert f"split is read from the column '{column}'" in source.notes[0]


def test_flags_of_json_lines_and_what_is_no_flag(tmp_path):
    pictures(tmp_path, "a", each=4)
    lines = [json.dumps({"path": f"a/{n}.png", "label": "a", "is_valid": n == 3}) for n in range(4)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    source = open_source(ManifestSource(kind="manifest", file="t.jsonl"), tmp_path)
    assert keys(source, "test") == ["a/3.png"]
    source = table(tmp_path, [f"a/{n}.png,a,{n}" for n in range(2, 4)], "path,label,valid")
    assert "is not read as split, which '2' is none of" in source.notes[0]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("a/0.PNG", "there is 0.png"),
        ("a/0.png ", "without the spaces around its name"),
        ("d/a/0.png", "from the folder above: root: "),
        ("a/0", "suffix: .png"),
        (r"C:\d\a\0.png", "a path of Windows"),
        ("https://x.org/a/0.png", "not an address"),
    ],
)
def test_paths_that_lead_nowhere_are_refused_with_what_may_be_meant(tmp_path, path, said):
    pictures(tmp_path / "d", "a")
    with pytest.raises(UserError, match=said):
        keys(table(tmp_path / "d", [f"{path},a,train"], "path,label,split"), "train")


SKIP = """
name: mine
model: {name: embedded}
shots: 1
broken: skip
tasks:
  - {name: t, source: {kind: manifest, file: t.csv}}
"""


def test_rows_of_missing_files_are_left_out_by_name_where_broken_pictures_are(tmp_path):
    pictures(tmp_path, "a", "b")
    rows = [f"{name}/{n}.png,{name},{'train' if n < 2 else 'test'}" for name in "ab" for n in range(3)]
    table(tmp_path, [*rows, "a/98.png,a,train", "b/99.png,b,test"], "path,label,split")
    (tmp_path / "s.yaml").write_text(SKIP)
    plans = plan(load_scenario(str(tmp_path / "s.yaml")), 0)
    assert len(plans.tasks[0].test) == 2
    assert [line.partition(": No such file")[0] for line in plans.skipped] == [
        f"{tmp_path}/t.csv:8: {tmp_path}/a/98.png",
        f"{tmp_path}/t.csv:9: {tmp_path}/b/99.png",
    ]
    (tmp_path / "s.yaml").write_text(SKIP.replace("broken: skip\n", ""))
    with pytest.raises(UserError, match=r"a/98.png: No such file"):
        plan(load_scenario(str(tmp_path / "s.yaml")), 0)


def test_a_root_that_is_not_there_is_one_fault_and_not_one_a_row(tmp_path):
    pictures(tmp_path, "a")
    with pytest.raises(UserError, match="nowhere: there is no such folder, though the paths") as caught:
        table(tmp_path, [f"a/{n}.png,a" for n in range(3)], root="nowhere")
    assert len(caught.value.messages) == 1
