"""Learning rates of towers and of kinds of parameters: what each names, and which wins."""

from __future__ import annotations

import pytest
import torch
import yaml

from builders.clip_models import tiny_clip
from builders.configs import STRATEGY
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.compare.sweeps import sweeps_of
from cl_complora.config import load_strategy
from cl_complora.engine.build import build_adapter
from cl_complora.engine.training.optimisers import optimizer_factory
from cl_complora.errors import UserError
from cl_complora.report.tensorboard.hparams import table_row

LOW_RANK = "{kind: lowrank, rank: 2, matrices: [q, fc]"


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    return ClipClassifier(tiny_clip(), tokenizer)


def settings(tmp_path, adapter: str, rates: str):
    file = tmp_path / "s.yaml"
    file.write_text(
        f"name: s\nadapter: {adapter}\noptimiser: {{name: adamw, lr: 1e-3, rates: {rates}}}\n", "utf-8"
    )
    return load_strategy(str(file)).value


def rates_of(model, strategy) -> dict[str, float]:
    """Parameter name → its rate in the optimiser."""
    adapter = build_adapter(strategy.adapter, 0)
    adapter.attach(model)
    make = optimizer_factory(strategy.optimiser, adapter, model)
    optimiser = make([p for p in model.parameters() if p.requires_grad])
    by_id = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    return {name: by_id[id(p)] for name, p in model.clip.named_parameters() if id(p) in by_id}


def test_a_tower_has_its_rate_and_tokens_have_theirs(model, tmp_path):
    strategy = settings(tmp_path, LOW_RANK + ", whole: [tokens]}", "{vision: 1e-4, text: 2e-3, tokens: 5e-2}")
    found = rates_of(model, strategy)
    assert len(found) > 4
    for name, rate in found.items():
        assert rate == (1e-4 if name.startswith("visual.") else 5e-2 if "token_emb" in name else 2e-3), name


def test_a_tower_that_is_not_named_keeps_lr(model, tmp_path):
    found = rates_of(model, settings(tmp_path, LOW_RANK + "}", "{text: 2e-3}"))
    assert {found[n] for n in found if n.startswith("visual.")} == {1e-3}
    assert {found[n] for n in found if not n.startswith("visual.")} == {2e-3}


def test_a_kind_wins_over_its_tower_in_full_training(model, tmp_path):
    found = rates_of(model, settings(tmp_path, "{kind: full}", "{vision: 1e-5, norms: 1e-2}"))
    assert found["visual.ln_pre.weight"] == found["ln_final.weight"] == 1e-2
    assert found["visual.class_embedding"] == 1e-5 and found["token_embedding.weight"] == 1e-3
    assert found["visual.transformer.resblocks.0.attn.in_proj_weight"] == 1e-5


BAD = [
    (LOW_RANK + ", towers: [text]}", "{vision: 1e-4}", "rates.vision: has no effect: .*the vision tower"),
    ("{kind: full, towers: [vision]}", "{text: 1e-4}", r"rates.text: .*\(see adapter.towers\)"),
    ("{kind: full, whole: [tokens]}", "{vision: 1e-4}", "of the vision tower this strategy trains nothing"),
    ("{kind: full, whole: [tokens]}", "{text: 1e-4, tokens: 1e-3}", "has a rate of its own .tokens"),
    (LOW_RANK + "}", "{tokens: 1e-4}", "does not train tokens as a whole"),
    (LOW_RANK + "}", "{visoin: 1e-4}", "did you mean 'vision'|vision"),
    (LOW_RANK + "}", "{vision: 0}", "rates.vision: must be greater than 0"),
]


@pytest.mark.parametrize("adapter, rates, told", BAD)
def test_a_rate_of_nothing_is_refused(tmp_path, adapter, rates, told):
    with pytest.raises(UserError, match=told) as refused:
        settings(tmp_path, adapter, rates)
    assert "s.yaml:3" in refused.value.messages[0]


def test_rates_of_towers_can_be_swept_and_seen(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(STRATEGY.replace("optimiser.lr: [5e-4", "optimiser.rates.vision: [5e-4"), "utf-8")
    strategy = load_strategy(str(file), ["optimiser.rates.text=1e-3"]).value
    assert strategy.sweep == {"optimiser.rates.vision": [5e-4, 1e-3]}
    common = {"optimiser.rates.vision": [1e-4, 1e-3]}
    assert sweeps_of([str(file)], [], common) == {str(file): common}
    config = {"scenario": {"name": "s", "shots": 1}, "seed": 0, "model": {"name": "m"}}
    config |= {"strategy": yaml.safe_load(yaml.safe_dump(strategy.model_dump(mode="json")))}
    assert table_row(config)["text lr"] == 1e-3 and "vision lr" not in table_row(config)


def test_a_rate_that_nothing_has_is_not_swept(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(STRATEGY, "utf-8")
    both = ["optimiser.rates={vision: 1e-4, text: 1e-3}"]
    with pytest.raises(
        UserError, match="--sweep optimiser.lr: has no effect, since optimiser.rates names all"
    ):
        sweeps_of([str(file)], both, {"optimiser.lr": [1e-4, 1e-3]})
    one = ["optimiser.rates={vision: 1e-4}"]
    assert sweeps_of([str(file)], one, {"optimiser.lr": [1e-4]}) == {str(file): {"optimiser.lr": [1e-4]}}
