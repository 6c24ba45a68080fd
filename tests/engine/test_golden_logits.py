"""BA-LoRA's terms against what its authors' program computes, and formulas beside them that must not pass."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from builders.golden import FORMS, agrees, golden, tensor
from builders.steps import SPACE, experience
from cl_complora.config.penalties import Consistency, Diversity, Spectrum
from cl_complora.engine.penalties import logit_terms
from cl_complora.engine.penalties.logit_terms import (
    ConsistencyPlugin,
    DiversityPlugin,
    SpectrumPlugin,
    consistency,
    diversity,
    spectrum,
)
from cl_complora.engine.updates.complora import CompLoRAPlugin


def check_ba_lora(file: dict) -> None:
    given, out = file["inputs"], file["outputs"]["nlu"]
    before = tensor(given["pre_logits"])
    terms = {
        "consistency": lambda z: logit_terms.consistency(z, before),
        "diversity": lambda z: logit_terms.diversity(z),
        "svd": lambda z: logit_terms.spectrum(z, given["k"]),
    }
    total = 0.0
    for name, term in terms.items():
        z = tensor(given["fine_logits"]).requires_grad_()
        value = term(z)
        agrees(file, value, out[name], name)
        agrees(file, torch.autograd.grad(value, z)[0], out[f"{name}_grad"], f"gradient of {name}")
        total += given["default_lambdas"][name] * value.item()
    agrees(file, tensor(total), out["weighted_sum"], "sum")
    plugins = Consistency(kind="consistency"), Diversity(kind="diversity"), Spectrum(kind="spectrum")
    assert [part.strength for part in plugins] == list(given["default_lambdas"].values())
    assert plugins[2].largest == given["k"]


@pytest.mark.parametrize("form", FORMS)
def test_ba_lora(form):
    check_ba_lora(golden("ba_lora", form))


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("consistency", lambda z, before: consistency(z, before) * z.shape[1]),
        ("consistency", lambda z, before: consistency(z.mT, before.mT)),
        ("consistency", lambda z, before: (z - before).square().mean()),
        ("diversity", lambda z: diversity(z.mT)),
        ("diversity", lambda z: diversity(z) * (len(z) - 1) / len(z)),
        ("diversity", lambda z: diversity(z) * z.shape[1] / (z.shape[1] - 1)),
        ("diversity", lambda z: -diversity(z)),
        ("spectrum", lambda z, k: -spectrum(z, k)),
        ("spectrum", lambda z, k: spectrum(z, k - 1)),
        ("spectrum", lambda z, k: spectrum(z - z.mean(0), k)),
    ],
)
def test_other_terms_are_noticed(monkeypatch, name, wrong):
    monkeypatch.setattr(logit_terms, name, wrong)
    with pytest.raises(AssertionError):
        check_ba_lora(golden("ba_lora"))


class Step:
    """What the terms read of a step."""

    def __init__(self, model, where) -> None:
        self.model, self.experience, self.spaces = model, where, [SPACE]
        part = where.parts[0].train
        self.mb_x, self.mb_y = part.pixels, part.labels
        self.mb_output = model(self.mb_x, SPACE)


def test_terms_are_of_cosines_and_the_state_before_the_task_has_no_gradient(model):
    where, adapter = experience(6), CompLoRAPlugin(rank=2, matrices=("q", "fc"), seed=0)
    before = model(where.parts[0].train.pixels, SPACE).detach()
    adapter.attach(model)
    for block in adapter.blocks.values():
        block.B.data.normal_(0, 0.1)
    step, scale = Step(model, where), model.clip.logit_scale.exp()
    z, first = step.mb_output / scale, before / scale
    for plugin, expected in (
        (ConsistencyPlugin(Consistency(kind="consistency", strength=2.0), adapter, 0), consistency(z, first)),
        (DiversityPlugin(Diversity(kind="diversity", strength=2.0), adapter, 0), diversity(z)),
        (SpectrumPlugin(Spectrum(kind="spectrum", strength=2.0, largest=2), adapter, 0), spectrum(z, 2)),
    ):
        plugin.before_training_exp(step)
        found = plugin.penalty(step)
        assert torch.allclose(found, 2 * expected, rtol=1e-4, atol=1e-7)
        parts = [p for block in adapter.blocks.values() for p in block.parameters()]
        ours, theirs = (torch.autograd.grad(loss, parts, retain_graph=True) for loss in (found, 2 * expected))
        for a, b in zip(ours, theirs, strict=True):
            assert torch.allclose(a, b, rtol=1e-3, atol=1e-7)
    # A model with a bias on its logits (SigLIP) has the same cosines.
    step.model.clip.logit_bias = torch.nn.Parameter(torch.tensor(-12.9))
    step.mb_output = step.model(step.mb_x, SPACE)
    for plugin, expected in (
        (ConsistencyPlugin(Consistency(kind="consistency", strength=2.0), adapter, 0), consistency(z, first)),
        (SpectrumPlugin(Spectrum(kind="spectrum", strength=2.0, largest=2), adapter, 0), spectrum(z, 2)),
    ):
        plugin.before_training_exp(step)
        assert torch.allclose(plugin.penalty(step), 2 * expected, rtol=1e-3, atol=1e-6)
    del step.model.clip.logit_bias
    # Without a detach its gradient would be zero where both states are the same.
    assert F.cosine_similarity(z, first).min() < 1 - 1e-6
    adapter.merge(model)


def test_a_single_image_has_no_covariance_and_few_images_have_few_singular_values():
    z = torch.randn(1, 4, requires_grad=True)
    assert diversity(z) == 0 and spectrum(z, 3) == -1
    assert torch.isfinite(torch.autograd.grad(spectrum(torch.cat([z, z]), 3), z)[0]).all()
    # What is no number is judged with the step: a decomposition would raise before.
    assert torch.isnan(spectrum(z * torch.nan, 3))
