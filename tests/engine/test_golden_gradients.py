"""LoRA-GA and Image-LoRA, which look at gradients before a task, against what their authors' programs
compute, and formulas beside them that must not pass."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from builders.golden import agrees, golden, tensor
from cl_complora.config.factors import GradientComponentsStart
from cl_complora.engine import gradient_components as lora_ga
from cl_complora.engine.gradient_components import GradientComponentsStarting, gradient_components
from cl_complora.lowrank import LowRankBlock, Side


def check_lora_ga(file: dict) -> None:
    given = file["inputs"]
    weight, s = tensor(given["W"]), given["s"]
    for direction, leading in (("ArB2r", "input"), ("A2rBr", "output")):
        expected = file["outputs"][direction]
        plugin = GradientComponentsStarting(
            GradientComponentsStart(kind="gradient-components", leading=leading, gamma=given["gamma"])
        )
        plugin._gradients = {"w": tensor(given["gradient"])}
        start = plugin.of(SimpleNamespace(name="w", weight=weight), given["r"], s, Side(), Side())
        agrees(file, start.a.abs(), tensor(expected["A"]).abs(), f"A up to signs, {direction}")
        agrees(file, start.b.abs(), tensor(expected["B"]).abs(), f"B up to signs, {direction}")
        # A sign of U comes with one of V: those of A and B are of different vectors and free.
        signs = torch.sign(
            (start.b * tensor(expected["B"])).sum(0) * (start.a * tensor(expected["A"])).sum(1)
        )
        rest = weight - s * (start.b * signs) @ start.a
        agrees(file, rest, expected["residual_W"], f"rest, {direction}")
        block = LowRankBlock(*weight.shape, given["r"], s, start=start).double()
        assert block.update().abs().max() < 1e-15 and block.A.requires_grad and block.B.requires_grad


def test_lora_ga():
    check_lora_ga(golden("lora_ga"))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda g, r, out, gamma, leading: gradient_components(
            g, r, out, gamma, "output" if leading == "input" else "input"
        ),
        lambda g, r, out, gamma, leading: gradient_components(g, r, g.shape[1], gamma, leading),
        lambda g, r, out, gamma, leading: gradient_components(g, r, out, gamma**2, leading),
        lambda g, r, out, gamma, leading: [
            f.mT for f in gradient_components(g.mT, r, out, gamma, leading)[::-1]
        ],
    ],
    ids=["sides swapped", "scaled by the inputs", "another gamma", "transposed"],
)
def test_another_start_from_the_gradient_is_noticed(monkeypatch, wrong):
    monkeypatch.setattr(lora_ga, "gradient_components", wrong)
    with pytest.raises((AssertionError, RuntimeError)):
        check_lora_ga(golden("lora_ga"))


def test_in_a_subspace_the_start_is_that_of_the_gradient_in_its_coordinates():
    weight, gradient = torch.randn(6, 9), torch.randn(6, 9)
    u, v = (torch.linalg.qr(torch.randn(n, n))[0][:, 2:] for n in (6, 9))
    plugin = GradientComponentsStarting(GradientComponentsStart(kind="gradient-components"))
    plugin._gradients = {"w": gradient}
    sides = Side(v), Side(u)
    start = plugin.of(SimpleNamespace(name="w", weight=weight), 2, 1.0, *sides)
    outside = torch.eye(6) - u @ u.mT
    block = LowRankBlock(6, 9, 2, output=sides[1], input=sides[0], start=start)
    left, _, right = torch.linalg.svd(u @ u.mT @ gradient @ v @ v.mT)
    b, a = block.factors()
    assert torch.allclose(outside @ b, torch.zeros(6, 4), atol=1e-5)
    length = 6**0.25 / 4
    assert torch.allclose(a[:2].abs(), length * right[:2].abs(), atol=1e-4)
    assert torch.allclose(b[:, :2].abs(), length * left[:, 2:4].abs(), atol=1e-4)
    # Where two sets of vectors do not fit, both factors get as many, and it is told.
    small = plugin.of(SimpleNamespace(name="w", weight=weight), 5, 1.0, *sides)
    assert small.a.shape == (2, 7) and small.b.shape == (4, 2) and "take 2 instead of 5" in plugin.notes[0]
