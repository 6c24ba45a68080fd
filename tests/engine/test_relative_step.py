"""Relative steps against naive references: how far every matrix moves, and in which direction."""

from __future__ import annotations

import pytest
import torch

from builders.clip_models import tiny_clip
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.config import load_strategy
from cl_complora.engine.build import build_adapter
from cl_complora.engine.training.optimisers import optimizer_factory

ADAPTERS = {
    "lora": "{kind: lowrank, rank: 3, alpha: 6, matrices: [q, fc]}",
    "reduced": "{kind: lowrank, rank: 3, matrices: [q, fc],"
    " subspace: {select: complement, keep: {energy: 0.3}}}",
    "projector": "{kind: lowrank, rank: 3, matrices: [q, fc],"
    " subspace: {select: complement, keep: {energy: 0.3}, form: projector}}",
    "components": "{kind: lowrank, rank: 3, matrices: [q, fc], start: {kind: components}}",
}
SHARED = "{kind: lowrank, rank: 3, matrices: [q, fc], between: {kind: directions, per: model}}"
ROWS = "{kind: lowrank, rank: 3, matrices: [q, fc], row_scale: true}"
OPTIMISERS = ["adamw", "adam", "sgd", "muon"]


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    return ClipClassifier(tiny_clip(), tokenizer)


def begun(model, tmp_path, adapter: str, optimiser: str, relative: bool = True):
    """(adapter, trained parameters, optimiser) of a fresh experience."""
    file = tmp_path / "s.yaml"
    told = f"{{name: {optimiser}, lr: 1e-2, rates: {{text: 3e-2}}, relative: {str(relative).lower()}}}"
    file.write_text(f"name: s\nadapter: {adapter}\noptimiser: {told}\n", "utf-8")
    strategy = load_strategy(str(file)).value
    adapter = build_adapter(strategy.adapter, 0)
    adapter.attach(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    return adapter, parameters, optimizer_factory(strategy.optimiser, adapter, model)(parameters)


def draw_gradients(parameters, seed: int, size: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in parameters:
        p.grad = size * torch.randn(p.shape, generator=generator)


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_step_of_factors_moves_the_product_by_a_share_of_its_matrix(model, tmp_path, kind, name):
    adapter, parameters, optimiser = begun(model, tmp_path, ADAPTERS[kind], name)
    hosts = {slot.key: slot.weight.detach().clone() for slot in adapter.slots}
    for step in range(3):
        before = {key: (b.detach().clone(), a.detach().clone()) for key, (b, a) in adapter.factors().items()}
        draw_gradients(parameters, step, 10.0**step)
        optimiser.step()
        for slot in adapter.slots:
            (b, a), (new_b, new_a) = before[slot.key], adapter.factors()[slot.key]
            by_b, by_a = ((new_b - b) @ a).detach(), (b @ (new_a - a)).detach()
            moved = float((by_b.norm() ** 2 + by_a.norm() ** 2) ** 0.5)
            rate = 1e-2 if slot.tower == "vision" else 3e-2
            assert moved == pytest.approx(rate * float(hosts[slot.key].norm()), rel=2e-3), slot.name


def test_what_matrices_share_takes_the_optimisers_own_step(model, tmp_path):
    """One α of SD-LoRA scales the updates of all matrices, each of which would have its step another length;
    the factors alone move their matrix by its share."""
    adapter, _, _ = begun(model, tmp_path, SHARED, "adamw")
    draw_gradients([p for p in model.parameters() if p.requires_grad], 9)
    with torch.no_grad():  # a first task, so that there are lengths to train again
        for block in adapter.blocks.values():
            block.B.copy_(block.B.grad)
    adapter.merge(model)
    adapter.attach(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    told = load_strategy(str(tmp_path / "s.yaml")).value.optimiser
    optimiser = optimizer_factory(told, adapter, model)(parameters)
    (alpha,) = {block.between.alpha for block in adapter.blocks.values()}
    assert len(alpha) == 2
    for step in range(3):
        old = alpha.detach().clone()
        before = {name: (b.A.detach().clone(), b.B.detach().clone()) for name, b in adapter.blocks.items()}
        draw_gradients(parameters, step)
        optimiser.step()
        if step == 0:  # of Adam, all entries by the rate
            assert (alpha.detach() - old).abs().tolist() == pytest.approx([1e-2, 1e-2], rel=1e-3)
        assert float((alpha.detach() - old).abs().max()) < 3e-2
        for slot in adapter.slots:
            block, (a, b) = adapter.blocks[slot.name], before[slot.name]
            by_b, by_a = old[-1] * (block.B - b) @ a, old[-1] * b @ (block.A - a)
            moved = float((by_b.norm() ** 2 + by_a.norm() ** 2).detach() ** 0.5)
            rate = 1e-2 if slot.tower == "vision" else 3e-2
            assert moved == pytest.approx(rate * float(slot.weight.norm()), rel=2e-3), slot.name


def test_lengths_of_rows_take_the_optimisers_own_step(model, tmp_path):
    adapter, parameters, optimiser = begun(model, tmp_path, ROWS, "adamw")
    lengths = {name: block.m.detach().clone() for name, block in adapter.blocks.items()}
    draw_gradients(parameters, 0)
    optimiser.step()
    for slot in adapter.slots:
        step = (adapter.blocks[slot.name].m.detach() - lengths[slot.name]).abs()
        rate = 1e-2 if slot.tower == "vision" else 3e-2
        assert torch.allclose(step, torch.full_like(step, rate), rtol=1e-2), slot.name


def test_both_factors_keep_the_direction_of_the_optimisers_step(model, tmp_path):
    torch.manual_seed(1)
    adapter, parameters, optimiser = begun(model, tmp_path, ADAPTERS["lora"], "adamw")
    start = [p.detach().clone() for p in parameters]
    draw_gradients(parameters, 0)
    plain = [torch.nn.Parameter(p.detach().clone()) for p in parameters]
    for p, copy in zip(parameters, plain, strict=True):
        copy.grad = p.grad.clone()
    torch.optim.AdamW(plain, lr=1e-2, weight_decay=0.0).step()
    optimiser.step()
    by_id = {
        id(p): (p.detach() - s, c.detach() - s) for p, s, c in zip(parameters, start, plain, strict=True)
    }
    for block in adapter.blocks.values():
        (ours_a, theirs_a), (ours_b, theirs_b) = by_id[id(block.A)], by_id[id(block.B)]
        factors = torch.cat([(ours_a / theirs_a).flatten(), (ours_b / theirs_b).flatten()])
        assert torch.allclose(factors, factors.median(), rtol=1e-2)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_matrix_that_is_trained_whole_moves_by_a_share_of_itself(model, tmp_path, name):
    _, parameters, optimiser = begun(model, tmp_path, "{kind: full}", name)
    names = {id(p): n for n, p in model.clip.named_parameters()}
    for step in range(2):
        before = [p.detach().clone() for p in parameters]
        draw_gradients(parameters, step)
        model.clip.token_embedding.weight.grad[5:] = 0  # tokens of no prompt
        optimiser.step()
        for p, old in zip(parameters, before, strict=True):
            rate = 1e-2 if names[id(p)].startswith("visual.") else 3e-2
            moved, length = float((p.detach() - old).norm()), float(old.norm())
            if names[id(p)] == "token_embedding.weight":
                assert torch.equal(p.detach()[5:], old[5:])
                length = float(old[:5].norm())
            if p.ndim > 1:
                assert moved == pytest.approx(rate * length, rel=2e-3), names[id(p)]


def test_vectors_and_matrices_of_zeros_take_the_optimisers_own_step(model, tmp_path):
    with torch.no_grad():
        model.clip.visual.proj.zero_()
    _, parameters, optimiser = begun(model, tmp_path, "{kind: full}", "adamw")
    draw_gradients(parameters, 0)
    before = {id(p): p.detach().clone() for p in parameters}
    optimiser.step()
    for p in (model.clip.visual.proj, model.clip.visual.ln_post.bias):
        step = (p.detach() - before[id(p)]).abs()
        assert torch.allclose(step, torch.full_like(step, 1e-2), rtol=1e-3)


def test_a_step_of_nothing_stays_nothing(model, tmp_path):
    _, parameters, optimiser = begun(model, tmp_path, ADAPTERS["lora"], "adamw")
    before = [p.detach().clone() for p in parameters]
    draw_gradients(parameters, 0, 0.0)
    optimiser.step()
    assert all(torch.equal(p.detach(), old) for p, old in zip(parameters, before, strict=True))


def test_a_wider_matrix_moves_by_the_same_share(tokenizer, tmp_path):
    """Without it, Adam's step of factors moves a matrix the less, relatively, the larger its entries are."""
    shares = []
    for scale in (1.0, 8.0):
        torch.manual_seed(0)
        model = ClipClassifier(tiny_clip(), tokenizer)
        with torch.no_grad():
            for p in model.clip.parameters():
                p.mul_(scale)
        adapter, parameters, optimiser = begun(model, tmp_path, ADAPTERS["lora"], "adamw")
        lengths = {slot.key: float(slot.weight.norm()) for slot in adapter.slots}
        draw_gradients(parameters, 0)
        for block in adapter.blocks.values():
            block.A.grad.zero_()  # as it is while B is zero
        optimiser.step()
        products = {key: float((b @ a).detach().norm()) for key, (b, a) in adapter.factors().items()}
        shares.append([products[key] / lengths[key] for key in sorted(lengths)])
    rates = [1e-2 if key.startswith("visual.") else 3e-2 for key in sorted(lengths)]
    assert shares[0] == pytest.approx(rates, rel=1e-3) and shares[1] == pytest.approx(rates, rel=1e-3)
