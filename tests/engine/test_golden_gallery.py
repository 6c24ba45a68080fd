"""Flat-LoRA, LoRA-Pro, PiSSA and EVA against what their authors' programs compute, and formulas beside them
that must not pass."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from builders.golden import FORMS, agrees, golden, tensor
from cl_complora.engine.updates import full_gradient, weight_noise
from cl_complora.engine.updates.full_gradient import FullGradientPlugin, adjusted, sylvester
from cl_complora.engine.updates.starts import variance_start
from cl_complora.engine.updates.starts.initialisation import ComponentsStarting
from cl_complora.engine.updates.starts.variance_start import components, ranks_by_variance
from cl_complora.engine.updates.weight_noise import WeightNoisePlugin, row_deviation
from cl_complora.lowrank import LowRankBlock, Start


class Batches:
    """What is read of the batches of a step."""

    def __init__(self, done: int, steps: int) -> None:
        self.done, self.steps = done, steps

    def __len__(self) -> int:
        return self.steps


def block_of(given: dict) -> LowRankBlock:
    """Factors of a file."""
    a, b = tensor(given["A"]), tensor(given["B"])
    block = LowRankBlock(len(b), a.shape[1], len(a), given["s"], start=Start(a=a)).double()
    block.B.data = b
    return block


def check_flat_lora(file: dict, monkeypatch) -> None:
    given, block = file["inputs"], block_of(file["inputs"])
    weight = tensor(given["W"])
    adapter = SimpleNamespace(slots=[SimpleNamespace(name="w", weight=weight)], blocks={"w": block})
    plugin = WeightNoisePlugin(given["rho"], adapter, 0)
    for case in file["outputs"]:
        step = SimpleNamespace(dataloader=Batches(case["step"] + 1, given["T"]))
        found = weight_noise.row_deviation(
            weight + block.update().detach(), given["rho"], case["step"], given["T"]
        )
        assert torch.allclose(found, tensor(case["row_std"]), atol=1e-12), case["step"]
        # The file's own noise in place of a draw, divided by what it is multiplied with.
        drawn = tensor(case["eps"]) / tensor(case["row_std"]).clamp_min(1e-300)[:, None]
        clean = weight.clone()
        with monkeypatch.context() as patched:
            patched.setattr(torch, "randn", lambda *shape, drawn=drawn, **options: drawn)
            plugin.before_forward(step)
        b, a = block.factors()
        y = tensor(given["x"]) @ (weight + b @ a).mT
        gradients = torch.autograd.grad((tensor(given["G"]) * y).sum(), [block.A, block.B])
        agrees(file, y, case["y_perturbed"], "output")
        for name, gradient in zip("AB", gradients, strict=True):
            agrees(file, gradient, case[f"grad_{name}"], f"gradient of {name}")
        plugin.after_backward(step)
        assert torch.equal(weight, clean)


def flat_lora(form: str = "extract") -> dict:
    return golden("flat_lora", form) | {"tolerance": {"atol": 1e-10}}


@pytest.mark.parametrize("form", FORMS)
def test_flat_lora(form, monkeypatch):
    check_flat_lora(flat_lora(form), monkeypatch)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda weight, rho, step, steps: row_deviation(weight, rho, steps - step, steps),
        lambda weight, rho, step, steps: row_deviation(weight, rho, step, steps) * weight.shape[1] ** 0.5,
        lambda weight, rho, step, steps: row_deviation(weight, rho, step, steps).mean().expand(len(weight)),
        lambda weight, rho, step, steps: row_deviation(weight, rho, steps, steps),
    ],
    ids=["falling", "not by width", "one for all rows", "constant"],
)
def test_other_noise_is_noticed(monkeypatch, wrong):
    monkeypatch.setattr(weight_noise, "row_deviation", wrong)
    with pytest.raises(AssertionError):
        check_flat_lora(flat_lora(), monkeypatch)


def check_lora_pro(file: dict) -> None:
    given, out = file["inputs"], file["outputs"]["adjustment_only"]
    a, b = tensor(given["A"]), tensor(given["B"])
    raw = tensor(given["raw_grad_A"]), tensor(given["raw_grad_B"])
    g_a, g_b, x = full_gradient.adjusted(a, b, *raw, given["s"])
    agrees(file, x, out["X"], "X")
    agrees(file, g_a, out["adjusted_grad_A"], "A")
    agrees(file, g_b, out["adjusted_grad_B"], "B")
    agrees(file, given["s"] * (b @ g_a + g_b @ a), out["equivalent_gradient"], "both")

    # Four steps of descent; the authors' counter is one ahead.
    how = file["outputs"]["adam_sequence"]
    block = block_of(given | {"B": torch.zeros_like(b).tolist()})
    plugin = FullGradientPlugin(tuple(how["betas"]), SimpleNamespace(blocks={"w": block}))
    plugin.before_training_exp(None)
    plugin.step = 1
    for _ in range(4):
        loss = 0.5 * (block.update() - tensor(how["target_W"])).square().sum()
        block.A.grad, block.B.grad = torch.autograd.grad(loss, [block.A, block.B])
        plugin.before_update(SimpleNamespace(counts=True))
        with torch.no_grad():
            for p in (block.A, block.B):
                p -= how["lr"] * p.grad
    agrees(file, block.A, how["A_after_4"], "A after 4")
    agrees(file, block.B, how["B_after_4"], "B after 4")


@pytest.mark.parametrize("form", FORMS)
def test_lora_pro(form):
    check_lora_pro(golden("lora_pro", form))


def _wrong_sign(a, b, grad_a, grad_b, s, mixed=True):
    g_a, g_b, x = adjusted(a, b, grad_a, grad_b, s, mixed)
    return g_a - 2 * x @ a, g_b, x


def _without_scale(a, b, grad_a, grad_b, s, mixed=True):
    return adjusted(a, b, grad_a, grad_b, 1.0, mixed)


def _not_projected(a, b, grad_a, grad_b, s, mixed=True):
    g_a, g_b, x = adjusted(a, b, grad_a, grad_b, s, mixed)
    return g_a, grad_b @ torch.linalg.pinv(a @ a.mT) / s**2 - b @ x, x


def _unmixed(a, b, grad_a, grad_b, s, mixed=True):
    return adjusted(a, b, grad_a, grad_b, s, mixed=False)


@pytest.mark.parametrize("wrong", [_wrong_sign, _without_scale, _not_projected, _unmixed])
def test_another_lora_pro_is_noticed(monkeypatch, wrong):
    monkeypatch.setattr(full_gradient, "adjusted", wrong)
    with pytest.raises(AssertionError):
        check_lora_pro(golden("lora_pro"))


def test_both_factors_together_move_as_the_projected_gradient():
    a, b, g = (torch.randn(n, m, dtype=torch.float64) for n, m in ((2, 7), (5, 2), (5, 7)))
    for mixed in (True, False):
        g_a, g_b, _ = adjusted(a, b, 3 * b.mT @ g, 3 * g @ a.mT, 3.0, mixed)
        left, right = b @ torch.linalg.pinv(b), torch.linalg.pinv(a) @ a
        expected = left @ g + (torch.eye(5) - left) @ g @ right
        assert torch.allclose(3 * (b @ g_a + g_b @ a), expected, atol=1e-6)
    zero = torch.zeros_like(b)  # at the start
    g_a, g_b, x = adjusted(a, zero, zero.mT @ g, g @ a.mT, 1.0)
    assert not g_a.any() and not x.any() and torch.isfinite(g_b).all()
    left, right, target = a @ a.mT, b.mT @ b, torch.randn(2, 2, dtype=torch.float64)
    solved = sylvester(left, right, target)
    assert torch.allclose(left @ solved + solved @ right, target)


def check_pissa(file: dict, largest: bool = True, scale: float = 1.0) -> None:
    pissa = file.get("pissa", file)
    weight, x = tensor(pissa["inputs"]["W"]), tensor(pissa["inputs"]["x"])
    for case in (pissa["alpha_equals_r"], pissa["alpha_2r"]):
        s, rank = case["s"], pissa["inputs"]["r"]
        start = ComponentsStarting(largest).of(SimpleNamespace(weight=weight), rank, s * scale, None)
        agrees(file, s * start.b @ start.a, s * tensor(case["B"]) @ tensor(case["A"]), "product")
        agrees(file, start.a.abs(), tensor(case["A"]).abs(), "A up to signs")
        agrees(file, weight - s * start.b @ start.a, case["residual_W"], "rest")
        block = LowRankBlock(*weight.shape, rank, s, start=start).double()
        agrees(file, x @ (weight + block.update()).mT, x @ weight.mT, "start")
    agrees(file, x @ weight.mT, pissa["alpha_equals_r"]["forward_at_init"], "output")


def pissa(form: str = "extract") -> dict:
    file = golden("ba_lora", form) if form == "whole" else golden("pissa")
    return file | {"tolerance": {"atol": 1e-6}}


@pytest.mark.parametrize("form", FORMS)
def test_pissa(form):
    check_pissa(pissa(form))


@pytest.mark.parametrize("changed", [{"largest": False}, {"scale": 2.0}])
def test_another_pissa_is_noticed(changed):
    with pytest.raises(AssertionError):
        check_pissa(pissa(), **changed)


def check_milora(file: dict, largest: bool = False, scale: float = 1.0) -> None:
    for case in file["cases"].values():
        weight, rank = tensor(case["weight"]), case["rank"]
        start = ComponentsStarting(largest).of(SimpleNamespace(weight=weight), rank, scale, None)
        agrees(file, start.b @ start.a, case["delta"], "components")
        assert torch.allclose(start.b.norm(dim=0), start.a.norm(dim=1))
        block = LowRankBlock(*weight.shape, rank, 1.0, start=start).double()
        loss = F.mse_loss(tensor(case["x"]) @ (weight + block.update()).mT, tensor(case["target"]))
        b, a = block.B, block.A
        of_b, of_a = torch.autograd.grad(loss, (b, a))
        agrees(file, -(of_b @ a + b @ of_a), case["change_of_BA_per_unit_sgd_rate"], "first step")


@pytest.mark.parametrize("form", FORMS)
def test_milora(form):
    check_milora(golden("milora", form))


@pytest.mark.parametrize("changed", [{"largest": True}, {"scale": 2.0}])
def test_another_milora_is_noticed(changed):
    with pytest.raises(AssertionError):
        check_milora(golden("milora"), **changed)


def eva_components(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return variance_start.components(x.mT @ x, x.sum(0), len(x))


def check_eva(file: dict, most: float = 2.0) -> None:
    where = file.get("redistribution", file)
    cases = where["cases"] | file.get("vision_authors", file)["cases"]
    shares_of = file.get("vision_authors", file)["explained_variance_ratio"]
    for name, batches in (("rank2_cap4", slice(None)), ("one_batch_rho2", slice(1))):
        case = cases[name]
        inputs = {
            m: tensor(where["activations"][x])[batches].flatten(0, 1) for m, x in where["reads"].items()
        }
        found = {m: eva_components(x) for m, x in inputs.items()}
        if name == "rank2_cap4":
            for m, expected in shares_of.items():
                # The authors' incremental form of the file's widest matrix is not exact.
                if m != "proj":
                    assert torch.allclose(found[m][0][: len(expected)], tensor(expected), atol=1e-5), m
        ranks = variance_start.ranks_by_variance({m: ratios for m, (ratios, _) in found.items()}, 2, most)
        assert ranks == case["ranks"]
        for m, rows in (case.get("A") or case["A_rows"]).items():
            if rows and m != "proj":
                ours = found[m][1][: len(rows)]
                agrees(file, ours.abs(), tensor(rows).abs(), f"A of {m}, {name}")


def eva(form: str = "extract") -> dict:
    return golden("eva", form) | {"tolerance": {"atol": 2e-4}}


@pytest.mark.parametrize("form", FORMS)
def test_eva(form):
    check_eva(eva(form))


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("components", lambda square, total, count: components(square, 0 * total, count)),
        (
            "components",
            lambda square, total, count: tuple(f.flip(0) for f in components(square, total, count)),
        ),
        ("ranks_by_variance", lambda shares, rank, most: ranks_by_variance(shares, rank, 1.0)),
        (
            "ranks_by_variance",
            lambda shares, rank, most: ranks_by_variance(dict(reversed(shares.items())), rank, most),
        ),
    ],
    ids=["mean left in", "ascending", "the same for all", "ties to the last"],
)
def test_another_eva_is_noticed(monkeypatch, name, wrong):
    monkeypatch.setattr(variance_start, name, wrong)
    with pytest.raises(AssertionError):
        check_eva(eva())


def test_a_matrix_that_wins_no_rank_is_not_trained():
    plugin = variance_start.VarianceStarting(SimpleNamespace(most=2.0))
    plugin._moments = {  # of 10 inputs each
        name: (torch.diag(tensor(energies)), torch.zeros(4), 10)
        for name, energies in (("much", [6.0, 4.0, 0.0, 0.0]), ("flat", [1.0, 1.0, 1.0, 1.0]))
    }
    starts = {
        name: plugin.of(SimpleNamespace(name=name, weight=torch.zeros(3, 4)), 1, 1.0, None)
        for name in plugin._moments
    }
    assert starts["much"].a.shape == (2, 4) and starts["much"].train_a
    block = LowRankBlock(3, 4, 1, start=starts["flat"])
    F.mse_loss(nn.functional.linear(torch.randn(2, 4), block.update()), torch.ones(2, 3)).backward()
    assert not block.B.grad.any() and [name for name, _ in block.named_parameters()] == ["B"]
