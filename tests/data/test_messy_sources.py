"""What people have and write: a message names the place in their file, and what it advises works."""

from __future__ import annotations

import json
import shutil

import pytest

from builders.commands import cli
from builders.images import COLOURS, paint
from cl_complora.config import load_scenario
from cl_complora.data.planning import plan
from cl_complora.errors import UserError

HEAD = "name: s\nshots: 1\ntasks:\n  - name: a\n    "


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Here are six pictures each of cats and dogs, in class folders."""
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "dog"):
        for number in range(6):
            paint(tmp_path / "pets" / name / f"{number}.png", COLOURS["red"], number)
    return tmp_path


def scenario(text: str):
    with open("s.yaml", "w") as file:
        file.write(HEAD + text + "\n")
    return load_scenario("s.yaml")


def refused(text: str) -> str:
    with pytest.raises(UserError) as error:
        plan(scenario(text), 0)
    return "\n".join(error.value.messages)


@pytest.mark.parametrize("train", ["{}/pets", "C:/pets", "C:pets", "\\\\pets"])
def test_splits_are_paths_from_the_root(here, train):
    told = refused(
        f"source: {{kind: folder, root: pets, splits: {{train: '{train.format(here)}', test: cat}}}}"
    )
    assert told.startswith("s.yaml:5: tasks[0].source.splits.train: must be a path from the root, got")


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("source: {kind: folder, root: pets, splits: {train: cat}}", "tasks[0].source.splits.test"),
        ("source: {kind: folder, root: pets}\n    shots: {least: 1}", "tasks[0].shots.most"),
    ],
)
def test_of_a_section_that_a_value_could_be_the_missing_key_is_told_alone(text, missing):
    with pytest.raises(UserError) as error:
        scenario(text)
    (told,) = error.value.messages
    assert told.endswith(f"{missing}: this key is missing")
    value = text.replace("{train: cat}", "7").replace("{least: 1}", "few")
    with pytest.raises(UserError, match="must be .* or "):
        scenario(value)


def test_a_published_list_is_told_where_the_scenario_names_it(here):
    text = "source: {kind: folder, root: pets}\n    split_file: list.jsonl"
    assert refused(text).startswith("s.yaml:6: tasks[0].split_file: list.jsonl: cannot be read")
    keys = [item.key for item in plan(scenario("source: {kind: folder, root: pets}"), 0).tasks[0].train]
    (here / "list.jsonl").write_text(json.dumps({"path": keys[0]}))
    notes = plan(scenario(text), 0).notes
    assert [n for n in notes if "split_file" in n] == [
        "s.yaml:6: tasks[0].split_file: names no training image of 'dog'"
    ]
    (here / "list.jsonl").write_text("\n".join(json.dumps({"path": key}) for key in keys))
    assert not any("split_file" in note for note in plan(scenario(text), 0).notes)


def test_a_fraction_of_what_is_divided_already_is_told(here):
    shutil.copytree("pets", "parted/train")
    shutil.copytree("pets", "parted/test")
    rows = [
        f"{name}/{n}.png,{name},{'test' if n < 2 else 'train'}" for name in ("cat", "dog") for n in range(6)
    ]
    (here / "pets" / "t.csv").write_text("\n".join(["path,label,split", *rows]))
    whole = (here / "pets" / "t.csv").read_text()
    (here / "pets" / "whole.csv").write_text("\n".join(r.rpartition(",")[0] for r in whole.splitlines()))
    for source, told in (
        ("kind: folder, root: parted", True),
        ("kind: manifest, file: pets/t.csv", True),
        ("kind: folder, root: pets", False),
        ("kind: manifest, file: pets/whole.csv", False),
    ):
        notes = plan(scenario(f"source: {{{source}, test_fraction: 0.2}}"), 0).notes
        assert any("source.test_fraction: has no effect" in note for note in notes) == told, source
        assert not any("no effect" in note for note in plan(scenario(f"source: {{{source}}}"), 0).notes)


def test_a_quote_that_is_never_closed_is_told_with_its_line(here):
    (here / "t.csv").write_text('path,label\n0.png,x\n1.png,"x\n2.png,y\n3.png,y\n')
    told = refused("source: {kind: manifest, file: t.csv, root: pets/cat}")
    assert "t.csv:5: the class name" in told and "is a quote never closed?" in told


@pytest.mark.parametrize("name", ["3", "[z]", "k: v", "#1", "a, b"])
def test_the_pattern_that_leaves_an_empty_class_out_does(here, name):
    (here / "pets" / name).mkdir()
    told = refused("source: {kind: folder, root: pets}")
    pattern = told.partition("exclude: ")[2].rpartition(" leaves it out")[0]
    made = plan(scenario(f"source: {{kind: folder, root: pets, exclude: {pattern}}}"), 0)
    assert made.tasks[0].class_names == ("cat", "dog")


def test_captions_of_images_whose_ids_are_objects_are_refused(here):
    images = [{"file_name": "0.png", "id": {"$oid": "5f"}}, {"file_name": "1.png", "id": 2}]
    content = {"images": images, "annotations": [{"image_id": 2, "caption": "c"}]}
    (here / "coco.json").write_text(json.dumps(content))
    more = "retrieval: [{name: r, source: {kind: captions, file: coco.json, root: pets/cat}}]"
    told = refused(f"source: {{kind: folder, root: pets}}\n{more}")
    assert "coco.json: images[0]: must have id and file_name" in told


def test_a_label_of_a_shard_has_no_byte_order_mark():
    from cl_complora.data.archives.shards import _label

    assert _label("cls", b"\xef\xbb\xbfcat\n") == "cat"


def test_what_init_writes_of_a_held_out_folder_is_checked_as_a_run_does(here, monkeypatch, capsys):
    for twin in ("a b", "a_b"):
        shutil.copytree("pets/cat", f"held/{twin}")
    code, out, _ = cli(monkeypatch, capsys, "init", "pets", "--zero-shot", "held", "-o", "z.yaml")
    assert code == 0 and "cl-complora run refuses this: z.yaml:" in out and "both called 'a b'" in out
    shutil.rmtree("held/a_b")
    shutil.copytree("pets/cat", "held/A-B")
    shutil.copytree("pets/cat", "held/a-b")
    code, out, _ = cli(monkeypatch, capsys, "init", "pets", "--zero-shot", "held", "-o", "x.yaml")
    assert code == 0 and "cl-complora run refuses this: x.yaml:" in out and "'A-B'" in out
    shutil.rmtree("held/a-b")
    shutil.copytree("pets/dog", "held/c")
    code, out, _ = cli(monkeypatch, capsys, "init", "pets", "--zero-shot", "held", "-o", "y.yaml")
    assert code == 0 and "refuses" not in out


def test_the_folder_that_one_is_in_is_no_class_of_itself(here, monkeypatch, capsys):
    monkeypatch.chdir(here / "pets")
    code, out, _ = cli(monkeypatch, capsys, "init", ".", "-o", "../c.yaml")
    assert code == 0 and "left out" not in out and "2 classes" in out


def test_a_link_in_place_of_the_scenario_is_not_followed(here, monkeypatch, capsys):
    (here / "far" / "away").mkdir(parents=True)
    (here / "s.yaml").symlink_to(here / "far" / "away" / "t.yaml")
    code, _, err = cli(monkeypatch, capsys, "init", "pets", "-o", "s.yaml")
    assert code == 2 and "--force overwrites it" in err
    assert cli(monkeypatch, capsys, "init", "pets", "-o", "s.yaml", "--force")[0] == 0
    assert plan(load_scenario("s.yaml"), 0).tasks[0].class_names == ("cat", "dog")


def test_a_comment_of_a_scenario_is_one_line(here, monkeypatch, capsys):
    assert cli(monkeypatch, capsys, "init", "pets", "-o", "a\nb.yaml")[0] == 0
    assert plan(load_scenario("a\nb.yaml"), 0).tasks


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + ".yaml"])
def test_a_name_that_no_file_can_have_is_told(name, monkeypatch, capsys):
    code, _, err = cli(monkeypatch, capsys, "check", name)
    assert code == 2 and err.startswith("error: ")
