"""Class folders: how they are divided, and what counts as a class and as an image."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from builders.streams import keys, planned, scenario, touch, touch_all
from cl_complora.config import load_scenario
from cl_complora.config.sources import FolderSource
from cl_complora.data.kinds import open_source
from cl_complora.data.planning import plan, write_manifest
from cl_complora.errors import UserError


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    return touch_all(tmp_path_factory.mktemp("folders"))


# Classes and divisions
def test_train_and_test_folders_are_kept_apart(folders):
    (task,) = planned(folders, "a; divided", "shots: all").tasks
    assert task.class_names == ("ant", "bee", "cat", "dog")
    for split, items, count in (("train", task.train, 8), ("test", task.test, 5)):
        expected = {
            f"{split}/{name}/{n}.png": label
            for label, name in enumerate(task.class_names)
            for n in range(count)
        }
        assert {item.key: item.label for item in items} == expected and len(items) == len(expected)


def test_folders_without_a_division_get_one_that_no_seed_changes(folders):
    first, other = (planned(folders, "a; whole", "shots: all", seed).tasks[0] for seed in (0, 1))
    train, test = set(keys(first.train)), set(keys(first.test))
    assert not train & test
    assert train | test == {
        f"{n}/{i}.png" for n, count in (("ant", 10), ("bee", 10), ("cat", 7)) for i in range(count)
    }
    assert set(keys(other.train)) == train and keys(other.test) == keys(first.test)
    assert Counter(item.label for item in first.test) == {0: 5, 1: 5, 2: 4}
    # Classes of equal size are not divided alike.
    assert {key[4:] for key in test if key.startswith("ant")} != {
        key[4:] for key in test if key.startswith("bee")
    }


def test_the_share_of_test_images_and_a_new_class_change_no_other_division(folders, tmp_path):
    tasks = "a; whole"
    half = planned(folders, tasks, "shots: 1").tasks[0]
    touch(tmp_path / "whole", aardvark=6, ant=10, bee=10, cat=7)
    more = planned(tmp_path, tasks, "shots: 1").tasks[0]
    assert [key for key in keys(more.test) if not key.startswith("aardvark")] == keys(half.test)
    path = scenario(folders, tasks, "shots: 1")
    fifth = plan(load_scenario(str(path), ["tasks.0.source.test_fraction=0.2"]), 0).tasks[0]
    assert Counter(item.label for item in fifth.test) == {0: 2, 1: 2, 2: 1}
    assert set(keys(fifth.test)) < set(keys(half.test))


def test_chosen_classes_are_labelled_in_the_order_given(folders):
    (task,) = planned(folders, "a; divided; classes: [dog, ant]", "shots: 2").tasks
    assert task.class_names == ("dog", "ant")
    assert all(item.key.split("/")[1] == task.class_names[item.label] for item in (*task.train, *task.test))
    assert [item.label for item in task.train] == [0, 0, 1, 1] and len(task.test) == 10


def test_a_range_of_classes_leaves_out_its_end(folders):
    a, b = planned(
        folders, "a; divided; class_range: [0, 3]\nb; divided; class_range: [3, 4]", "shots: 2"
    ).tasks
    assert (a.class_names, b.class_names) == (("ant", "bee", "cat"), ("dog",))
    assert {(item.label, item.key.split("/")[1]) for item in b.test} == {(0, "dog")}


def test_roots_are_relative_to_the_file_or_absolute(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = planned(folders, "a; divided", "shots: 1").tasks[0]
    assert (
        planned(tmp_path, f"a; {folders / 'divided'}", "shots: 1").tasks[0].manifest() == relative.manifest()
    )


# What counts as a class and as an image
def test_only_visible_images_count_whatever_the_case_of_their_suffix(tmp_path):
    root = touch(tmp_path / "data", ant=0, bee=0, __MACOSX=4, **{".git": 4})
    for name in ("a.JPG", "b.Png", "c.jpeg", "deep/er/d.webp", "e.tar.bmp"):
        for folder in (root / "ant", root / "bee"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
    for name in (".hidden.png", "._a.JPG", ".DS_Store", "notes.txt", "png", "Thumbs.db"):
        (root / "ant" / name).touch()
    (root / "ant" / "folder.png").mkdir()
    (root / "readme.png").touch()
    (task,) = planned(tmp_path, "a; data", "shots: all").tasks
    assert task.class_names == ("ant", "bee")
    found = sorted(key for key in (*keys(task.train), *keys(task.test)) if key.startswith("ant"))
    assert found == ["ant/a.JPG", "ant/b.Png", "ant/c.jpeg", "ant/deep/er/d.webp", "ant/e.tar.bmp"]


def test_images_in_hidden_folders_do_not_count(tmp_path):
    # Jupyter keeps copies of images in such folders: one would be trained on and its twin tested on.
    touch(tmp_path / "data", ant=4)
    touch(tmp_path / "data" / "ant", **{".ipynb_checkpoints": 4})
    (task,) = planned(tmp_path, "a; data", "shots: all").tasks
    assert len(task.train) + len(task.test) == 4


def test_class_names_may_hold_spaces_underscores_braces_and_any_script(tmp_path):
    names = {
        "snow leopard": 4,
        "snow_owl": 4,
        "čmelák": 4,
        "日本": 4,
        "a{}b": 4,
        'O\'Neill, "x"': 4,
        "-1": 4,
        "🙂": 4,
    }
    touch(tmp_path / "data", **names)
    (task,) = planned(tmp_path, "a; data", 'shots: 2\nprompts: ["a {}."]').tasks
    assert set(task.class_names) == {name.replace("_", " ") for name in names}
    assert all(
        item.key.split("/")[0].replace("_", " ") == task.class_names[item.label] for item in task.train
    )
    (chosen,) = planned(tmp_path, 'a; data; classes: ["日本", "snow owl", "-1"]', "shots: 2").tasks
    assert chosen.class_names == ("日本", "snow owl", "-1")
    write_manifest(tmp_path / "manifest.jsonl", task)
    lines = (tmp_path / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == task.manifest()
    assert sum("日本/" in line for line in lines) == 4


def test_two_folders_of_one_name_are_refused(tmp_path):
    touch(tmp_path / "data", snow_owl=4, **{"snow owl": 4})
    touch(tmp_path / "fine", ant=4)
    with pytest.raises(UserError, match=r"tasks\[0\]\.source: two classes are both called 'snow owl'"):
        planned(tmp_path, "a; data", "shots: 1")
    zero_shot = "zero_shot: [{name: z, source: {kind: folder, root: data}}]"
    with pytest.raises(
        UserError, match=r":2: zero_shot\[0\]\.source: two classes are both called 'snow owl'"
    ):
        planned(tmp_path, "a; fine", f"{zero_shot}\nshots: 1")


def test_a_folder_is_listed_once_however_many_tasks_draw_from_it(folders, tmp_path, monkeypatch):
    source = open_source(FolderSource(kind="folder", root=str(folders / "divided")), tmp_path)
    first = {split: source.items(split) for split in ("train", "test")}
    asked, real = [], Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **how: asked.append(path) or real(path, **how))
    again = {split: source.items(split) for split in first}
    assert asked == [] and again == first
