"""Starts from gradients and inputs, and scalings by depth, on a small CLIP: what they look at, and what an
update leaves alone."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from builders.steps import OTHER, SPACE, Step, experience
from cl_complora.config.factors import GradientStart, InputsStart
from cl_complora.data.labels import LabelSpace
from cl_complora.engine.constraints import Constraint
from cl_complora.engine.updates.complora import CompLoRAPlugin
from cl_complora.engine.updates.gradients import mean_gradients
from cl_complora.engine.updates.input_directions import input_covariances, input_moments, summed_inputs
from cl_complora.engine.updates.starts.gradient_start import GradientStarting
from cl_complora.engine.updates.starts.inputs_start import InputsStarting

FREE = Constraint(select="none")


def keeplora(**settings) -> CompLoRAPlugin:
    start = GradientStarting(GradientStart(kind="gradient", **settings))
    return CompLoRAPlugin(rank=2, matrices=["q", "o"], constraint=FREE, start=start, scaling=0.5)


def test_all_images_of_tasks_that_are_trained_together_are_looked_at(model):
    """An equal share each would leave some of the larger one out."""
    plugin = CompLoRAPlugin(rank=2, matrices=["q"], towers=["vision"], constraint=FREE)
    plugin.prepare(model)
    parts = [*experience(3).parts, *experience(17).parts]
    together = type(experience(3))(parts, 0)
    for images, share in ((None, 17), (20, 9)):
        found = input_moments(plugin.slots, model, together, images)[plugin.slots[0].name]
        alone = [
            input_moments(plugin.slots, model, experience(n), n)[plugin.slots[0].name] for n in (3, share)
        ]
        assert found[2] == sum(counted for *_, counted in alone)


@pytest.mark.parametrize("padding", [False, True])
def test_what_follows_a_prompts_end_counts_only_where_it_is_asked_for(model, padding):
    """EVA's inputs of several prompts are those of each alone; with padding, more than these."""
    plugin = CompLoRAPlugin(rank=2, matrices=["q", "o", "fc", "proj"], constraint=FREE)
    plugin.prepare(model)
    names = ["red", "a very small green bird on a branch", "blue sea"]

    def of(*classes: str) -> dict:
        where = experience(3)
        where.parts[0].train_space = LabelSpace.from_templates(list(classes), ["a photo of a {}"])
        where = type(where)(where.parts, 0)
        return input_moments(plugin.slots, model, where, 3, padding=padding)

    together, alone = of(*names), [of(name) for name in names]
    for slot in plugin.slots:
        if slot.tower != "text":
            continue
        square, total, count = together[slot.name]
        assert (count == sum(found[slot.name][2] for found in alone)) == (not padding)
        squares = sum(found[slot.name][0] for found in alone)
        assert torch.allclose(square, squares, atol=1e-4 * float(squares.abs().max())) == (not padding)
        totals = sum(found[slot.name][1] for found in alone)
        assert torch.allclose(total, totals, atol=1e-4 * float(totals.abs().max())) == (not padding)


def test_the_gradient_is_that_of_the_mean_loss_whatever_the_batches(model):
    plugin = keeplora()
    plugin.prepare(model)
    where = experience(7)
    for p in model.parameters():
        p.requires_grad_(True)
    images, labels = where.parts[0].train.pixels, where.parts[0].train.labels
    F.cross_entropy(model(images, SPACE), labels).backward()
    expected = {s.name: model.clip.get_parameter(s.parameter).grad[s.rows].clone() for s in plugin.slots}
    model.zero_grad()
    model.requires_grad_(False)
    for size in (3, 64):
        found = mean_gradients(plugin.slots, model, where, size)
        assert found.keys() == expected.keys()
        for name, gradient in found.items():
            scale = float(expected[name].abs().max())
            assert torch.allclose(gradient, expected[name], atol=1e-4 * scale), name
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("settings", [{}, {"side": "input", "features": "all"}, {"values": "zero"}])
def test_keeplora_starts_at_the_weights_and_stays_off_what_is_kept(model, settings):
    plugin = keeplora(**settings, kept=0.9)
    step, images = Step(model, None, experience(9)), torch.randn(2, 3, 32, 32)
    for task in range(2):
        before = model(images, SPACE)
        plugin.before_train_dataset_adaptation(step)
        assert torch.allclose(model(images, SPACE), before, atol=1e-5)
        kept = {name: basis.clone() for name, basis in plugin.start.kept.items()}
        for slot in plugin.slots:
            block = plugin.blocks[slot.name]
            assert [name for name, _ in block.named_parameters()] == ["B"]
            assert bool(block.B.any()) == (plugin.start.settings.values == "gradient")
            with torch.no_grad():
                block.B.add_(0.1 * torch.randn_like(block.B))
        delta_of = {s.key: s.name for s in plugin.slots}
        plugin.after_training_exp(step)
        for key, (b, a) in plugin.deltas[task].factors.items():
            assert b.shape[1] == a.shape[0] == 2  # no rank is spent on what is taken off again
            assert float((a @ kept[delta_of[key]]).abs().max()) < 1e-5
        assert all(plugin.start.kept[n].shape[1] >= basis.shape[1] for n, basis in kept.items())
        for basis in plugin.start.kept.values():
            assert torch.allclose(basis.mT @ basis, torch.eye(basis.shape[1]), atol=1e-5)
    again = GradientStarting(plugin.start.settings)
    again.load(plugin.start.tensors())
    assert again.kept.keys() == plugin.start.kept.keys()


def test_energies_differ_between_the_towers(model):
    plugin = keeplora(side="input", energy={"vision": 0.9, "text": 0.3})
    plugin.before_train_dataset_adaptation(Step(model, None, experience(4)))
    for slot in plugin.slots:
        squares = torch.linalg.svdvals(slot.weight.detach().double()).square()
        energy = 0.3 if slot.tower == "text" else 0.9
        k = int((squares.cumsum(0) < energy * squares.sum()).sum())
        assert plugin.start.kept[slot.name].shape[1] == max(1, k)


def test_summed_inputs_are_those_of_whole_batches_added_up(model):
    plugin = keeplora()
    plugin.prepare(model)
    seen: dict[str, list[torch.Tensor]] = {}
    slot = next(s for s in plugin.slots if s.tower == "vision")
    handle = slot.host.register_forward_pre_hook(
        lambda module, args, kwargs: seen.setdefault("x", []).append(args[0] if args else kwargs["query"]),
        with_kwargs=True,
    )
    found = summed_inputs(plugin.slots, model, experience(7), 3)[slot.name]
    handle.remove()
    x = sum(batch.reshape(-1, batch.shape[-1]) for batch in seen["x"][-2:]).double()
    assert len(seen["x"]) == 2 and len(x) % 3 == 0
    assert torch.allclose(found, x.mT @ x, rtol=1e-6)
    # Where no batch is whole, all images are one.
    few = summed_inputs(plugin.slots, model, experience(2), 3)[slot.name]
    assert few.any()


def test_summed_inputs_of_tasks_that_are_trained_together_are_those_of_each(model):
    plugin = keeplora()
    plugin.prepare(model)
    alone = [experience(7, SPACE), experience(4, OTHER)]
    together = type(alone[0])([part for one in alone for part in one.parts], 1)
    found = summed_inputs(plugin.slots, model, together, 3)
    each = [summed_inputs(plugin.slots, model, one, 3) for one in alone]
    for slot in plugin.slots:
        assert torch.allclose(found[slot.name], each[0][slot.name] + each[1][slot.name], rtol=1e-6)
        assert each[1][slot.name].any()


def test_the_scale_grows_with_depth(model):
    plugin = CompLoRAPlugin(rank=1, matrices=["q"], constraint=FREE, scaling=2.0, depth_scale=0.2)
    plugin.attach(model)
    for tower in ("vision", "text"):
        layers = [s for s in plugin.slots if s.tower == tower]
        scales = [plugin.blocks[s.name].scaling for s in layers]
        last = len(layers) - 1
        assert scales == pytest.approx([2.0 * (0.2 + 0.8 * i / max(1, last)) for i in range(len(layers))])
        assert last > 0 and scales[-1] == 2.0


@pytest.mark.parametrize("rule, more", [("paper", True), ("code", False)])
def test_inflora_leaves_what_earlier_tasks_used_alone_by_either_rule(model, rule, more):
    settings = InputsStart(kind="inputs", rule=rule, energy=0.9)
    plugin = CompLoRAPlugin(rank=2, matrices=["k"], constraint=FREE, start=InputsStarting(settings))
    step = Step(model, None, experience(9))
    for task in range(2):
        plugin.before_train_dataset_adaptation(step)
        for slot in plugin.slots:
            if task:
                block = plugin.blocks[slot.name]
                assert float((block.A @ plugin.start.used[slot.name]).abs().max()) < 1e-6
        plugin.after_training_exp(step)
    by_energy = input_covariances(plugin.slots, model, experience(9), 256)
    for slot in plugin.slots:
        covariance, basis = by_energy[slot.name], plugin.start.used[slot.name].double()
        held = float((basis.mT @ covariance @ basis).trace() / covariance.trace())
        assert (held >= 0.9 * 0.999) or not more
