"""Which images are drawn for training and test, that the draw depends on nothing else, and its
fingerprint."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from builders.streams import keys, planned, scenario, touch, touch_all
from cl_complora.config import load_scenario
from cl_complora.data.planning import plan
from cl_complora.errors import UserError


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    return touch_all(tmp_path_factory.mktemp("folders"))


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


@pytest.mark.parametrize(
    ("task", "scenario", "told"),
    [
        ("a; divided", "shots: 8\nvalidation_shots: 1", "8 training images; validation_shots (--validation"),
        ("a; divided", "shots: 8\nvalidation_shots: 1", ": --set shots=7 would do"),
        ("a; divided", "shots: 8\nvalidation_shots: 9", ": --set shots=7 and --validation-shots 1 would do"),
        ("a; divided", "shots: 5\nvalidation_shots: 4", ": --validation-shots 3 would do"),
        ("a; divided", "shots: all\nvalidation_shots: 8", ": --validation-shots 7 would do"),
        ("a; divided; shots: 8", "validation_shots: 2", ": --set tasks.0.shots=6 would do"),
        ("a; divided; shots: [2, 2, 8, 2]", "validation_shots: 2", ": --set tasks.0.shots.2=6 would do"),
        ("a; divided", "shots: {most: 8, least: 1}\nvalidation_shots: 2", ": at most 6 shots would do"),
        ("a; lone", "shots: 1\nvalidation_shots: 1", "1 training image; validation_shots"),
        ("a; lone", "shots: 1\nvalidation_shots: 1", ", and one image is too few for both"),
    ],
)
def test_who_asks_for_validation_images_is_told_with_what_leaves_some(folders, task, scenario, told):
    touch(folders / "lone" / "train", ant=1, bee=1)
    with pytest.raises(UserError) as caught:
        planned(folders, task, scenario)
    assert told in caught.value.messages[0]


@pytest.mark.parametrize(
    ("shots", "cats", "enough"),
    [("4", 6, 2), ("[2, 3, 5]", 8, 3)],
)
def test_of_classes_with_too_few_images_the_one_that_lacks_most_is_told_of(folders, shots, cats, enough):
    touch(folders / "uneven" / "train", ant=9, bee=7, cat=cats)
    touch(folders / "uneven" / "test", ant=1, bee=1, cat=1)
    with pytest.raises(UserError) as caught:
        planned(folders, f"a; uneven; shots: {shots}", "validation_shots: 6")
    assert f": --validation-shots {enough} would do" in caught.value.messages[0]
    planned(folders, f"a; uneven; shots: {shots}", f"validation_shots: {enough}")


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
