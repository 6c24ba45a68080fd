"""Fixtures that tests of several rooms use; ``conftest.py`` brings them to the processes that run tests."""

from __future__ import annotations

import functools
import gc
import json
import signal
import sys
from pathlib import Path

import huggingface_hub.constants
import open_clip
import pytest
import torch
from safetensors.torch import save_file

import cl_complora.engine  # noqa: F401 - imports Avalanche with the warnings of its import silenced
from builders.drawing import KINDS, leave_out, put_back
from builders.images import COLOURS, paint
from builders.models import TINY, remember_models, tiny_clip
from builders.places import LONG
from builders.processes import hand_on, share_imports, unsynchronise
from builders.published import methods, ran  # noqa: F401 - fixtures
from builders.runs import STRATEGY
from cl_complora.config import load_scenario, load_strategy
from cl_complora.run import untouched
from cl_complora.run.stream import RunResult, run

huggingface_hub.constants.HF_HUB_OFFLINE = True  # read from the environment already, maybe

TRIES_NORMALISATIONS = ("test_untouched",)
# Kind of what most tests do without (``builders/drawing.py``) → files that have it.
LOOKS_AT = {
    "boards": ("test_board", "test_board_exact"),
    # Of runs that differ from the others, too: what they measured may be nothing that can be drawn.
    "pages": (
        "test_by_shots",
        "test_caption_tasks",
        "test_head_runs",
        "test_in_browser",
        "test_long_streams",
        "test_multi_label_runs",
        "test_retrieval_runs",
        "test_run_page",
        "test_run_page_head",
        "test_training_accuracy",
    ),
    # With what a user types, streams of other kinds than classes, and faults of what is watched.
    "watching": (
        "test_analysis",
        "test_board",
        "test_board_views",
        "test_caption_tasks",
        "test_changes",
        "test_faults",
        "test_multi_label_runs",
        "test_readme",
        "test_resumed_analysis",
        "test_retrieval_runs",
        "test_trackers",
        "test_training_accuracy",
    ),
}
# In the long form every page is drawn and every run watched.
SPARED = ("boards",) if LONG else KINDS

_IMPORTED = [0]  # modules there were when garbage was last frozen


def pytest_unconfigure() -> None:
    gc.unfreeze()  # else libraries report at the end what they take for leaks


@pytest.fixture(autouse=True)
def frozen_imports():
    """Every run collects garbage before it measures memory; what imports left need not be looked at each
    time."""
    if len(sys.modules) > _IMPORTED[0] + 50:
        gc.collect()
        gc.freeze()
        _IMPORTED[0] = len(sys.modules)


@pytest.fixture(scope="session", autouse=True)
def done_once():
    """What a suite need not do again and again: nothing waits for the disk, models of the tests are read
    once, workers of comparisons import nothing (``test_output`` starts some as a user does), and models that
    are opened by their name share a tokenizer, whose merges take long to read."""
    with pytest.MonkeyPatch.context() as patch:
        for change in (unsynchronise, remember_models, share_imports):
            change(patch.setattr)
        patch.setattr("open_clip.factory.SimpleTokenizer", functools.cache(open_clip.SimpleTokenizer))
        yield


@pytest.fixture(scope="module", autouse=True)
def spared(request: pytest.FixtureRequest):
    """Blank pictures and runs that nobody watches, but in tests of those and where :func:`drawn` is asked
    for; the same in the processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        leave_out(patch.setattr, *(kind for kind in SPARED if request.path.stem not in LOOKS_AT[kind]))
        hand_on(patch.setattr)
        yield


@pytest.fixture(scope="module", autouse=True)
def untried(request: pytest.FixtureRequest):
    """The tiny model is at chance, so every run would try the usual normalisations: once is enough."""
    if request.path.stem in TRIES_NORMALISATIONS:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(untouched, "_better", lambda *words: None)
        yield


@pytest.fixture
def drawn(monkeypatch):
    """Runs, their pictures and their pages as users get them."""
    put_back(monkeypatch.setattr, *KINDS)


@pytest.fixture
def clip_model() -> torch.nn.Module:
    return tiny_clip()


@pytest.fixture(scope="session")
def tokenizer():
    return open_clip.tokenizer.SimpleTokenizer(context_length=16)


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


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, tiny_scenario, tiny_strategy) -> RunResult:
    """That strategy on that scenario, for reading only: who changes the folder takes a copy. It is watched,
    and without pictures, whichever file asks first."""
    out = tmp_path_factory.mktemp("tiny-run")
    with pytest.MonkeyPatch.context() as patch:
        put_back(patch.setattr, "watching")
        leave_out(patch.setattr, "boards")
        return run(load_scenario(str(tiny_scenario)), load_strategy(str(tiny_strategy)), out=out)


@pytest.fixture(scope="session")
def joint_run(tmp_path_factory, tiny_scenario) -> Path:
    """All tasks of that scenario, learned together; for reading only."""
    quick = load_strategy("joint", ["training.steps=1", "training.batch_size=4"])
    out = tmp_path_factory.mktemp("joint")
    return run(load_scenario(str(tiny_scenario)), quick, out=out, analysis=False).folder


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
