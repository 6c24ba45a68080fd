"""LoRA-GA and Image-LoRA, which look at gradients before a task, against what their authors' programs
compute, and formulas beside them that must not pass."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from builders.golden import FORMS, agrees, golden, tensor
from cl_complora.config.factors import GradientComponentsStart
from cl_complora.engine.updates import head_choice
from cl_complora.engine.updates.head_choice import chosen_heads, gate_gradients
from cl_complora.engine.updates.starts import gradient_components as lora_ga
from cl_complora.engine.updates.starts.gradient_components import (
    GradientComponentsStarting,
    gradient_components,
)
from cl_complora.lowrank import LowRankBlock, Side, Start


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


def image_lora_block(given: dict) -> LowRankBlock:
    """V's factors of a file; rows of heads that are not chosen hold what must not get through."""
    heads, width, rank = given["heads"], given["head_dim"], given["r"]
    b = torch.ones(heads, width, rank, dtype=torch.float64)
    b[given["selected_heads"]] = tensor(given["B"]).mT
    start = Start(a=tensor(given["A"]).mT)
    between = head_choice.ChosenRows(heads, given["selected_heads"], heads * width, given["gamma"])
    block = LowRankBlock(heads * width, 8, rank, given["alpha"] / rank, start=start, between=between).double()
    block.B.data, between.gain.data = b.reshape(-1, rank), tensor(given["gamma"])
    return block


def check_image_lora(file: dict) -> None:
    given, out = file["inputs"], file["outputs"]
    block = image_lora_block(given)
    y = tensor(given["x"]) @ (tensor(given["W_v"]) + block.update()).mT + tensor(given["bias"])
    agrees(file, y, out["forward_all_tokens_visual"], "output")
    agrees(file, block.update(), out["delta_W_v"], "update")
    # The file's gradients are those of a model in which a few tokens of each image are visual.
    seen = tensor(given["x"])[:, given["visual_tokens"]]
    (tensor(given["G"])[:, given["visual_tokens"]] * (seen @ block.update().mT)).sum().backward()
    agrees(file, block.A.grad.mT, out["grad_A"], "gradient of A")
    by_head = block.B.grad.reshape(given["heads"], given["head_dim"], -1).mT
    agrees(file, by_head[given["selected_heads"]], out["grad_B"], "gradient of B")
    agrees(file, block.between.gain.grad, out["grad_gamma"], "gradient of the gain")
    scores = {str(place): tensor(row) for place, row in enumerate(file["selection"]["scores"])}
    for case in file["selection"]["cases"]:
        found = head_choice.chosen_heads(scores, case["num_heads"], case["tau"])
        # Two heads of the last layer tie, of which the authors' library takes either.
        for score, ours, theirs in zip(scores.values(), found.values(), case["heads"], strict=True):
            assert sorted(score[ours].tolist()) == sorted(score[theirs].tolist()), case
    check_gates(file, file["gate_probe"])


def check_gates(file: dict, probe: dict) -> None:
    """Gates of two residual attention layers, from the gradients of their weights."""
    x, heads, weights = tensor(probe["x"]), len(probe["gate_grad"][0]), []
    for layer in probe["layers"]:
        q, k, v, o = (tensor(layer[f"{name}_proj"]).requires_grad_() for name in "qkvo")
        weights.append(v)
        parts = [(x @ w.mT).unflatten(-1, (heads, -1)).transpose(1, 2) for w in (q, k, v)]
        mixed = nn.functional.scaled_dot_product_attention(*parts)
        x = x + mixed.transpose(1, 2).flatten(2) @ o.mT
    loss = (x - tensor(probe["target"])).square().mean()
    agrees(file, loss, probe["loss"], "loss")
    for v, gradient, expected in zip(
        weights, torch.autograd.grad(loss, weights), probe["gate_grad"], strict=True
    ):
        agrees(file, head_choice.gate_gradients([(v.detach(), gradient)], heads), expected, "gates")


@pytest.mark.parametrize("form", FORMS)
def test_image_lora(form):
    check_image_lora(golden("image_lora", form))


def _all_rows(self, b, a):
    return self.gain * self.share * b, a


def _gain_fixed(self, b, a):
    return self.gain.detach() * self.share * self.rows * b, a


def _not_by_heads(self, b, a):
    return self.gain * self.rows * b, a


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("ChosenRows.forward", _all_rows),
        ("ChosenRows.forward", _gain_fixed),
        ("ChosenRows.forward", _not_by_heads),
        ("chosen_heads", lambda scores, count, power: chosen_heads(scores, count, 1.0)),
        ("chosen_heads", lambda scores, count, power: chosen_heads(scores, count + 1, power)),
        (
            "chosen_heads",
            lambda scores, count, power: chosen_heads({n: -s for n, s in scores.items()}, count, power),
        ),
        ("gate_gradients", lambda parts, heads: -gate_gradients(parts, heads)),
        ("gate_gradients", lambda parts, heads: gate_gradients([(v.mT, g.mT) for v, g in parts], heads)),
    ],
)
def test_another_image_lora_is_noticed(monkeypatch, name, wrong):
    monkeypatch.setattr(f"cl_complora.engine.updates.head_choice.{name}", wrong)
    with pytest.raises((AssertionError, RuntimeError)):
        check_image_lora(golden("image_lora"))


def test_all_heads_that_are_asked_for_are_given_out():
    scores = {"all": tensor([5.0, 4.0, 3.0, 2.0]), **{f"none {i}": torch.zeros(4) for i in range(3)}}
    found = chosen_heads(scores, 12, 0.5)
    assert sum(map(len, found.values())) == 12 and found["all"] == [0, 1, 2, 3]
    assert sum(map(len, chosen_heads({n: 0 * s for n, s in scores.items()}, 8, 0.5).values())) == 8


def test_gates_scale_weight_and_bias():
    weight, bias, x = torch.randn(6, 5), torch.randn(6), torch.randn(4, 5)
    gates = torch.zeros(3, requires_grad=True)
    y = ((x @ weight.mT + bias).unflatten(1, (3, 2)) * (1 + gates)[:, None]).flatten(1)
    (expected,) = torch.autograd.grad(y.square().sum(), gates)
    parts = [weight.requires_grad_(), bias.requires_grad_()]
    gradients = torch.autograd.grad((x @ weight.mT + bias).square().sum(), parts)
    found = gate_gradients([(p.detach(), g) for p, g in zip(parts, gradients, strict=True)], 3)
    assert torch.allclose(found, expected.double(), rtol=1e-4)
