"""The optimisers of a strategy file: who is moved by what, and that a saved state goes on to the bit."""

from __future__ import annotations

import math

import pytest
import torch
from prodigyopt import Prodigy

from builders.clip_models import tiny_clip
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.config import load_strategy
from cl_complora.engine.build import build_adapter, check_fits
from cl_complora.engine.checkpoint import load_optimiser_state, optimiser_state
from cl_complora.engine.training.optimisers import hidden_matrices, optimizer_factory
from cl_complora.errors import UserError

LOW_RANK = "{kind: lowrank, rank: 2, matrices: [q, fc], whole: [tokens, norms]}"
NAMES = {
    "adamw": "lr: 1e-2",
    "adam": "lr: 1e-2",
    "sgd": "lr: 1e-2",
    "muon": "lr: 1e-2, adjust: original",
    "prodigy": "lr: 1",
    "schedule-free": "lr: 1e-2",
}


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    return ClipClassifier(tiny_clip(), tokenizer)


def strategy_of(tmp_path, optimiser: str, adapter: str = LOW_RANK, more: str = ""):
    file = tmp_path / "s.yaml"
    file.write_text(f"name: s\nadapter: {adapter}\noptimiser: {{{optimiser}}}\n{more}", "utf-8")
    return load_strategy(str(file)).value


def attached(model, strategy):
    adapter = build_adapter(strategy.adapter, 0)
    adapter.attach(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    return adapter, parameters, optimizer_factory(strategy.optimiser, adapter, model)


def test_muon_moves_factors_and_the_matrices_of_blocks(model, tmp_path):
    adapter, _, _ = attached(model, strategy_of(tmp_path, "name: muon, lr: 1e-3"))
    names = {id(p): name for name, p in model.clip.named_parameters()}
    found = {names[i] for i in hidden_matrices(adapter, model)}
    trained = {name for name, p in model.clip.named_parameters() if p.requires_grad}
    assert {name.rpartition(".")[2] for name in found} == {"A", "B"}
    assert all("norm" in n or "ln_" in n or "token_embedding" in n for n in trained - found)


def test_muon_of_full_training_leaves_what_is_no_hidden_matrix_to_adamw(model, tmp_path):
    adapter, _, _ = attached(model, strategy_of(tmp_path, "name: muon, lr: 1e-3", "{kind: full}"))
    found = {n for n, p in model.clip.named_parameters() if id(p) in hidden_matrices(adapter, model)}
    assert all("resblocks" in name and "ln_" not in name and not name.endswith("bias") for name in found)
    matrices = ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    assert {name.partition("resblocks.0.")[2] for name in found} >= set(matrices)
    for name in ("token_embedding.weight", "text_projection", "visual.proj", "positional_embedding"):
        assert name in dict(model.clip.named_parameters()) and name not in found


def steps(optimiser, parameters, count: int, seed: int) -> None:
    """As the engine does them, with gradients that are drawn around one direction."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for p in parameters:
            p.grad = 0.3 + torch.randn(p.shape, generator=generator) * 0.1
        optimiser.step()


@pytest.mark.parametrize("rates", ["", "rates: {vision: 0.5, tokens: 2}, "])
@pytest.mark.parametrize("name", NAMES)
def test_a_saved_state_goes_on_with_the_same_bits(model, tmp_path, name, rates):
    strategy = strategy_of(tmp_path, f"name: {name}, {NAMES[name]}, {rates}weight_decay: 0.1")
    _, parameters, make = attached(model, strategy)
    start = [p.detach().clone() for p in parameters]
    whole = make(parameters)
    getattr(whole, "train", lambda: None)()
    steps(whole, parameters, 12, 0)
    saved = {key: value.clone() for key, value in optimiser_state(whole).items()}
    between = [p.detach().clone() for p in parameters]
    steps(whole, parameters, 3, 1)
    expected = [p.detach().clone() for p in parameters]
    assert all(not torch.equal(a, b) for a, b in zip(expected, start, strict=True))
    fresh = make(parameters)
    getattr(fresh, "train", lambda: None)()
    with torch.no_grad():
        for p, value in zip(parameters, between, strict=True):
            p.copy_(value)
    load_optimiser_state(fresh, saved)
    steps(fresh, parameters, 3, 1)
    for p, value in zip(parameters, expected, strict=True):
        assert torch.equal(p.detach(), value)


def test_every_rate_has_its_own_prodigy(model, tmp_path, capsys):
    strategy = strategy_of(tmp_path, "name: prodigy, rates: {text: 0.5}, weight_decay: 0.01")
    assert strategy.optimiser.lr == 1.0
    _, parameters, make = attached(model, strategy)
    optimiser = make(parameters)
    vision = [p for n, p in model.named_parameters() if p.requires_grad and n.startswith("clip.visual")]
    copies = [torch.nn.Parameter(p.detach().clone()) for p in vision]
    alone = Prodigy(copies, lr=1.0, weight_decay=0.01, use_bias_correction=True, safeguard_warmup=True)
    capsys.readouterr()
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        for p in parameters:
            p.grad = 0.3 + torch.randn(p.shape, generator=generator) * 0.1
        for p, copy in zip(vision, copies, strict=True):
            copy.grad = p.grad.clone()
        optimiser.step()
        alone.step()
    assert all(torch.equal(p, copy) for p, copy in zip(vision, copies, strict=True))
    assert {group["lr"] for group in optimiser.param_groups} == {1.0, 0.5}
    assert len({group["d"] for group in optimiser.param_groups}) == 2
    make(parameters)
    assert capsys.readouterr().out == ""


def test_schedule_free_ends_at_the_average(model, tmp_path):
    """z takes AdamW's steps without momentum, x is the mean of all z, and gradients are taken between
    them."""
    strategy = strategy_of(tmp_path, "name: schedule-free, lr: 1e-2")
    assert strategy.schedule.name == "constant"
    _, parameters, make = attached(model, strategy)
    optimiser = make(parameters)
    optimiser.train()
    p = parameters[0]
    x = z = p.detach().double().clone()
    v = torch.zeros_like(x)
    generator = torch.Generator().manual_seed(0)
    for t in range(1, 6):
        assert torch.allclose(p.detach().double(), 0.1 * z + 0.9 * x, atol=1e-6)
        p.grad = torch.randn(p.shape, generator=generator)
        g = p.grad.double().clone()
        v = 0.999 * v + 0.001 * g**2
        z = z - 1e-2 * g / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        x = x + (z - x) / t
        optimiser.step()
    optimiser.eval()
    assert torch.allclose(p.detach().double(), x, atol=1e-6)


BAD = [
    ("name: adamw, lr: 1, adjust: original", "", "optimiser.adjust: has no effect .* only with name: muon"),
    ("name: adamw, lr: 1, momentum: 0.9", "", "only with name: sgd or muon"),
    (
        "name: sgd, lr: 1, betas: [0.9, 0.9]",
        "",
        "only with name: adam, adamw, muon, prodigy or schedule-free",
    ),
    ("name: prodigy, relative: true", "", "relative: has no effect with name: prodigy"),
    ("name: schedule-free, lr: 1, betas: [0, 0.9]", "", "greater than 0 with name: schedule-free"),
    ("name: schedule-free, lr: 1", "schedule: {name: cosine}", "schedule.name: cosine does not go with"),
    ("name: schedule-free, lr: 1", "training: {average_every: 2}", "average_every: does not go with"),
    ("name: muon", "", "optimiser.lr: this key is missing"),
    ("name: lion, lr: 1", "", "'muon', 'prodigy'|muon, prodigy"),
]


@pytest.mark.parametrize("optimiser, more, told", BAD)
def test_what_does_not_go_together_is_refused(tmp_path, optimiser, more, told):
    with pytest.raises(UserError, match=told):
        strategy_of(tmp_path, optimiser, more=more)


def test_defaults_are_those_of_the_optimiser(tmp_path):
    assert strategy_of(tmp_path, "name: muon, lr: 1e-3").optimiser.momentum == 0.95
    assert strategy_of(tmp_path, "name: muon, lr: 1e-3, momentum: 0.5").optimiser.momentum == 0.5
    assert strategy_of(tmp_path, "name: sgd, lr: 1e-3").optimiser.momentum == 0.9
    strategy = strategy_of(tmp_path, "name: schedule-free, lr: 1e-3", more="schedule: {warmup: 0.2}")
    assert (strategy.schedule.name, strategy.schedule.warmup) == ("constant", 0.2)
    assert math.isclose(strategy_of(tmp_path, "lr: 1e-3").optimiser.betas[1], 0.999)


def test_a_rate_that_is_far_from_prodigys_usual_one_is_told(model, tmp_path):
    for lr, count in (("4e-4", 1), ("1", 0)):
        strategy = strategy_of(tmp_path, f"name: prodigy, lr: {lr}")
        notes = check_fits(strategy, build_adapter(strategy.adapter, 0), model)
        assert len(notes) == count and all("for which 1 is usual" in note for note in notes)


def test_a_rank_beyond_every_matrix_is_told(model):
    most = 48
    for name, rank, count in (("lora", most, 0), ("lora", most + 1, 1), ("nusa", most + 1, 0)):
        strategy = load_strategy(name, [f"adapter.rank={rank}"]).value
        notes = check_fits(strategy, build_adapter(strategy.adapter, 0), model)
        assert len(notes) == count and all(f"can have ({most})" in note for note in notes)
