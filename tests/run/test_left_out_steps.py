"""A step that is left out, because its loss or gradient is no number, leaves no trace in plugins."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from builders.interruptions import Said, ask_after
from builders.places import LONG
from builders.runs import deltas_of
from builders.steps import Batches
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.config import load_scenario, load_strategy
from cl_complora.config.factors import Budget, Gates
from cl_complora.engine.checkpoint import CheckpointPlugin
from cl_complora.engine.updates.between import Gate, GatesPlugin
from cl_complora.engine.updates.budget import BudgetPlugin
from cl_complora.run.signals import Stopped
from cl_complora.run.stream import run

NAMES = ("lora-pro", "adalora", "codyra", "lora")

# A step is left out by the run itself, or in 16 bits by the scale of the loss: every strategy, each with
# another plugin that keeps something from step to step, once in either precision. All pairs: the long form.
ALL = [(name, *how) for name in NAMES for how in (("fp32", "skip"), ("fp16", "stop"), ("fp16", "skip"))]
SOME = [(name, "fp32", "skip") for name in NAMES] + [
    ("lora-pro", "fp16", "skip"),
    ("adalora", "fp16", "stop"),
    ("codyra", "fp16", "skip"),
    ("lora", "fp16", "stop"),
]


@pytest.mark.parametrize(("name", "precision", "on_nan"), ALL if LONG else SOME)
def test_one_step_is_left_out_and_the_others_are_taken(
    tmp_path, tiny_scenario, monkeypatch, name, precision, on_nan
):
    broken, steps = [], []
    real = ClipClassifier.answers

    def overflowing(self, features, *rest):
        logits = real(self, features, *rest)
        if logits.requires_grad:
            broken.append(1)
            if len(broken) == 2:
                # A finite loss whose gradient overflows, as one does in 16 bits.
                logits.register_hook(lambda gradient: gradient * float("inf"))
        return logits

    monkeypatch.setattr(ClipClassifier, "answers", overflowing)
    # From where it begins, the scale of the loss would leave out steps of its own, as many as it likes.
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=2.0**8))
    for kind in (torch.optim.AdamW, torch.optim.SGD):
        monkeypatch.setattr(kind, "step", noted(kind.step, steps))
    settings = ["training.steps=5", "training.batch_size=4", f"training.on_nan={on_nan}"]
    strategy = load_strategy(name, [*settings, f"training.precision={precision}"])
    said, located = Said(), load_scenario(str(tiny_scenario))
    done = run(located, strategy, out=tmp_path, progress=said, analysis=False, evaluate=False)
    assert len(broken) == 2 * 5 and len(steps) == 2 * 5 - 1
    assert "1 step was left out: the loss or gradient was no number" in said.lines
    for tensors in deltas_of(done.folder).values():
        assert all(bool(torch.isfinite(value).all()) for value in tensors.values())


@pytest.mark.parametrize("counted", [True, False])
def test_steps_that_an_earlier_process_left_out_count(tmp_path, tiny_scenario, monkeypatch, counted):
    """A state of a version that did not count them is gone on from all the same."""
    real_state, real_answers, calls = CheckpointPlugin._state, ClipClassifier.answers, []

    def broken(self, features, *rest):
        logits = real_answers(self, features, *rest)
        if logits.requires_grad:
            calls.append(1)
        return logits * float("nan") if len(calls) == 2 else logits

    def uncounted(self, strategy):
        return {key: value for key, value in real_state(self, strategy).items() if key != "skipped"}

    settings = ["training.steps=6", "training.batch_size=4", "training.on_nan=skip"]
    given = load_scenario(str(tiny_scenario)), load_strategy("lora", settings)
    monkeypatch.setattr(ClipClassifier, "answers", broken)
    if not counted:
        monkeypatch.setattr(CheckpointPlugin, "_state", uncounted)
    ask_after(monkeypatch, 4)
    with pytest.raises(Stopped):
        run(*given, out=tmp_path, analysis=False, evaluate=False)
    monkeypatch.undo()
    said = Said()
    run(*given, out=tmp_path, analysis=False, evaluate=False, progress=said)
    assert "going on inside the task" in said.lines
    told = [line for line in said.lines if "left out" in line]
    assert told == (["1 step was left out: the loss or gradient was no number"] if counted else [])


def noted(real, calls):
    def step(self, *args, **kwargs):
        calls.append(1)
        return real(self, *args, **kwargs)

    return step


def at(done: int, counts: bool) -> SimpleNamespace:
    return SimpleNamespace(dataloader=Batches(10, done), counts=counts)


@pytest.mark.parametrize("counts", [True, False])
def test_scores_and_gates_stay_as_they_were(counts):
    budget = BudgetPlugin(Budget(kind="budget"))
    block = nn.Module()
    block.A, block.B = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(3, 2))
    block.between = Gate(torch.ones(2))
    budget.begun({"w": block})
    for p in (block.A, block.B, block.between.g):
        p.grad = torch.ones_like(p)
    budget.after_update(at(1, counts))
    assert all(bool((mean > 0).all()) == counts for mean, _ in budget.scores.values())

    gates = GatesPlugin(Gates(kind="gates"), 0)
    gates._gates = [Gate(torch.full((2,), 0.5))]
    gates.after_update(at(10, counts))
    assert bool((gates._gates[0].g < 0.5).all()) == counts
