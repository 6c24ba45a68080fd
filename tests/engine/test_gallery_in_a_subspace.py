"""Methods of the gallery in the complement: what a weight does on its principal directions stays as it is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from builders.adapters import quick_adapter
from builders.steps import SPACE, experience, step_of
from cl_complora.config import load_strategy
from cl_complora.engine.build import build_adapter, build_plugins
from cl_complora.subspace import Keep, principal

COMPLEMENT = "adapter.subspace={select: complement, keep: {energy: 0.5}}"
INPUTS = f"{COMPLEMENT[:-1]}, sides: in}}"


@pytest.mark.parametrize(
    "name, subspace",
    [
        ("lora-ga", COMPLEMENT),
        ("image-lora", INPUTS),
        ("xgblora", COMPLEMENT),
        ("adalora", COMPLEMENT),
        ("prilora", COMPLEMENT),
        ("dac", COMPLEMENT),
        ("codyra", COMPLEMENT),
    ],
)
def test_principal_directions_stay(model, name, subspace):
    shipped = load_strategy(name).value.adapter
    strategy = load_strategy(name, ["adapter.rank=3", *quick_adapter(shipped), subspace]).value
    adapter, where = build_adapter(strategy.adapter, 0), experience(6)
    adapter.prepare(model)
    before = {slot.name: slot.weight.clone() for slot in adapter.slots}
    plugins = build_plugins(strategy, adapter, 0)
    loop = SimpleNamespace(model=model, experience=where)
    adapter.start.look_ahead(adapter.slots, model, where)
    adapter.between.look_ahead(adapter.slots, model, where)
    adapter.attach(model)
    for plugin in plugins:
        plugin.before_training_exp(loop)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=0.05)
    images, labels = where.parts[0].train.pixels, where.parts[0].train.labels
    model.train()
    for done in range(1, 4):
        for hook in ("before_forward", "forward", "after_forward"):
            for plugin in plugins if hook != "forward" else ():
                getattr(plugin, hook)(loop)
            if hook == "forward":
                loss = F.cross_entropy(model(images, SPACE), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        for plugin in plugins:
            plugin.after_update(step_of(4, done, optimiser))
    model.eval()
    adapter.merge(model)
    moved = 0.0
    for slot in adapter.slots:
        split = principal(before[slot.name], Keep("energy", 0.5))
        change, kept = slot.weight.detach() - before[slot.name], slice(split.k)
        moved += float(change.norm())
        assert (change @ split.v[:, kept]).abs().max() < 1e-5
        if subspace == COMPLEMENT:
            assert (split.u[:, kept].mT @ change).abs().max() < 1e-5
    assert moved > 1e-3
