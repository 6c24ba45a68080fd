"""Class folders as people have them: splits by any name, rubbish of systems, formats, names and copies."""

from __future__ import annotations

import shutil
import unicodedata
from pathlib import Path

import pytest

from builders.images import COLOURS, paint
from cl_complora.config import load_scenario
from cl_complora.config.sources import FolderSource
from cl_complora.data.checks.notes import notes
from cl_complora.data.discovery.discover import describe
from cl_complora.data.folders import open_folder
from cl_complora.data.names.split_names import role_of
from cl_complora.data.names.tied_names import heard, tied
from cl_complora.data.planning import plan
from cl_complora.errors import UserError

RED, BLUE = COLOURS["red"], COLOURS["blue"]


def classes(folder: Path, names=("ok", "dent"), each: int = 4, seed: int = 0) -> None:
    for label, name in enumerate(names):
        for number in range(each):
            paint(folder / name / f"{number}.png", (RED, BLUE)[label % 2], seed + 100 * label + number)


def opened(root: Path, **settings):
    return open_folder(FolderSource(kind="folder", root=str(root), **settings), Path("."))


def keys(source, split: str) -> list[str]:
    return [item.key for item in source.items(split)]


SCENARIO = """
name: mine
protocol: {protocol}
model: {{name: embedded}}
shots: {shots}
prompts: ["a photo of a {{}}."]
tasks:
"""


def scenario(folder: Path, *roots: str, protocol: str = "task-incremental", shots: int = 2):
    lines = [f"  - {{name: t{i}, source: {{kind: folder, root: {root}}}}}" for i, root in enumerate(roots)]
    (folder / "s.yaml").write_text(SCENARIO.format(protocol=protocol, shots=shots) + "\n".join(lines))
    return load_scenario(str(folder / "s.yaml"))


@pytest.mark.parametrize(
    ("train", "test"),
    [
        *[("train", "test"), ("Train", "Test"), ("TRAINING", "TESTING"), ("training", "validation")],
        *[("seg_train", "seg_test"), ("train_images", "test_images"), ("Training Set", "Test Set")],
        *[
            ("trainval", "test"),
            ("train", "val"),
            ("train", "valid"),
            ("train", "eval"),
            ("images-train", "dev"),
        ],
    ],
)
def test_splits_by_their_usual_names(tmp_path, train, test):
    classes(tmp_path / train)
    classes(tmp_path / test, each=3, seed=50)
    source = opened(tmp_path)
    assert source.class_names == ["dent", "ok"]
    assert {key.split("/")[0] for key in keys(source, "train")} == {train}
    assert {key.split("/")[0] for key in keys(source, "test")} == {test}
    assert any("serves as the test" in note for note in source.notes) == (role_of(test) == "validation")
    text, told = describe([tmp_path], tmp_path / "s.yaml")
    assert text.count("source: {kind: folder") == 1 and "8 training and 6 test images" in told[0]


def test_archives_unpacked_twice_and_unlabelled_pictures(tmp_path):
    classes(tmp_path / "seg_train" / "seg_train")
    classes(tmp_path / "seg_test" / "seg_test", each=2, seed=50)
    paint(tmp_path / "seg_pred" / "seg_pred" / "1.png", RED, 9)
    source = opened(tmp_path)
    assert (len(keys(source, "train")), len(keys(source, "test"))) == (8, 4)
    assert any("seg_pred: 1 picture without classes is not used" in note for note in source.notes)


def test_an_unlabelled_test_is_told_and_a_share_set_apart(tmp_path):
    classes(tmp_path / "train")
    paint(tmp_path / "test" / "1.png", RED, 9)
    source = opened(tmp_path)
    assert (len(keys(source, "train")), len(keys(source, "test"))) == (4, 4)
    assert not set(keys(source, "train")) & set(keys(source, "test"))
    assert any("without classes" in note for note in source.notes)
    assert any("set apart" in note for note in source.notes)


def test_validation_beside_a_test_is_not_used(tmp_path):
    for name in ("train", "val", "test"):
        classes(tmp_path / name, each=2)
    source = opened(tmp_path)
    assert {key.split("/")[0] for key in keys(source, "test")} == {"test"}
    assert any("val: is not used" in note for note in source.notes)


def test_a_class_called_like_a_split_is_refused_with_the_ways_out(tmp_path):
    classes(tmp_path, ("bus", "car", "train"))
    with pytest.raises(UserError, match="called like a split, and bus, car beside it are not") as refused:
        opened(tmp_path)
    assert "if 'train' is a class, rename it, or set splits: none; to use" in str(refused.value)
    assert opened(tmp_path, splits="none").class_names == ["bus", "car", "train"]


@pytest.mark.parametrize(("known", "role"), [("train", "test"), ("test", "train")])
def test_a_split_of_an_unusual_name_is_refused_with_what_init_reads(tmp_path, known, role):
    for name in (known, "query"):
        classes(tmp_path / name, each=2)
    with pytest.raises(UserError, match="called like a split, and query beside it is not") as refused:
        opened(tmp_path)
    both = "{train: train, test: query}" if known == "train" else "{train: query, test: test}"
    told = f"if 'query' is the {role} split, rename it '{role}', or set splits: {both}; to use"
    assert told in str(refused.value) and "stand in a scenario: source: {kind: folder" in str(refused.value)
    assert opened(tmp_path, splits={known: known, role: "query"}).divided
    (tmp_path / "query").rename(tmp_path / role)
    assert opened(tmp_path).divided


def test_two_of_a_role_need_a_word(tmp_path):
    for name in ("train", "training", "test"):
        classes(tmp_path / name, each=2)
    with pytest.raises(UserError, match="'train' and 'training' may both be the train split"):
        opened(tmp_path)
    source = opened(tmp_path, splits={"train": "training", "test": "test"})
    assert {key.split("/")[0] for key in keys(source, "train")} == {"training"}


def test_splits_given_as_tasks_are_refused(tmp_path):
    classes(tmp_path / "Train")
    classes(tmp_path / "Test")
    with pytest.raises(UserError, match="called like the splits of one set"):
        describe([tmp_path / "Train", tmp_path / "Test"], tmp_path / "s.yaml")


def test_rubbish_is_passed_over_and_told(tmp_path):
    classes(tmp_path)
    for rubbish in ("@eaDir", "#recycle", "lost+found", "$RECYCLE.BIN", "__pycache__", ".ipynb_checkpoints"):
        paint(tmp_path / rubbish / "x.png", RED, 1)
        paint(tmp_path / "ok" / rubbish / "y.png", RED, 2)
    paint(tmp_path / "ok" / "thumbnails" / "0.png", RED, 3)
    source = opened(tmp_path)
    assert source.class_names == ["dent", "ok"]
    assert len(keys(source, "train") + keys(source, "test")) == 8
    (told,) = source.notes
    assert "@eaDir (2)" in told and told.endswith("lost+found (2) and 1 more")


def test_a_class_of_waste_is_no_rubbish(tmp_path):
    classes(tmp_path, ("glass", "trash"))
    assert opened(tmp_path).class_names == ["glass", "trash"]


def test_exclude(tmp_path):
    classes(tmp_path)
    paint(tmp_path / "ok" / "0_mask.png", RED, 1)
    classes(tmp_path, ("old",))
    source = opened(tmp_path, exclude=["*_mask.png", "old"])
    assert source.class_names == ["dent", "ok"] and not any("mask" in key for key in keys(source, "train"))


def test_pictures_by_other_suffixes_are_read_and_others_counted(tmp_path):
    classes(tmp_path)
    whole = opened(tmp_path)
    assert not whole.notes and whole.items("train")
    jpeg = tmp_path / "photo.jpg"
    paint(jpeg, RED, 7)
    for name in ("a.jfif", "b.JPE", "no_suffix", "scan.1"):
        shutil.copy(jpeg, tmp_path / "ok" / name)
    (tmp_path / "ok" / "notes.txt").write_text("no picture")
    (tmp_path / "ok" / "phone.heic").write_bytes(b"....ftypheic")
    source = opened(tmp_path)
    assert {"ok/a.jfif", "ok/b.JPE", "ok/no_suffix", "ok/scan.1"} <= {
        *keys(source, "train"),
        *keys(source, "test"),
    }
    told = "\n".join(source.notes)
    assert "2 files are passed over" in told and ".heic" in told and ".txt" in told


def test_composed_and_decomposed_names_are_one_class(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    classes(tmp_path / "train", (decomposed, "bar"))
    classes(tmp_path / "test", (composed, "bar"), seed=9)
    source = opened(tmp_path)
    assert source.class_names == ["bar", composed]
    assert [sum(item.label == 1 for item in source.items(split)) for split in ("train", "test")] == [4, 4]


def test_numbers_are_sorted_as_numbers_and_told(tmp_path):
    classes(tmp_path / "set", [str(number) for number in range(12)])
    located = scenario(tmp_path, "set")
    plans = plan(located, 0)
    assert plans.tasks[0].class_names == tuple(str(number) for number in range(12))
    assert any("call the classes by words" in note for note in notes(located, plans))


@pytest.mark.parametrize(
    ("one", "other"),
    [("Apple", "apple"), ("ice cream", "Ice  Cream"), ("caf\u00e9", "cafe\u0301"), ("a - b", "a-b")],
)
def test_names_that_clip_hears_alike(one, other):
    from open_clip.tokenizer import SimpleTokenizer

    tokens = SimpleTokenizer()([one, other])
    assert heard(one) == heard(other) and bool((tokens[0] == tokens[1]).all())
    assert tied(["pear", one, other]) == (one, other)


@pytest.mark.parametrize(
    ("one", "other"), [("ice cream", "icecream"), ("a.b", "a,b"), ("no 1", "no 2"), ("x", "x!")]
)
def test_names_that_clip_tells_apart(one, other):
    assert heard(one) != heard(other) and tied([one, other]) is None


def test_ties_are_refused_with_both_names(tmp_path):
    classes(tmp_path / "set", ("Apple", "apple", "pear"))
    with pytest.raises(UserError, match="'Apple' and 'apple' are the same words to CLIP"):
        plan(scenario(tmp_path, "set"), 0)
    classes(tmp_path / "a", ("Apple", "pear"))
    classes(tmp_path / "b", ("apple", "plum"))
    assert plan(scenario(tmp_path, "a", "b"), 0)
    with pytest.raises(UserError, match="the same words to CLIP"):
        plan(scenario(tmp_path, "a", "b", protocol="class-incremental"), 0)


def test_copies_and_single_classes_are_told(tmp_path):
    classes(tmp_path / "set" / "train", each=3)
    shutil.copytree(tmp_path / "set" / "train", tmp_path / "set" / "test")
    shutil.copy(tmp_path / "set/train/ok/0.png", tmp_path / "set/train/dent/again.png")
    located = scenario(tmp_path, "set", "set", shots=3)
    told = "\n".join(notes(located, plan(located, 0)))
    assert "test pictures are used in its own training too: test/dent" in told
    classes(tmp_path / "one", ("apple",))
    located = scenario(tmp_path, "one")
    assert "'t0': has one class, 'apple'" in "\n".join(notes(located, plan(located, 0)))


def test_one_poor_class_leaves_the_others_their_shots(tmp_path):
    classes(tmp_path / "set", ("a", "b"), each=20)
    classes(tmp_path / "set", ("c",), each=2)
    text, told = describe([tmp_path / "set"], tmp_path / "s.yaml")
    assert "shots: 9 " in text and "shots: [9, 9, 1]" in text
    assert "set: 'c' has 1 training image, others more; shots: [9, 9, 1]" in told
    assert "complora tune needs a training image a class beside the shots; 'c' of set has none left" in str(
        told
    )
