"""Tasks of captions on paper: which pictures are trained on, which tested, and what is refused."""

from __future__ import annotations

import json

import pytest

from builders.caption_tasks import pairs
from builders.captions import TEXTS, coco, json_lines, karpathy, painted
from builders.images import paint
from cl_complora.config import load_scenario
from cl_complora.data.images.pixels import Pixels
from cl_complora.data.planning import plan
from cl_complora.data.plans import Plans
from cl_complora.data.tasks import load
from cl_complora.errors import UserError

TASK = "  - name: told\n    source: {source}\n"


def scenario(folder, source: str, more: str = "", head: str = ""):
    file = folder / "scenario.yaml"
    file.write_text(f"name: s\nshots: 2\n{head}tasks:\n{TASK.format(source=source)}{more}", encoding="utf-8")
    return load_scenario(str(file))


def planned(folder, source: str, more: str = "", head: str = "", seed: int = 0):
    return plan(scenario(folder, source, more, head), seed).tasks[0]


def keys(items) -> set[str]:
    return {item.key for item in items}


def test_without_splits_a_share_is_set_apart_the_same_for_every_seed(tmp_path):
    pairs(tmp_path)
    source = "{kind: captions, file: pairs.jsonl, test_fraction: 0.25}"
    ones = [planned(tmp_path, source, "    images: 6\n", seed=seed) for seed in (0, 1)]
    assert [(len(one.train), len(one.test)) for one in ones] == [(6, 4)] * 2
    assert keys(ones[0].test) == keys(ones[1].test) and keys(ones[0].train) != keys(ones[1].train)
    for one in ones:
        assert not keys(one.train) & keys(one.test) and one.class_names == () and one.prompts == ()
        assert one.captions("test").texts == tuple(one.texts[item.key] for item in one.test)
    assert ones[0].manifest()[0].keys() == {"split", "texts", "key", "bytes"}


def test_rows_that_say_their_split_and_a_file_of_its_own_for_the_test(tmp_path):
    painted(tmp_path)
    for number in range(3):
        paint(tmp_path / f"more{number}.png", (9, 90, 200), number)
    karpathy(tmp_path / "dataset.json")
    rows = json.loads((tmp_path / "dataset.json").read_text())
    rows["images"] = [row for row in rows["images"] if row["filename"] != "absent.png"]
    rows["images"] += [
        {"filename": f"more{n}.png", "split": "train", "sentences": [{"raw": f"more {n}"}]} for n in range(3)
    ]
    (tmp_path / "dataset.json").write_text(json.dumps(rows))
    one = planned(tmp_path, "{kind: captions, file: dataset.json}")
    assert keys(one.test) == set(TEXTS) and keys(one.train) == {f"more{n}.png" for n in range(3)}
    for folder, make in (("train2017", json_lines), ("val2017", coco)):
        painted(tmp_path / folder)
        make(tmp_path / ("train.jsonl" if make is json_lines else "captions_val2017.json"))
    source = "{kind: captions, file: train.jsonl, root: train2017, test_file: captions_val2017.json}"
    two = planned(tmp_path, source.replace("}", ", test_root: val2017}"))
    assert keys(two.train) == {f"train2017/{name}" for name in TEXTS}
    assert keys(two.test) == {f"val2017/{name}" for name in TEXTS}
    assert two.texts["train2017/red.png"] == two.texts["val2017/red.png"] == TEXTS["red.png"]


@pytest.mark.parametrize(
    "source, told",
    [
        ("{kind: captions, file: pairs.jsonl, split: train}", "split: train asks for a part"),
        ("{kind: captions, file: pairs.jsonl, test_split: dev}", "test_split: dev asks for a part"),
        ("{kind: captions, file: pairs.jsonl, test_file: pairs.jsonl}", "is one of the training pictures"),
        (
            "{kind: captions, file: pairs.jsonl, test_root: here}",
            "test_root: has no effect without test_file",
        ),
        (
            "{kind: captions, file: pairs.jsonl, test_file: b.jsonl, test_fraction: 0.3}",
            "test_fraction: has no effect with test_file",
        ),
        ("{kind: captions, file: pairs.jsonl, test_fraction: 0.01}", "has 0 test pictures"),
        ("{kind: captions, file: pairs.jsonl, test_fraction: 0.99}", "2 training pictures, but"),
    ],
)
def test_faults_of_the_source(tmp_path, source, told):
    pairs(tmp_path)
    with pytest.raises(UserError) as caught:
        planned(tmp_path, source)
    assert told in str(caught.value)


def test_captions_alone_are_measured_on_validation_without_shots_for_it(tmp_path):
    pairs(tmp_path)
    source = "{kind: captions, file: pairs.jsonl}"
    one = planned(tmp_path, source, "    validation_images: 2\n", "measure: validation\n")
    assert len(one.validation) == 2
    with pytest.raises(UserError, match="'told' has no validation pictures; validation_images sets some"):
        planned(tmp_path, source, "", "measure: validation\n")


@pytest.mark.parametrize(
    "key, told",
    [
        ("shots: 4", "shots: has no effect on pictures with captions, which have no classes; images says"),
        ("classes: [a]", "classes: has no effect on pictures with captions"),
        ("class_range: [0, 1]", "class_range: has no effect"),
        ('prompts: ["a {}"]', "prompts: has no effect"),
        ("sampler: coop", "sampler: has no effect"),
        ("split_file: a.jsonl", "split_file: has no effect"),
        ("images: 9", "images: 9 training pictures, but the source of task 'told' has 8"),
        ("images: 1", "images: must be at least 2, got 1"),
        ("validation_images: 7", "2 training pictures and 7 for validation, but"),
        ("test_limit: 1", "test_limit: task 'told' has 1 test picture; retrieval needs two"),
    ],
)
def test_faults_of_the_task(tmp_path, key, told):
    pairs(tmp_path)
    with pytest.raises(UserError) as caught:
        planned(tmp_path, "{kind: captions, file: pairs.jsonl}", f"    {key}\n")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "protocol, told",
    [
        ("class-incremental", "tells the classes of all tasks apart, and captions are no classes"),
        ("domain-incremental", "gives all tasks the same classes, and captions are no classes"),
    ],
)
def test_protocols_that_share_classes_are_refused(tmp_path, protocol, told):
    pairs(tmp_path)
    with pytest.raises(UserError) as caught:
        planned(tmp_path, "{kind: captions, file: pairs.jsonl}", head=f"protocol: {protocol}\n")
    assert told in str(caught.value) and "tasks[0].source" in str(caught.value)


def test_keys_of_captions_are_refused_for_classes(tmp_path):
    with pytest.raises(UserError, match="images: is for tasks of captions; a task of classes has shots"):
        planned(tmp_path, "{kind: world, domain: flags}", "    images: 5\n")


def test_measuring_validation_pictures_needs_some(tmp_path):
    pairs(tmp_path)
    head = "measure: validation\nvalidation_shots: 1\n"
    with pytest.raises(UserError, match="has no validation pictures; validation_images sets some apart"):
        planned(tmp_path, "{kind: captions, file: pairs.jsonl}", head=head)


def test_the_first_texts_of_training_pictures_are_what_a_whole_task_is(tmp_path):
    pairs(tmp_path)
    one = planned(tmp_path, "{kind: captions, file: pairs.jsonl}")
    task = load(Plans((one,), ()), "task-incremental", Pixels((8, 8))).tasks[0]
    firsts = [one.texts[item.key][0] for item in one.train]
    assert set(task.space.class_names) == set(firsts) and task.train_space == task.space
    assert [task.space.class_names[label] for label in task.train.labels.tolist()] == firsts
    assert len(task.captions("test").plan.captions) == 2 * len(task.test)


def test_the_worlds_own_captions_have_pictures_of_their_own_to_train_on(tmp_path):
    for domain in ("captions", "negatives"):
        one = planned(tmp_path, f"{{kind: world, domain: {domain}}}", "    images: 4\n    test_limit: 3\n")
        assert (len(one.train), len(one.test)) == (4, 3) and not keys(one.train) & keys(one.test)
        assert all(texts for texts in one.texts.values())
    with pytest.raises(UserError, match="it is for retrieval: .* and for tasks"):
        file = tmp_path / "scenario.yaml"
        file.write_text(
            file.read_text() + "zero_shot:\n  - {name: z, source: {kind: world, domain: negatives}}\n"
        )
        load_scenario(str(file))
