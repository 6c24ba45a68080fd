"""More layouts of class folders that people have: wrapped, linked, with pictures where none belong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builders.images import COLOURS, paint
from cl_complora.config import load_scenario
from cl_complora.config.sources import FolderSource
from cl_complora.data.checks.notes import notes
from cl_complora.data.discovery.discover import describe
from cl_complora.data.folders import open_folder
from cl_complora.data.images.picture_files import is_rubbish
from cl_complora.data.planning import plan
from cl_complora.errors import UserError

TASK = "name: m\nmodel: {name: embedded}\nshots: 1\ntasks:\n  - {name: t, source: {kind: folder, root: d}}\n"


def pictures(folder: Path, *places: str, each: int = 3) -> None:
    for seed, place in enumerate(places):
        for number in range(each):
            colour = COLOURS[("red", "blue")[seed % 2]]
            paint(folder / place / f"{number}.png", colour, 100 * seed + number)


def opened(root: Path, **settings):
    return open_folder(FolderSource(kind="folder", root=str(root), **settings), Path("."))


def keys(source, split: str) -> list[str]:
    return [item.key for item in source.items(split)]


def both(*parts: str, names=("ant", "bee")) -> list[str]:
    return [f"{part}/{name}" for part in parts for name in names]


def test_splits_in_the_only_folder_that_holds_pictures(tmp_path):
    pictures(tmp_path, *both("images/train", "images/val"))
    (tmp_path / "labels/train").mkdir(parents=True)
    (tmp_path / "labels/train/0.txt").write_text("0 0.5 0.5 1 1")
    source = opened(tmp_path)
    assert source.class_names == ["ant", "bee"]
    assert {key[:12] for key in keys(source, "train")} == {"images/train"} and len(keys(source, "test")) == 6
    assert "its splits lie in 'images'" in source.notes[0]
    assert "2 classes, 6 training and 6 test images" in describe([tmp_path], tmp_path / "s.yaml")[0]


def test_two_sets_with_splits_are_not_one(tmp_path):
    pictures(tmp_path, *both("a/train", "a/test", "b/train", "b/test"))
    source = opened(tmp_path)
    assert source.class_names == ["a", "b"] and "if it is a set of its own, give" in source.notes[0]


def test_a_test_whose_pictures_lie_in_one_folder_of_no_class_is_unlabelled(tmp_path):
    pictures(tmp_path, *both("train"), "test/unknown")
    source = opened(tmp_path)
    assert source.class_names == ["ant", "bee"] and len(keys(source, "test")) == 4
    assert "3 pictures without classes are not used" in source.notes[0]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("ant", "bee", "cat"), "class 'cat' of task 't' has 0 training images; its folder lies in 'test'"),
        (("ant", "Bee"), "class 'Bee' .* lies in 'test' and not in 'train', where 'bee' is"),
    ],
)
def test_a_class_of_the_test_alone_is_named_with_where_it_lies(tmp_path, names, said):
    pictures(tmp_path / "d", *both("train"), *both("test", names=names))
    (tmp_path / "s.yaml").write_text(TASK)
    with pytest.raises(UserError, match=said):
        plan(load_scenario(str(tmp_path / "s.yaml")), 0)


def test_folds_that_hold_the_same_classes_are_told(tmp_path):
    pictures(tmp_path, *both("fold1", "fold2"))
    assert (
        "'fold1' and 'fold2' are taken for classes, and each holds 'ant' and 'bee'"
        in opened(tmp_path).notes[0]
    )
    source = opened(tmp_path, splits={"train": "fold1", "test": "fold2"})
    assert source.class_names == ["ant", "bee"] and source.notes == []


def test_pictures_in_no_class_folder_are_told(tmp_path):
    pictures(tmp_path, "ant", "bee", ".")
    assert "3 pictures lie in no class folder and are not used, such as 0.png" in opened(tmp_path).notes[0]


@pytest.mark.parametrize("places", [["."], ["train", "test"]])
def test_flat_pictures_are_refused_with_what_to_do(tmp_path, places):
    pictures(tmp_path, *places)
    with pytest.raises(UserError, match=r"no class folders; .* holds pictures: give each class a folder, or"):
        opened(tmp_path)


def test_links_that_lead_back_are_no_classes(tmp_path):
    pictures(tmp_path / "set", "ant", "bee")
    pictures(tmp_path, "far")
    os.symlink(".", tmp_path / "set/me")
    os.symlink("..", tmp_path / "set/above")
    os.symlink("../..", tmp_path / "set/ant/up")
    os.symlink("../far", tmp_path / "set/cow")  # a class that lies elsewhere is one
    source = opened(tmp_path / "set")
    assert source.class_names == ["ant", "bee", "cow"]
    assert len(keys(source, "train")) + len(keys(source, "test")) == 9
    assert sum("a link to a folder that it lies in" in note for note in source.notes) == 2


def test_links_that_are_not_followed_or_lead_nowhere_are_told(tmp_path):
    pictures(tmp_path / "set", "ant", "bee")
    pictures(tmp_path, "more")
    os.symlink("../../more", tmp_path / "set/ant/more")
    os.symlink("/gone/1.png", tmp_path / "set/bee/1000.png")
    os.symlink("/gone/cow", tmp_path / "set/cow")
    os.symlink("/gone/dog", tmp_path / "set/dog")
    source = opened(tmp_path / "set", exclude=["dog"])
    assert source.class_names == ["ant", "bee"]
    assert len(keys(source, "train")) + len(keys(source, "test")) == 6
    told = "\n".join(source.notes)
    assert "1 link to a folder is not followed below a class, such as ant/more" in told
    assert "2 links lead nowhere, such as cow" in told


@pytest.mark.parametrize(
    "name", ["@SynoResource", "found.000", "RECYCLED", "_gsdata_", "MSOCache", ".stfolder"]
)
def test_more_rubbish(name):
    assert is_rubbish(name)


@pytest.mark.parametrize("name", ["found", "found.jpg", "docker", "@alice", "backup", "recycling"])
def test_no_rubbish(name):
    assert not is_rubbish(name)


def test_masks_beside_their_pictures_are_told(tmp_path):
    pictures(tmp_path, "ant", "bee")
    for name in ("0_mask.png", "1_mask.png", "zebra_mask.png"):  # of the last there is no picture
        paint(tmp_path / "ant" / name, COLOURS["red"], 7)
    source = opened(tmp_path)
    source.items("train")
    (told,) = source.notes
    assert "2 pictures are called like masks of others, such as 0_mask.png" in told
    assert 'exclude: ["*_mask.*"]' in told
    source = opened(tmp_path, exclude=["*_mask.*"])
    assert len(source.items("train")) + len(source.items("test")) == 6 and source.notes == []


def test_a_class_folder_without_pictures_is_named_with_what_it_holds(tmp_path):
    pictures(tmp_path / "d", "ant", "bee")
    (tmp_path / "d/logs").mkdir()
    (tmp_path / "d/logs/a.txt").write_text("x")
    (tmp_path / "s.yaml").write_text(TASK)
    with pytest.raises(
        UserError, match=r'd/logs holds no pictures .*1 \.txt.* exclude: \["logs"\] leaves it out'
    ):
        plan(load_scenario(str(tmp_path / "s.yaml")), 0)


SAME = """name: m
model: {name: embedded}
shots: 1
tasks:
  - {name: a, source: {kind: folder, root: d}}
  - {name: b, source: {kind: folder, root: d}}
  - {name: c, source: {kind: folder, root: other}}
zero_shot:
  - {name: z, source: {kind: folder, root: other}}
"""


def test_sets_that_are_tested_on_the_same_pictures_are_told(tmp_path):
    pictures(tmp_path / "d", "ant", "bee")
    pictures(tmp_path / "other", "cat", "dog")
    (tmp_path / "s.yaml").write_text(SAME)
    located = load_scenario(str(tmp_path / "s.yaml"))
    told = [line for line in notes(located, plan(located, 0)) if "are those of" in line]
    assert [line.split(":")[0] for line in told] == ["'b'", "'z'"]
    assert "4 of 4 test pictures are those of 'c' too; what a task learns is no zero-shot" in told[1]
