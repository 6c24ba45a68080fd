"""A stream of the size of few-shot MTIL, end to end: eleven tasks, 1,201 classes, sixteen images of each, and
1,000 classes that are only measured, on made-up pictures and a ViT-B/16 with random weights.

Accuracy means nothing here; time does. Test sets are cut to what fits into minutes, and the hours of the
whole ones are computed from the rate that was measured.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import yaml
from PIL import Image

from cl_complora import run

from .clips import OWN
from .timing import Case, Size, Times, seconds_of

# Classes of order I; test images of the whole sets and of ImageNet as scenarios/mtil-16shot.yaml takes them.
CLASSES = {
    "aircraft": 100,
    "caltech101": 101,
    "cifar100": 100,
    "dtd": 47,
    "eurosat": 10,
    "flowers": 102,
    "food": 101,
    "mnist": 10,
    "pets": 37,
    "cars": 196,
    "sun397": 397,
}
WHOLE_TESTS, WHOLE_ZERO_SHOT = 97_000, 5_000


@dataclass(frozen=True)
class _Work:
    model: str
    classes: dict[str, int]
    shots: int
    test_images: int
    unlearned: int
    side: int


_WORK: dict[Size, _Work] = {
    "tiny": _Work("tiny", {"one": 2, "two": 3}, 2, 6, 4, 40),
    "quick": _Work("tiny", CLASSES, 2, 50, 100, 40),
    "full": _Work("ViT-B-16", CLASSES, 16, 400, 1000, 256),
}


def measure(size: Size, device: str = "cpu") -> Iterator[Case]:
    """One run of the default strategy, with everything that it loads, analyses and writes."""
    work = _WORK[size]
    with tempfile.TemporaryDirectory() as name, patch.dict(os.environ, CL_COMPLORA_CACHE=f"{name}/cache"):
        scenario = _made(work, Path(name), device)
        made: list[Any] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wall, cpu = seconds_of(
                lambda: made.append(
                    run(
                        scenario,
                        "complora",
                        out=Path(name) / "runs",
                        device=device,
                        settings=_settings(device),
                    )
                )
            )
        yield _case(work, made[0].results, Times([wall], [cpu]), device)


def _settings(device: str) -> dict[str, str]:
    return {"training.precision": "bf16"} if device.startswith("cuda") else {}


def _case(work: _Work, results: dict[str, Any], times: Times, device: str) -> Case:
    told = (
        f"{len(work.classes)} tasks, {sum(work.classes.values()):,} classes, {work.shots} shots, {work.model}"
    )
    parts = results["tasks_detail"]
    training = sum(part.get("train_seconds", 0.0) for part in parts)
    measuring = sum(part["eval_seconds"] for part in parts)
    rounds = len(work.classes) + 1
    answered = rounds * (len(work.classes) * work.test_images + work.unlearned)
    rate = answered / measuring
    whole = training + rounds * (WHOLE_TESTS + WHOLE_ZERO_SHOT) / rate
    found = {
        "name": "cl_complora.run (ours)",
        **times.entry(),
        "train_s": training,
        "eval_s": measuring,
        "else_s": times.median - training - measuring,
        "answered": answered,
        "images_per_second": rate,
        "whole_tests_hours": whole / 3600,
    }
    return Case("mtil", f"{told}, {answered:,} answers, {device}", found, load=(os.getloadavg()[0],) * 2)


def _made(work: _Work, folder: Path, device: str) -> str:
    """Pictures, model and scenario in a folder; the scenario's path."""
    model: dict[str, Any] = {"name": work.model}
    if work.model in OWN:
        (folder / "model.json").write_text(json.dumps(OWN[work.model]), encoding="utf-8")
        model["config"] = str(folder / "model.json")
    tasks = [
        {
            "name": name,
            "source": {"kind": "folder", "root": str(folder / name)},
            "prompts": ["a photo of a {}."],
        }
        for name in work.classes
    ]
    unlearned = {"kind": "folder", "root": str(folder / "unlearned"), "test_fraction": 1.0}
    scenario = {
        "name": "mtil-sized",
        "description": "made-up pictures in the number of few-shot MTIL",
        "protocol": "task-incremental",
        "model": model,
        "shots": work.shots,
        "test_limit": work.test_images,
        "augment": {"crop": [0.3, 1.0], "flip": True},
        "evaluation": {"precision": "bf16" if device.startswith("cuda") else "fp32"},
        "tasks": tasks,
        "zero_shot": [{"name": "unlearned", "source": unlearned, "prompts": ["a photo of a {}."]}],
        "seeds": [0],
    }
    wanted = []
    for name, classes in work.classes.items():
        tests = -(-work.test_images // classes)
        wanted += [
            (folder / name / split / f"{name} {number:03d}", count)
            for number in range(classes)
            for split, count in (("train", work.shots), ("test", tests))
        ]
    wanted += [(folder / "unlearned" / f"thing {number:04d}", 1) for number in range(work.unlearned)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda one: _draw(*one, work.side), wanted))
    path = folder / "mtil-sized.yaml"
    path.write_text(yaml.safe_dump(scenario, sort_keys=False), encoding="utf-8")
    return str(path)


def _draw(folder: Path, count: int, side: int) -> None:
    """Pictures of one class: coarse patches of colours that it has more of, and noise."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(sum(str(folder.name).encode()))
    base = random.integers(0, 256, (8, 8, 3))
    for number in range(count):
        patches = (base + random.integers(-60, 60, base.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(patches).resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg")
