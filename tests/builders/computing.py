"""Runs of a few plain steps, and whether two of them trained the same."""

from __future__ import annotations

import pytest
import torch

from builders.runs import deltas_of
from cl_complora.clip.attention import SplitAttention
from cl_complora.config import load_scenario, load_strategy
from cl_complora.run.stream import run

# Adam makes as much of a gradient that is rounding as of any other; SGD does not.
PLAIN = [
    "training.steps=3",
    "training.batch_size=4",
    "optimiser.name=sgd",
    "optimiser.lr=0.01",
    "optimiser.momentum=0",
]


AS_THEY_ARE = ["augment.crop=[1,1]", "augment.flip=false"]
LAST = ["adapter.layers=[-1]"]


def go(tiny_scenario, out, strategy, settings=(), scenario=(), evaluate=False):
    """Without measuring, unless it is asked for: what is compared are the updates."""
    located = load_scenario(str(tiny_scenario), list(scenario))
    chosen = load_strategy(strategy, [*PLAIN, *settings])
    return run(located, chosen, out=out, evaluate=evaluate, analysis=False)


def assert_same(folder, other, digits: float = 2e-3) -> None:
    whole, found = deltas_of(folder), deltas_of(other)
    assert whole.keys() == found.keys()
    for file, tensors in whole.items():
        assert any(float(value.float().abs().max()) > 0 for value in tensors.values())
        for key, value in tensors.items():
            scale = float(value.float().abs().max()) or 1.0
            torch.testing.assert_close(
                found[file][key].float(), value.float(), atol=digits * scale, rtol=1e-3
            )


def count_every_tower_as_wide(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every tower counts as wide from now on.

    Returns:
        How many tokens each call of a last block gave, filled while it runs.
    """
    tokens: list[int] = []
    real = SplitAttention.forward

    def noted(self, query, *args, **kwargs):
        tokens.append(query.shape[1])
        return real(self, query, *args, **kwargs)

    monkeypatch.setattr("cl_complora.clip.blocks.WIDE", 1)
    monkeypatch.setattr(SplitAttention, "forward", noted)
    return tokens
