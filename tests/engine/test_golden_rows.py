"""DoRA's row lengths against what its authors' program computes, and formulas beside it that must not
pass."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from builders.golden import FORMS, agrees, golden, tensor
from builders.models import tiny_clip
from cl_complora.clip.slots import open_slots
from cl_complora.config import load_scenario, load_strategy
from cl_complora.engine.constraints import Constraint
from cl_complora.engine.updates.complora import CompLoRAPlugin
from cl_complora.lowrank import AdaptedLinear, LowRankBlock, Start
from cl_complora.run.stream import run
from cl_complora.store.folder import RunDir

FREE = Constraint(select="none")


def adapted(given: dict, b: torch.Tensor) -> tuple[AdaptedLinear, LowRankBlock]:
    """The layer of the authors' toy, in two blocks of rows like those of a fused attention."""
    weight = tensor(given["W"])
    layer = nn.Linear(weight.shape[1], weight.shape[0]).double().requires_grad_(False)
    layer.weight.data, layer.bias.data = weight, tensor(given["bias"])
    host, start = AdaptedLinear(layer), Start(a=tensor(given["A"]))
    block = LowRankBlock(*weight.shape, given["r"], given["s"], start=start, rescaled=layer.weight).double()
    block.B.data = b
    host.adapters.attach("w", slice(0, weight.shape[0]), block)
    return host, block


def check_dora(file: dict) -> None:
    given, out = file["inputs"], file["outputs"]
    x, g = tensor(given["x"]), tensor(given["G"])
    for b, y, gradients in (
        (torch.zeros_like(tensor(given["B"])), out["forward_at_init_B0"], out["grad_at_init_B0"]),
        (tensor(given["B"]), out["forward"], out["grad_norm_detached"]),
    ):
        host, block = adapted(given, b)
        agrees(file, block.m, out["m_init"], "row lengths at the start")
        if b.any():
            block.m.data = tensor(given["m"])
        found = host(x)
        agrees(file, found, y, "forward")
        trained = {"A": block.A, "B": block.B, "m": block.m}
        for name, gradient in zip(
            trained, torch.autograd.grad((g * found).sum(), trained.values()), strict=True
        ):
            agrees(file, gradient, gradients[f"grad_{name}"], f"gradient of {name}")
    agrees(file, block.update(), out["delta_W"], "update")
    agrees(file, host.weight + block.update(), out["merged_W"], "merged")


@pytest.mark.parametrize("form", FORMS)
def test_dora(form):
    check_dora(golden("dora", form))


def _in_graph(self):
    b, a = self.factors()
    return self.m / torch.linalg.vector_norm(self.base + b @ a, dim=1)


def _of_the_weight(self):
    return self.m / torch.linalg.vector_norm(self.base, dim=1)


def _columns(self):
    b, a = self.factors()
    return self.m / torch.linalg.vector_norm((self.base + b @ a).detach())


def _squared(self):
    return LowRankBlock_row_scale(self) ** 2


LowRankBlock_row_scale = LowRankBlock.row_scale


@pytest.mark.parametrize("wrong", [_in_graph, _of_the_weight, _columns, _squared])
def test_another_dora_is_noticed(monkeypatch, wrong):
    monkeypatch.setattr(LowRankBlock, "row_scale", wrong)
    with pytest.raises(AssertionError):
        check_dora(golden("dora"))


def test_rows_of_fused_attention_are_rescaled_apart_and_merged_whole():
    model = tiny_clip().eval()
    untouched = {name: value.clone() for name, value in model.state_dict().items()}
    open_slots(model)
    plugin = CompLoRAPlugin(rank=2, matrices=["q", "v", "fc"], constraint=FREE, row_scale=True, dropout=0.3)
    images = torch.randn(2, 3, 32, 32)
    before = model.encode_image(images)
    for _ in range(2):
        plugin.attach(model)
        assert torch.allclose(model.encode_image(images), before, atol=1e-4)
        with torch.no_grad():
            for block in plugin.blocks.values():
                block.B.normal_(std=0.1)
                block.m.mul_(1 + 0.1 * torch.randn_like(block.m))
        effective = {key: w.detach().clone() for key, w in plugin.effective_weights().items()}
        trained = model.encode_image(images)
        delta = plugin.merge(model)
        assert not delta.factors and delta
        for key, w in plugin.effective_weights().items():
            assert torch.allclose(w, effective[key], atol=1e-5), key
        before = model.encode_image(images)
        assert torch.allclose(before, trained, atol=1e-3)
    again = tiny_clip().eval()
    again.load_state_dict(untouched)
    rebuilt = CompLoRAPlugin(rank=2, matrices=["q", "v", "fc"], constraint=FREE, row_scale=True)
    rebuilt.restore(again, plugin.deltas, [{}, {}])
    assert all(torch.equal(w, plugin.effective_weights()[k]) for k, w in rebuilt.effective_weights().items())


def test_a_row_of_zeros_stays_one_and_breaks_nothing():
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    weight[2] = 0.0
    block = LowRankBlock(4, 6, 2, 1.0, rescaled=weight)
    assert torch.equal(block.update(), torch.zeros(4, 6))
    with torch.no_grad():
        block.B.add_(1.0)
    update = block.update()
    update.square().sum().backward()
    assert bool(update.isfinite().all()) and bool((update[2] == 0).all())
    assert all(bool(p.grad.isfinite().all()) for p in (block.A, block.B, block.m))


def test_what_is_recorded_of_a_matrix_is_what_was_merged(tiny_scenario, tmp_path):
    merged = ["adapter.merge={kind: norm, norm: 0.01}", "training.steps=2", "training.batch_size=4"]
    done = run(load_scenario(str(tiny_scenario)), load_strategy("dora", merged), out=tmp_path, analysis=False)
    for place, detail in enumerate(done.results["tasks_detail"]):
        record = json.loads(RunDir(done.folder).record(place, detail["name"]).read_text())
        squares = sum(found["delta_norm"] ** 2 for found in record["geometry"].values())
        assert squares**0.5 == pytest.approx(detail["delta_norm"], rel=1e-4) == pytest.approx(0.01, rel=1e-3)
