"""The draws of CoOp and CLIP-LoRA for a seed, of whole data sets and of some of their classes."""

from __future__ import annotations

import json
import random

import pytest

from builders.images import COLOURS
from builders.streams import touch
from cl_complora.config import load_scenario
from cl_complora.data.planning import plan
from cl_complora.errors import UserError

NAMES = list(COLOURS)


@pytest.fixture
def images(tmp_path):
    """images/<colour>/N.png, ten of each, which nobody opens."""
    touch(tmp_path / "images", **dict.fromkeys(NAMES, 10))
    return tmp_path


@pytest.fixture
def split_file(images):
    """As CoOp writes it; the classes do not first appear in label order."""
    content = {"train": [], "val": [], "test": []}
    for name in ("blue", "red", "yellow", "green"):
        for number in range(10):
            part = "train" if number < 6 else "val" if number < 8 else "test"
            content[part].append([f"{name}/{number}.png", NAMES.index(name), name])
    (images / "split_zhou_Colours.json").write_text(json.dumps(content))
    return images / "split_zhou_Colours.json", content


def published(
    content: dict, shots: int, seed: int, validation_first: bool, repeat: bool
) -> dict[str, set[str]]:
    """The draw as those projects write it: the global generator, labels in the order in which they appear."""
    random.seed(seed)

    def draw(part: str, k: int) -> list[str]:
        tracker: dict[int, list[str]] = {}
        for path, label, _ in content[part]:
            tracker.setdefault(label, []).append(path)
        found = []
        for items in tracker.values():
            if len(items) >= k:
                found += random.sample(items, k)
            else:
                found += random.choices(items, k=k) if repeat else items
        return found

    order = [("val", min(shots, 4)), ("train", shots)]
    return {part: draw(part, k) for part, k in (order if validation_first else order[::-1])}


@pytest.mark.parametrize("sampler", ["coop", "clip_lora"])
@pytest.mark.parametrize("shots", [1, 4, 6, 9])
@pytest.mark.parametrize("seed", [0, 1, 7])
def test_published_draws_are_reproduced(images, split_file, sampler, shots, seed):
    text = (
        f"name: s\nshots: {shots}\nsampler: {sampler}\nvalidation_shots: 2\ntasks:\n  - name: colours\n"
        f"    source: {{kind: coop, file: {split_file[0].name}, root: images}}\n"
    )
    (images / "s.yaml").write_text(text)
    (task,) = plan(load_scenario(str(images / "s.yaml")), seed).tasks
    clip_lora = sampler == "clip_lora"
    expected = published(split_file[1], shots, seed, clip_lora, clip_lora)
    assert sorted(item.key for item in task.train) == sorted(expected["train"])
    kept = [item.key for item in task.validation]
    assert set(kept) <= set(expected["val"]) and len(kept) == (4 if shots == 1 else 8)


@pytest.mark.parametrize("sampler", ["coop", "clip_lora"])
def test_some_classes_get_the_images_that_they_get_among_all(images, split_file, sampler):
    """CoOp draws from the whole data set, and takes half of its classes after that."""

    def drawn(task: str) -> dict[str, list[str]]:
        text = (
            f"name: s\nshots: 3\nsampler: {sampler}\nvalidation_shots: 2\ntasks:\n  - name: colours\n"
            f"    source: {{kind: coop, file: {split_file[0].name}, root: images}}\n{task}"
        )
        (images / "s.yaml").write_text(text)
        (made,) = plan(load_scenario(str(images / "s.yaml")), 1).tasks
        found: dict[str, list[str]] = {}
        for item in (*made.train, *made.validation):
            found.setdefault(made.class_names[item.label], []).append(item.key)
        return found

    every = drawn("")
    half = drawn("    class_range: [2, 4]\n")
    assert len(half) == 2 and half == {name: every[name] for name in half}
    turned = drawn(f"    classes: {json.dumps([*half][::-1])}\n")
    assert turned == half


@pytest.mark.parametrize("sampler", ["coop", "clip_lora"])
def test_fewer_validation_images_than_were_asked_for_are_told(images, split_file, sampler):
    text = (
        f"name: s\nshots: 1\nsampler: {sampler}\nvalidation_shots: 4\ntasks:\n  - name: colours\n"
        f"    source: {{kind: coop, file: {split_file[0].name}, root: images}}\n"
    )
    (images / "s.yaml").write_text(text)
    (line,) = plan(load_scenario(str(images / "s.yaml")), 0).notes
    assert line.startswith("colours: validation_shots: 4 a class, but ") and "have 1 at most" in line
    assert not plan(load_scenario(str(images / "s.yaml"), ["validation_shots=1"]), 0).notes
    content = json.loads(split_file[0].read_text())
    gone = content["train"][0][1]
    content["train"] = [row for row in content["train"] if row[1] != gone]
    (images / "without.json").write_text(json.dumps(content))
    (images / "s.yaml").write_text(text.replace(split_file[0].name, "without.json"))
    with pytest.raises(UserError, match="has 0 training images"):
        plan(load_scenario(str(images / "s.yaml")), 0)
