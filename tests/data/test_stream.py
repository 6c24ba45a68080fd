"""From a scenario to its images: which are drawn, that the draw depends on nothing else, and what they are
labelled."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from builders.images import COLOURS, paint
from cl_complora.config import load_scenario
from cl_complora.config.sources import FolderSource
from cl_complora.data.kinds import open_source
from cl_complora.data.pixels import Pixels
from cl_complora.data.planning import Plans, plan, write_manifest
from cl_complora.data.tasks import load
from cl_complora.errors import UserError


def touch(root: Path, **classes: int) -> Path:
    """Class folders of empty files, enough where nothing is decoded."""
    for name, count in classes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / name / f"{number}.png").touch()
    return root


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """``divided`` (train and test) and ``whole`` class folders of empty files."""
    root = tmp_path_factory.mktemp("folders")
    for split, count in (("train", 8), ("test", 5)):
        touch(root / "divided" / split, ant=count, bee=count, cat=count, dog=count)
    touch(root / "whole", ant=10, bee=10, cat=7)
    return root


def scenario(folder: Path, tasks: str, more: str = "") -> Path:
    """A scenario file beside the class folders; ``tasks`` has a line ``name; root; more keys`` for each."""
    lines = []
    for line in tasks.strip().splitlines():
        name, root, *rest = (part.strip() for part in line.split(";"))
        lines.append(
            f"  - {{name: {name}, source: {{kind: folder, root:"
            f" {root}}}{''.join(f', {part}' for part in rest)}}}"
        )
    path = folder / "scenario.yaml"
    path.write_text(f"name: x\n{more}\ntasks:\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def planned(folder: Path, tasks: str, more: str = "", seed: int = 0) -> Plans:
    return plan(load_scenario(str(scenario(folder, tasks, more))), seed)


def keys(items) -> list[str]:
    return [item.key for item in items]


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


# Shots


def test_the_same_seed_draws_the_same_shots_and_another_others(folders):
    tasks = "a; divided\nb; whole"
    draws = [planned(folders, tasks, "shots: 3", seed).tasks for seed in (0, 0, 1)]
    assert draws[0][0].manifest() == draws[1][0].manifest() != draws[2][0].manifest()
    for task in draws[0]:
        assert len(set(keys(task.train))) == len(task.train)
        assert set(Counter(item.label for item in task.train).values()) == {3}


def test_every_image_is_drawn_equally_often_over_the_seeds(folders):
    located = load_scenario(str(scenario(folders, "a; divided", "shots: 2")))
    drawn = Counter(key for seed in range(200) for key in keys(plan(located, seed).tasks[0].train))
    # 200 seeds × 2 of 8: 50 each, with a standard deviation of 6.
    assert len(drawn) == 32 and all(25 < count < 75 for count in drawn.values())
    pairs = {tuple(key[10:] for key in keys(plan(located, seed).tasks[0].train)) for seed in range(200)}
    assert len(pairs) > 190  # classes are drawn independently of one another


def test_other_tasks_classes_and_validation_change_no_draw(folders):
    alone = planned(folders, "b; divided", "shots: 3").tasks[0]
    among = planned(folders, "a; divided\nb; divided\nc; whole", "shots: 3").tasks
    assert among[1].manifest() == alone.manifest() and keys(among[0].train) != keys(alone.train)
    some = planned(folders, "b; divided; classes: [cat, ant]", "shots: 3").tasks[0]
    assert set(keys(some.train)) == {key for key in keys(alone.train) if "/cat/" in key or "/ant/" in key}
    assert keys(planned(folders, "b; divided", "shots: 3\nvalidation_shots: 2").tasks[0].train) == keys(
        alone.train
    )
    more = planned(folders, "b; divided; shots: 5", "shots: 3").tasks[0]
    assert set(keys(more.train)) > set(keys(alone.train))


def test_validation_shots_are_training_images_that_are_not_trained_on(folders):
    for shots, left in (("3", 3), ("all", 6)):
        (task,) = planned(folders, "a; divided", f"shots: {shots}\nvalidation_shots: 2").tasks
        assert Counter(item.label for item in task.validation) == {label: 2 for label in range(4)}
        assert Counter(item.label for item in task.train) == {label: left for label in range(4)}
        assert not set(keys(task.train)) & set(keys(task.validation))
        assert all(key.startswith("train/") for key in keys(task.validation))
    with pytest.raises(
        UserError, match="7 shots and 2 for validation a class, but class 'ant' of task 'a' has 8"
    ):
        planned(folders, "a; divided", "shots: 7\nvalidation_shots: 2")


# Test images


def test_a_test_limit_is_spread_evenly_and_the_same_for_every_seed(folders):
    tasks = "a; divided\nb; divided; test_limit: 4\nc; divided; test_limit: 99"
    draws = [planned(folders, tasks, "shots: 1\ntest_limit: 7", seed).tasks for seed in range(3)]
    whole = set(keys(planned(folders, "a; divided", "shots: 1").tasks[0].test))
    a, b, c = draws[0]
    assert Counter(item.label for item in a.test) == {0: 2, 1: 2, 2: 2, 3: 1}
    assert Counter(item.label for item in b.test) == {label: 1 for label in range(4)}
    assert set(keys(a.test)) < whole and set(keys(c.test)) == whole
    assert all([task.test for task in draw] == [a.test, b.test, c.test] for draw in draws)
    # A smaller limit takes a part of what a larger one takes.
    assert set(keys(b.test)) < set(keys(a.test))


def test_a_test_limit_passes_over_classes_that_have_no_more(tmp_path):
    touch(tmp_path / "data" / "train", ant=2, bee=2, cat=2)
    touch(tmp_path / "data" / "test", ant=1, bee=9, cat=4)
    (task,) = planned(tmp_path, "a; data; test_limit: 9", "shots: 1").tasks
    assert Counter(item.label for item in task.test) == {0: 1, 1: 4, 2: 4}


def test_zero_shot_sets_use_test_images_only(folders):
    zero_shot = "zero_shot: [{name: z, source: {kind: folder, root: divided}, images: 6}]"
    plans = [planned(folders, "a; whole", f"shots: 1\n{zero_shot}", seed).zero_shot[0] for seed in (0, 1)]
    assert plans[0].manifest() == plans[1].manifest()
    assert Counter(item.label for item in plans[0].test) == {0: 2, 1: 2, 2: 1, 3: 1}
    assert (plans[0].train, plans[0].validation) == ((), ())
    assert all(row["split"] == "test" and row["key"].startswith("test/") for row in plans[0].manifest())


# Fingerprints

FINGERPRINT = "6fc4766b36aeb984c0f387ac15772db8dbd5ca0b9125c067e2c4d7392cba8ed3"


def test_a_fingerprint_holds_across_processes_and_versions(folders):
    (task,) = planned(
        folders, "a; divided; classes: [cat, bee]", "shots: 2\nvalidation_shots: 1\ntest_limit: 3"
    ).tasks
    # A change of this value ends every interrupted run of every user: their draws would no longer be
    # repeated.
    assert task.sha256() == FINGERPRINT
    script = (
        "from cl_complora.config import load_scenario; from cl_complora.data.planning import plan; import"
        " sys; "
    )
    script += "print(plan(load_scenario(sys.argv[1]), 0).tasks[0].sha256(), 'torch' in sys.modules)"
    command = [sys.executable, "-c", script, str(folders / "scenario.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"})
    assert done.stdout.split() == [FINGERPRINT, "False"]


def test_a_fingerprint_tells_every_change_of_images_and_names(folders):
    tasks = "a; divided; classes: [ant, bee]"
    seen = {
        planned(folders, tasks, f"shots: {shots}", seed).tasks[0].sha256()
        for shots in (2, 3)
        for seed in (0, 1)
    }
    seen |= {planned(folders, tasks, "shots: 2\ntest_limit: 3").tasks[0].sha256()}
    seen |= {planned(folders, tasks, "shots: 2\nvalidation_shots: 1").tasks[0].sha256()}
    seen |= {planned(folders, "a; divided; classes: [bee, ant]", "shots: 2").tasks[0].sha256()}
    assert len(seen) == 7


def test_a_fingerprint_tells_an_exchanged_picture(tmp_path):
    touch(tmp_path / "data", ant=4)
    before = planned(tmp_path, "a; data", "shots: 1").tasks[0]
    (tmp_path / "data" / before.train[0].key).write_bytes(b"other")
    after = planned(tmp_path, "a; data", "shots: 1").tasks[0]
    assert keys(after.train) == keys(before.train) and after.sha256() != before.sha256()
    assert [row["bytes"] for row in after.manifest()] == [5, 0, 0]


def test_a_manifest_names_every_image_once(folders):
    (task,) = planned(folders, "a; divided", "shots: 2\nvalidation_shots: 1").tasks
    rows = task.manifest()
    assert len({row["key"] for row in rows}) == len(rows) == 4 * (2 + 1 + 5)
    assert Counter(row["split"] for row in rows) == {"train": 8, "validation": 4, "test": 20}
    assert all(row["key"].split("/")[1] == row["class"] for row in rows)


# Prompts


def test_the_nearest_prompts_win(tmp_path, folders):
    def prompts(own: str, of_all: str, source: str) -> tuple[str, ...]:
        path = tmp_path / "prompts.yaml"
        path.write_text(f"name: x\nshots: 1\n{of_all}\ntasks:\n  - name: a\n    source: {source}\n{own}")
        return plan(load_scenario(str(path)), 0).tasks[0].prompts

    folder, world = f"{{kind: folder, root: {folders / 'whole'}}}", "{kind: world, domain: digits}"
    own, of_all = '    prompts: ["own {}"]\n', 'prompts: ["all {}"]'
    for source in (folder, world):
        assert prompts(own, of_all, source) == prompts(own, "", source) == ("own {}",)
        assert prompts("", of_all, source) == ("all {}",)
    assert prompts("", "", folder) == ("a photo of a {}.",)
    assert len(prompts("", "", world)) > 1


# Images and label spaces


def loaded(class_folders: Path, folder: Path, protocol: str, tasks: str, loss_classes: str = "seen"):
    tasks = "\n".join(line.replace(";", f"; {class_folders};", 1) for line in tasks.splitlines())
    more = f"protocol: {protocol}\nshots: 2\nvalidation_shots: 1\ntest_limit: 6"
    return load(planned(folder, tasks, more), protocol, Pixels((8, 8)), loss_classes)


def named_after_colour(images, space) -> bool:
    """Whether every picture has the colour that its label stands for."""
    means = images.pixels.float().mean((2, 3))
    palette = torch.tensor(list(COLOURS.values())).float()
    found = [list(COLOURS)[int((palette - mean).norm(dim=1).argmin())] for mean in means]
    return found == [space.class_names[int(label)] for label in images.labels] and len(found) > 0


STEPS = "a; classes: [yellow, red]\nb; classes: [green]\nc; classes: [blue, red]"


def test_task_incremental_tasks_have_label_spaces_of_their_own(class_folders, tmp_path):
    data = loaded(class_folders, tmp_path, "task-incremental", STEPS)
    assert [task.space.class_names for task in data.tasks] == [("yellow", "red"), ("green",), ("blue", "red")]
    for index, task in enumerate(data.tasks):
        assert task.index == index and task.train_space == task.space
        assert (len(task.train), len(task.validation), len(task.test)) == (
            2 * len(task.space),
            len(task.space),
            6,
        )
        for images in (task.train, task.validation, task.test):
            assert named_after_colour(images, task.space)
            assert images.pixels.dtype == torch.uint8 and images.pixels.shape[1:] == (3, 8, 8)
            assert images.labels.dtype == torch.int64


def test_class_incremental_tasks_share_a_space_that_grows(class_folders, tmp_path):
    data = loaded(class_folders, tmp_path, "class-incremental", STEPS)
    joint = ("yellow", "red", "green", "blue")
    assert [task.space.class_names for task in data.tasks] == [joint] * 3
    assert [task.train_space.class_names for task in data.tasks] == [joint[:2], joint[:3], joint]
    # A class that comes again keeps its label.
    assert [sorted(set(task.test.labels.tolist())) for task in data.tasks] == [[0, 1], [2], [1, 3]]
    for task in data.tasks:
        assert task.train_space.prompts == task.space.prompts[: len(task.train_space)]
        assert named_after_colour(task.train, task.train_space) and named_after_colour(task.test, task.space)
        assert named_after_colour(task.validation, task.space)


def test_a_class_incremental_loss_may_contrast_the_tasks_own_classes(class_folders, tmp_path):
    data = loaded(class_folders, tmp_path, "class-incremental", STEPS, "task")
    assert [task.train_space.class_names for task in data.tasks] == [
        ("yellow", "red"),
        ("green",),
        ("blue", "red"),
    ]
    for task in data.tasks:
        assert len(task.space) == 4
        assert named_after_colour(task.train, task.train_space) and named_after_colour(task.test, task.space)
        assert named_after_colour(task.validation, task.space)
    assert data.tasks[2].train.labels.max() == 1 and data.tasks[2].test.labels.max() == 3


def test_joint_spaces_have_as_many_prompts_for_every_class(class_folders, tmp_path):
    steps = (
        'a; classes: [red]; prompts: ["a {}", "the {}", "{}"]\nb; classes: [blue]; prompts: ["one {}", "two'
        ' {}"]'
    )
    data = loaded(class_folders, tmp_path, "class-incremental", steps)
    red, blue = data.tasks[1].space.prompts
    # Every prompt has the same weight in the mean of its class as before.
    assert len(red) == len(blue) and len(set(Counter(red).values())) == len(set(Counter(blue).values())) == 1
    assert (set(red), set(blue)) == ({"a red", "the red", "red"}, {"one blue", "two blue"})
    alone = loaded(class_folders, tmp_path, "task-incremental", steps)
    assert [task.space.templates for task in alone.tasks] == [3, 2]


def test_domain_incremental_tasks_have_the_same_classes(class_folders, tmp_path):
    steps = 'a; classes: [red, blue]\nb; classes: [red, blue]; prompts: ["b {}"]'
    for loss_classes in ("seen", "task"):
        data = loaded(class_folders, tmp_path, "domain-incremental", steps, loss_classes)
        assert [task.space.class_names for task in data.tasks] == [("red", "blue")] * 2
        assert data.tasks[1].space.prompts == (("b red",), ("b blue",)) != data.tasks[0].space.prompts
        assert all(
            task.train_space == task.space and named_after_colour(task.test, task.space)
            for task in data.tasks
        )
    for other, told in (("[blue, red]", "their order"), ("[red, green]", "blue', 'green'")):
        with pytest.raises(UserError, match=rf":\d+: tasks\[1\]: .*'b' and 'a' differ in '?{told}"):
            loaded(
                class_folders, tmp_path, "domain-incremental", f"a; classes: [red, blue]\nb; classes: {other}"
            )


def test_zero_shot_images_and_those_that_are_not_there(class_folders, tmp_path):
    zero_shot = f"zero_shot: [{{name: z, source: {{kind: folder, root: {class_folders}}}, images: 5}}]"
    plans = planned(tmp_path, f"a; {class_folders}", f"shots: all\n{zero_shot}")
    data = load(plans, "class-incremental", Pixels((8, 6)))
    images, space = data.zero_shot["z"]
    assert len(images) == 5 and len(space) == 4 and named_after_colour(images, space)
    nothing = data.tasks[0].validation
    assert len(nothing) == 0 and nothing.pixels.shape == (0, 3, 8, 6) and nothing.labels.dtype == torch.int64


def test_the_embedded_world_is_drawn_in_the_size_of_the_model(tmp_path):
    path = tmp_path / "world.yaml"
    path.write_text(
        "name: x\nshots: 1\ntest_limit: 3\ntasks: [{name: a, source: {kind: world, domain: digits}}]\n"
    )
    plans = plan(load_scenario(str(path)), 0)
    first, again = (load(plans, "task-incremental", Pixels((24, 24))).tasks[0] for _ in range(2))
    assert first.train.pixels.shape == (10, 3, 24, 24) and torch.equal(first.train.pixels, again.train.pixels)
    assert first.test.pixels.shape == (3, 3, 24, 24) and len(first.space) == 10


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    paint(tmp_path / "data" / "train" / "ant" / "0.png", (1, 2, 3), 0)
    (tmp_path / "data" / "test" / "ant").mkdir(parents=True)
    (tmp_path / "data" / "test" / "ant" / "0.png").write_text("no image")
    with pytest.raises(UserError, match=r"test/ant/0\.png: cannot be read as an image"):
        load(planned(tmp_path, "a; data", "shots: 1"), "task-incremental", Pixels((8, 8)))


def test_imagenet_folders_are_called_by_their_words(tmp_path):
    for index in range(1000):
        (tmp_path / "images" / f"n{index:08d}").mkdir(parents=True)
    named = open_source(FolderSource(kind="folder", root="images", names="imagenet"), tmp_path)
    assert len(set(named.class_names)) == 1000 and named.class_names[0] == "tench"
    assert named.class_names[744] == "projectile" and named.class_names[657] == "missile"
    (tmp_path / "images" / "n00000999").rename(tmp_path / "images" / "toilet paper")
    with pytest.raises(UserError, match="names: imagenet needs the 1000 folders"):
        open_source(FolderSource(kind="folder", root="images", names="imagenet"), tmp_path)


def test_a_folder_may_be_all_for_testing(class_folders, tmp_path):
    for name in ("a", "b"):
        paint(tmp_path / "all" / name / "0.png", (200, 0, 0), 0)
    source = open_source(FolderSource(kind="folder", root="all", test_fraction=1.0), tmp_path)
    assert len(source.items("test")) == 2 and not source.items("train")
