"""Multi-label sets: files with a list of labels, their faults, and what a scenario makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builders.captions import painted
from builders.images import paint
from cl_complora.config import load_scenario
from cl_complora.config.sources import MultiLabelSource
from cl_complora.data.captions import multi_label_sets
from cl_complora.data.checks.duplicates import copies
from cl_complora.data.kinds import open_source
from cl_complora.data.planning import plan
from cl_complora.errors import UserError

ROWS = [
    {"image": "red.png", "labels": ["warm", "red"]},
    {"image": "yellow.png", "labels": ["warm"]},
    {"image": "green.png", "labels": []},
    {"image": "blue.png", "labels": ["cold", "blue"]},
]


def written(folder: Path, rows=ROWS) -> Path:
    painted(folder)
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    (folder / "labels.jsonl").write_text(text)
    return folder / "labels.jsonl"


def opened(folder: Path, **settings):
    return open_source(MultiLabelSource(kind="multi-label", file="labels.jsonl", **settings), folder)


def test_images_and_their_classes_are_read(tmp_path):
    written(tmp_path)
    source = opened(tmp_path)
    assert list(source.class_names) == ["blue", "cold", "red", "warm"] and not source.notes
    found = {item.key: source.labels(item) for item in source.items("test")}
    assert found == {"red.png": (2, 3), "yellow.png": (3,), "green.png": (), "blue.png": (0, 1)}
    assert source.items("train") == []


def test_classes_may_be_given_and_what_no_picture_shows_is_told(tmp_path):
    written(tmp_path)
    source = opened(tmp_path, classes=["warm", "cold", "red", "blue", "mauve"])
    assert list(source.class_names)[:2] == ["warm", "cold"]
    (note,) = source.notes
    assert "no picture shows 'mauve'" in note and "left out of mAP" in note


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ('{"image": "red.png", "labels": ["a"', "must be a JSON object such as"),
        ('["red.png"]', "must be a JSON object such as"),
        ({"labels": ["warm"]}, "has no image"),
        ({"image": "red.png", "label": "warm"}, "has no labels (it has image, label)"),
        ({"image": 3, "labels": ["warm"]}, "image must be the name of a picture"),
        ({"image": "red.png", "labels": "warm"}, "labels must be a list of class names"),
        ({"image": "red.png", "labels": [3]}, "must be a class name, got 3"),
        ({"image": "red.png", "labels": [" "]}, "must be a class name"),
        ({"image": "red.png", "labels": ["warm", "warm"]}, "stands twice under image"),
        ({"image": "../red.png", "labels": ["warm"]}, "must lie below the root"),
        ({"image": "yellow.png", "labels": ["warm"]}, "is named a second time, after"),
    ],
)
def test_a_faulty_line_is_named(row, told, tmp_path):
    written(tmp_path, [*ROWS[1:], row])
    with pytest.raises(UserError) as raised:
        opened(tmp_path)
    assert f"labels.jsonl:{len(ROWS)}: " in str(raised.value) and told in str(raised.value)


def test_a_class_that_the_source_does_not_name_is_refused(tmp_path):
    written(tmp_path)
    with pytest.raises(
        UserError, match=r"labels.jsonl:1: label 'red' is none of the source's classes: 'warm', 'cold'"
    ):
        opened(tmp_path, classes=["warm", "cold"])


def test_missing_pictures_and_folders_are_named(tmp_path):
    written(tmp_path, [*ROWS, {"image": "absent.png", "labels": ["warm"]}])
    with pytest.raises(UserError, match=rf"labels.jsonl:{len(ROWS) + 1}: .*absent.png: No such file"):
        opened(tmp_path).items("test")
    with pytest.raises(UserError, match="there is no such folder"):
        opened(tmp_path, root="nowhere")
    written(tmp_path, ROWS[:1])
    with pytest.raises(UserError, match="names 1 image and 2 classes"):
        opened(tmp_path)


def scenario(tiny_scenario: Path, folder: Path, more: str = "") -> Path:
    written(folder)
    section = (
        "\nmulti_label:\n  - {name: several, source: {kind: multi-label, file: labels.jsonl}" + more + "}\n"
    )
    (folder / "scenario.yaml").write_text(tiny_scenario.read_text() + section)
    return folder / "scenario.yaml"


def planned(tiny_scenario, folder, more: str = "", settings=()):
    return plan(load_scenario(str(scenario(tiny_scenario, folder, more)), list(settings)), 0)


def test_a_plan_holds_what_every_image_shows(tiny_scenario, tmp_path):
    plans = planned(tiny_scenario, tmp_path)
    (chosen,) = plans.multi_label
    assert chosen.positive[0] == [False, False, True, True] and chosen.counted == 4
    rows = {row["key"]: row["labels"] for row in chosen.manifest()}
    assert rows["red.png"] == ["red", "warm"] and rows["green.png"] == []
    assert chosen.compound.texts == ()  # four images are too few for pairs of four classes
    assert chosen.prompts and copies(plans) is not None
    other = planned(tiny_scenario, tmp_path, ", prompts: ['the {}']").multi_label[0]
    assert other.sha256() != chosen.sha256()


def test_settings_are_never_chosen_by_it(tiny_scenario, tmp_path):
    settings = ["measure=validation", "validation_shots=1"]
    assert planned(tiny_scenario, tmp_path, settings=settings).multi_label == ()


def test_compound_prompts_of_the_users_own_are_matched_with_classes(tiny_scenario, tmp_path):
    (chosen,) = planned(
        tiny_scenario, tmp_path, ", compound: ['something warm and red', 'cold and blue']"
    ).multi_label
    assert chosen.compound.of == ((1,), (1,), (0,), (0,))


def test_pairs_of_very_many_classes_are_made_only_where_they_are_asked_for(
    tiny_scenario, tmp_path, monkeypatch
):
    more = [{"image": f"more{number}.png", "labels": ["warm"]} for number in range(2)]
    for number, row in enumerate(more):
        paint(tmp_path / row["image"], (200, 90, 0), number)
    path = scenario(tiny_scenario, tmp_path)
    written(tmp_path, [*ROWS, *more])

    def made(settings=()):
        plans = plan(load_scenario(str(path), list(settings)), 0)
        return len(plans.multi_label[0].compound.texts), [x for x in plans.notes if "compound" in x]

    assert made() == (6, [])
    monkeypatch.setattr(multi_label_sets, "MOST_PAIRS", 5)
    none, (note,) = made()
    assert none == 0 and note.startswith(
        "multi-label set 'several' has no compound prompts, since its 4 classes make 6 pairs; compound: pairs"
    )
    assert made(["multi_label.0.compound=pairs"]) == (6, [])
    assert made(["multi_label.0.compound=none"]) == (0, [])


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            ", compound: ['a horse']",
            "compound[0]: 'a horse' names none of the set's classes: 'blue'",
        ),
        (
            ", compound: pairs",
            "one class, which needs more than 4 images; the set has 4",
        ),
        (", compound: all", "compound"),
        (", images: 1", "images"),
        (", shots: 3", "shots"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(more, told, tiny_scenario, tmp_path):
    with pytest.raises(UserError) as raised:
        planned(tiny_scenario, tmp_path, more)
    assert told in str(raised.value) and "scenario.yaml:" in str(raised.value)


def test_sets_go_where_they_belong(tiny_scenario, tmp_path):
    path = scenario(tiny_scenario, tmp_path)
    text = path.read_text()
    path.write_text(text.replace("kind: multi-label, file: labels.jsonl", "kind: world, domain: textures"))
    with pytest.raises(UserError, match="multi_label"):
        load_scenario(str(path))
    path.write_text(text.replace("multi_label:", "retrieval:"))
    with pytest.raises(UserError, match="retrieval"):
        load_scenario(str(path))
    with pytest.raises(UserError, match="it is for multi_label"):
        load_scenario("embedded", ["tasks.0.source.domain=together"])
    path.write_text(text.replace("name: several", "name: warm"))
    with pytest.raises(UserError, match="'warm' is already the name of tasks"):
        load_scenario(str(path))
