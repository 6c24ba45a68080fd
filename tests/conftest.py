"""A tiny CLIP and tiny data, made here, so that the tests need no download and run in seconds."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import cl_complora.engine  # noqa: F401 - imports Avalanche with the warnings of its import silenced
from cl_complora.cli import main

# What ``make test-faults`` asks for: the long form of the tests of faults and of hostile input.
LONG = os.environ.get("CL_COMPLORA_FAULTS") == "long"

# Decoded images of the tests are no business of the user's cache; subprocesses read the same variable.
_CACHE = tempfile.TemporaryDirectory(prefix="cl_complora-test-cache-")
os.environ["CL_COMPLORA_CACHE"] = _CACHE.name

TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 48, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


# The files that take longest, by the minute: begun first, so that no process is left alone with one at the
# end.
LONGEST = (
    "test_strategies",
    "test_readme",
    "test_faults",
    "test_compare",
    "test_run",
    "test_inside",
    "test_cli",
    "test_computing",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def tiny_clip(seed: int = 0) -> torch.nn.Module:
    """open_clip's own CLIP, small and random."""
    torch.manual_seed(seed)
    model = open_clip.model.CLIP(**TINY)
    # The init of open_clip leaves projections tiny; larger ones make wrong maths visible.
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(1.5)
    return model.eval()


@pytest.fixture
def clip_model() -> torch.nn.Module:
    return tiny_clip()


@pytest.fixture(scope="session")
def tokenizer():
    return open_clip.tokenizer.SimpleTokenizer(context_length=16)


def paint(path, colour, seed: int, size: int = 40) -> None:
    """A noisy picture of one colour."""
    rng = np.random.default_rng(seed)
    pixels = np.clip(np.array(colour) + rng.normal(0, 25, (size, size, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (30, 40, 200), "yellow": (230, 220, 40)}


@pytest.fixture(scope="session")
def class_folders(tmp_path_factory):
    """root/{train,test}/<colour>/N.png, six images a class and split."""
    root = tmp_path_factory.mktemp("colours")
    for split in ("train", "test"):
        for label, (name, colour) in enumerate(COLOURS.items()):
            for number in range(6):
                paint(
                    root / split / name / f"{number}.png",
                    colour,
                    100 * label + 10 * number + (split == "train"),
                )
    return root


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory):
    """(config JSON, safetensors) of the tiny CLIP, as a user would give them."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "tiny_clip.json").write_text(json.dumps(TINY))
    save_file(tiny_clip().state_dict(), folder / "tiny_clip.safetensors")
    return folder / "tiny_clip.json", folder / "tiny_clip.safetensors"


STRATEGY = """
name: {name}
adapter: {{kind: lowrank, rank: 2, matrices: [q, v, fc], subspace: {{select: complement, keep: {{energy: 0.5}}}}}}
optimiser: {{name: adamw, lr: 5e-3}}
training: {{steps: 4, batch_size: 6}}
"""


@pytest.fixture(scope="session")
def tiny_scenario(tmp_path_factory, class_folders, tiny_files):
    """A scenario file of two tasks and a zero-shot set on coloured squares."""
    config, weights = tiny_files
    path = tmp_path_factory.mktemp("scenario") / "tiny.yaml"
    path.write_text(f"""
name: tiny
protocol: task-incremental
model: {{name: tiny_clip, config: {config}, pretrained: {weights}}}
shots: 3
tasks:
  - name: warm
    source: {{kind: folder, root: {class_folders}}}
    classes: [red, yellow]
  - name: cold
    source: {{kind: folder, root: {class_folders}}}
    classes: [green, blue]
    prompts: ["a photo of {{}}", "{{}} paint"]
zero_shot:
  - name: colours
    source: {{kind: folder, root: {class_folders}}}
    images: 8
reference:
  source: {{kind: folder, root: {class_folders}}}
  images: 8
seeds: [0, 1]
""")
    return path


@pytest.fixture(scope="session")
def tiny_strategy(tmp_path_factory):
    """A Comp-LoRA strategy file of four steps a task."""
    path = tmp_path_factory.mktemp("strategy") / "quick.yaml"
    path.write_text(STRATEGY.format(name="quick"))
    return path


def without_timings(results: dict) -> dict:
    """results.json less what no two runs share."""
    results = json.loads(json.dumps(results))
    for detail in results["tasks_detail"]:
        del detail["train_seconds"], detail["eval_seconds"], detail["peak_memory_bytes"]
    return results


def deltas_of(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """File name → tensors of every delta that a run left."""
    return {path.name: load_file(path) for path in sorted((folder / "deltas").iterdir())}


def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *words: object
) -> tuple[int, str, str]:
    """Exit code, output and errors of a command."""
    monkeypatch.setattr(sys, "argv", ["cl-complora", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return ended.value.code or 0, said.out, said.err


class Hangs(BaseException):
    """No ``except Exception`` swallows it."""


@pytest.fixture
def never_hangs():
    """Ends a test that takes far longer than any should."""

    def stop(number, frame):
        raise Hangs

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(1200 if LONG else 60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
