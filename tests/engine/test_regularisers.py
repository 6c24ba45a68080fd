"""EWC and L2 against references: naive per-sample gradients, and Avalanche's own plugins where those
work."""

from __future__ import annotations

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from builders.steps import SPACE, Step, experience
from cl_complora.config.factors import Directions
from cl_complora.config.penalties import Ewc, L2Init, Orthogonal
from cl_complora.engine.adapter import FullPlugin
from cl_complora.engine.constraints import Constraint
from cl_complora.engine.penalties.ewc import EwcPlugin
from cl_complora.engine.penalties.fisher import diagonal_fisher
from cl_complora.engine.regularisers import L2InitPlugin, OrthogonalPlugin
from cl_complora.engine.updates.complora import CompLoRAPlugin
from cl_complora.engine.updates.directions import DirectionsPlugin


@pytest.mark.parametrize(("chunk", "samples"), [(1, 5), (3, 5), (16, 5), (16, 2)])
def test_the_fisher_is_the_mean_square_of_per_sample_gradients(model, chunk, samples):
    where = experience()
    plugin = CompLoRAPlugin(rank=2, matrices=["q", "fc"])
    plugin.prepare(model)
    weights = {key: w.detach() for key, w in plugin.effective_weights().items()}
    found = diagonal_fisher(model, weights, where, samples, torch.Generator().manual_seed(3), chunk)

    # One backward pass per image, with the same draws.
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(5, generator=generator)[:samples]
    expected = {key: torch.zeros_like(w) for key, w in weights.items()}
    for part in order.split(chunk):
        images = model.normalise(where.parts[0].train.pixels[part])
        with torch.no_grad():
            p = torch.softmax(model(images, SPACE), 1)
        labels = torch.multinomial(p, 1, generator=generator).squeeze(1)
        for image, label in zip(images, labels, strict=True):
            model.zero_grad()
            model.text.forget()
            F.cross_entropy(model(image[None], SPACE), label[None]).backward()
            for slot in plugin.slots:
                whole = dict(model.clip.named_parameters())[slot.parameter].grad
                expected[slot.key] += whole[slot.rows].square() / samples
    assert found.keys() == expected.keys()
    for key in found:
        assert torch.allclose(found[key], expected[key], rtol=1e-3, atol=1e-6 * float(expected[key].max())), (
            key
        )


@pytest.mark.parametrize(("samples", "wanted"), [(4, 4), (9, 9), (100, 9)])
def test_ewc_looks_at_so_many_images_of_a_task_and_at_none_twice(model, monkeypatch, samples, wanted):
    """At all of them where there are fewer; other ones of every task."""
    adapter = CompLoRAPlugin(rank=2, matrices=["q"])
    adapter.prepare(model)
    plugin = EwcPlugin(Ewc(kind="ewc", strength=1.0, samples=samples), adapter, 0)
    seen: list[bytes] = []
    real = model.normalise

    def noted(images: torch.Tensor) -> torch.Tensor:
        if images.dtype == torch.uint8:  # once as they are stored, then again as floats
            seen.extend(one.numpy().tobytes() for one in images)
        return real(images)

    monkeypatch.setattr(model, "normalise", noted)
    of_tasks = []
    for position in range(3):
        where = experience(images=9)
        where.current_experience = position
        seen.clear()
        plugin.after_training_exp(Step(model, None, where))
        assert len(seen) == len(set(seen)) == wanted
        of_tasks.append(tuple(sorted(seen)))
    assert len(set(of_tasks)) == (1 if wanted == 9 else 3)


@pytest.mark.parametrize("online", [True, False])
def test_ewc_keeps_two_tensors_per_adapted_weight_however_many_tasks(model, online):
    adapter = CompLoRAPlugin(rank=2, matrices=["q", "v"])
    adapter.prepare(model)
    size = sum(slot.weight.numel() for slot in adapter.slots)
    plugin = EwcPlugin(Ewc(kind="ewc", strength=1.0, online=online, samples=3), adapter, 0)
    for _ in range(3):
        plugin.after_training_exp(Step(model, None, experience()))
    assert sum(t.numel() for t in plugin.tensors().values()) == 2 * size + 1


def test_ewc_on_a_vit_b_16_stays_under_400_megabytes_after_a_second_task():
    """q, k and v of both towers, which a third and any later one go through as the second does; Avalanche's
    own plugin keeps 13 GB after eleven (two copies of the whole model per task)."""
    with torch.device("meta"):
        clip = open_clip.create_model("ViT-B-16", device="meta")
    adapter = CompLoRAPlugin(rank=2, matrices=["q", "k", "v"])
    adapter.prepare(clip)
    for online in (True, False):
        plugin = EwcPlugin(Ewc(kind="ewc", strength=1.0, online=online, samples=1), adapter, 0)
        for _ in range(2):
            weights = adapter.effective_weights()
            for (
                key,
                w,
            ) in weights.items():  # one at a time: a Fisher of ones on the CPU, in the weight's shape
                plugin.add({key: torch.ones(w.shape)}, {key: torch.zeros(w.shape)})
        held = sum(t.nbytes for t in plugin.tensors().values())
        adapted = 12 * 3 * (768 * 768 + 512 * 512)
        assert held == 2 * 4 * adapted + 8 and held < 400e6


@given(st.integers(1, 5), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_the_sum_of_ewc_quadratics_is_kept_exactly_in_one(tasks, seed):
    generator = torch.Generator().manual_seed(seed)

    def draw() -> torch.Tensor:
        return torch.randn(3, 4, generator=generator)

    pairs = [(draw().square() * (draw() > 0), draw()) for _ in range(tasks)]  # some entries never matter
    now = {"w": draw()}
    adapter = type("Adapter", (), {"effective_weights": lambda self: now})()
    plugin = EwcPlugin(Ewc(kind="ewc", strength=2.0, online=False, samples=1), adapter, 0)
    for fisher, anchor in pairs:
        plugin.add({"w": fisher}, {"w": anchor})
    expected = sum((fisher * (now["w"] - anchor).square()).sum() for fisher, anchor in pairs)
    assert torch.allclose(plugin.penalty(None), expected, rtol=1e-4, atol=1e-5)


def test_online_ewc_decays_the_fisher_and_moves_the_anchor():
    now = {"w": torch.tensor([1.0])}
    adapter = type("Adapter", (), {"effective_weights": lambda self: now})()
    plugin = EwcPlugin(Ewc(kind="ewc", strength=2.0, online=True, decay=0.5, samples=1), adapter, 0)
    plugin.add({"w": torch.tensor([4.0])}, {"w": torch.tensor([7.0])})
    plugin.add({"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])})
    assert float(plugin.penalty(None)) == pytest.approx((0.5 * 4 + 1) * (1 - 3) ** 2)


def test_the_ewc_penalty_is_the_formula_before_and_after_a_merge(model):
    adapter = CompLoRAPlugin(rank=2, matrices=["q"])
    adapter.prepare(model)
    plugin = EwcPlugin(Ewc(kind="ewc", strength=3.0, online=True, samples=3), adapter, 0)
    plugin.after_training_exp(Step(model, None, experience()))
    adapter.attach(model)
    with torch.no_grad():
        for block in adapter.blocks.values():
            block.B.normal_()
    attached = plugin.penalty(None)
    delta = adapter.merge(model)
    merged = plugin.penalty(None)
    expected = 1.5 * sum(
        (plugin.fisher[key] * (b @ a).square()).sum() for key, (b, a) in delta.factors.items()
    )
    assert float(expected) > 0
    assert torch.allclose(attached, expected, rtol=1e-3) and torch.allclose(merged, expected, rtol=1e-3)


def test_ewc_survives_its_file_form(model):
    adapter = CompLoRAPlugin(rank=2, matrices=["q"])
    adapter.prepare(model)
    plugins = [
        EwcPlugin(Ewc(kind="ewc", strength=1.0, online=False, samples=2), adapter, 0) for _ in range(2)
    ]
    for _ in range(2):
        plugins[0].after_training_exp(Step(model, None, experience()))
    plugins[1].load(plugins[0].tensors())
    with torch.no_grad():
        adapter.slots[0].weight.add_(0.1)
    assert torch.equal(plugins[0].penalty(None), plugins[1].penalty(None))


def test_the_stock_ewc_penalty_agrees(model):
    """Avalanche's penalty has no ½ and sums over the same Fisher: λ of ours is twice theirs."""
    from avalanche.training.plugins import EWCPlugin
    from avalanche.training.utils import ParamData

    adapter = FullPlugin()
    adapter.attach(model)
    ours = EwcPlugin(Ewc(kind="ewc", strength=2.0, online=False, samples=4), adapter, 0)
    ours.after_training_exp(Step(model, None, experience()))
    stock = EWCPlugin(ewc_lambda=1.0, mode="separate")

    def data(values: dict) -> dict:
        return {f"clip.{k}": ParamData(f"clip.{k}", init_tensor=v.clone()) for k, v in values.items()}

    stock.importances[0], stock.saved_params[0] = data(ours.fisher), data(ours.centre)
    with torch.no_grad():
        for p in adapter.effective_weights().values():
            p.add_(0.01 * torch.randn_like(p))
    step = Step(model, None, experience())
    step.clock = type("Clock", (), {"train_exp_counter": 1})()
    step.device = torch.device("cpu")
    stock.before_backward(step)
    assert torch.allclose(ours.penalty(None), step.loss, rtol=1e-4) and float(step.loss.detach()) > 0


@pytest.mark.parametrize("to", ["pretrained", "previous"])
def test_l2_init_is_the_squared_distance(model, to):
    adapter = FullPlugin(["vision"])
    plugin = L2InitPlugin(L2Init(kind="l2-init", strength=2.0, to=to), adapter, 0)
    for round_ in range(2):
        adapter.attach(model)
        plugin.before_training_exp(Step(model, None, experience()))
        names = list(adapter.effective_weights())
        with torch.no_grad():
            for p in adapter.effective_weights().values():
                p.add_(0.1)
        entries = sum(p.numel() for p in adapter.effective_weights().values())
        moves = 1 + round_ if to == "pretrained" else 1
        assert float(plugin.penalty(None)) == pytest.approx(2 * entries * (0.1 * moves) ** 2, rel=1e-2)
        assert all(name.startswith("visual.") for name in names)
        adapter.merge(model)


def test_before_the_task_means_before_factors_begin_elsewhere(model):
    """SD-LoRA sets the lengths of earlier directions to where they began, which is a step of its own."""
    adapter = CompLoRAPlugin(
        rank=2,
        matrices=["q"],
        constraint=Constraint(select="none"),
        between=DirectionsPlugin(Directions(kind="directions")),
    )
    plugin = L2InitPlugin(L2Init(kind="l2-init", strength=2.0, to="previous"), adapter, 0)
    for task in range(2):
        adapter.attach(model)
        before = {slot.key: slot.weight.detach().clone() for slot in adapter.slots}
        plugin.before_training_exp(Step(model, None, experience()))
        now = adapter.effective_weights()
        moved = 2 * sum(float((now[key].detach() - w).square().sum()) for key, w in before.items())
        assert float(plugin.penalty(None)) == pytest.approx(moved)
        assert (moved > 1e-3) == (task > 0)
        with torch.no_grad():
            for block in adapter.blocks.values():
                block.B.normal_(std=0.1)
                block.between.alpha.fill_(3.0)
        adapter.merge(model)


def test_the_orthogonal_penalty_is_the_sum_of_absolute_products(model):
    adapter = CompLoRAPlugin(rank=2, matrices=["q", "fc"], constraint=Constraint(select="none"))
    plugin = OrthogonalPlugin(Orthogonal(kind="orthogonal", strength=0.5), adapter, 0)
    step = Step(model, None, experience())
    step.device = "cpu"
    for _ in range(3):
        adapter.attach(model)
        plugin.before_training_exp(step)
        found = plugin.penalty(step)
        expected = 0.0
        for earlier in adapter.deltas:
            for slot in adapter.slots:
                a = adapter.blocks[slot.name].factors()[1]
                expected += 0.5 * float((a @ earlier.factors[slot.key][1].mT).abs().sum())
        assert (found is None) == (not adapter.deltas)
        assert found is None or float(found) == pytest.approx(expected, rel=1e-4)
        adapter.merge(model)
