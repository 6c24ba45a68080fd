"""Of the last block only the token that is read is computed: the same result but for rounding."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import open_clip
import pytest
import torch

from builders.computing import AS_THEY_ARE, assert_same, count_every_tower_as_wide, go
from builders.models import TINY, tiny_clip
from builders.runs import deltas_of
from cl_complora.clip.blocks import gives_one_token
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.slots import open_slots
from cl_complora.engine.updates.step_inputs import StepInputs
from cl_complora.lowrank import LowRankBlock


@pytest.fixture
def wide(monkeypatch):
    return count_every_tower_as_wide(monkeypatch)


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [
        ("complora+lwf", []),
        ("lora+ewc", []),
        ("finetune", ["training.chunk=1", "training.checkpointing=true"]),
        ("lora", ["training.precision=bf16"]),
        ("inflora", []),
    ],
)
def test_only_the_token_that_is_read_is_computed(tmp_path, tiny_scenario, request, strategy, settings):
    whole = go(tiny_scenario, tmp_path / "whole", strategy, settings, AS_THEY_ARE, evaluate=True)
    tokens = request.getfixturevalue("wide")
    found = go(tiny_scenario, tmp_path / "found", strategy, settings, AS_THEY_ARE, evaluate=True)
    assert tokens.count(1) > 0.2 * len(tokens)
    assert_same(whole.folder, found.folder, 2e-3 if "training.precision=bf16" not in settings else 5e-2)
    assert found.results["accuracy"] == whole.results["accuracy"]


def test_what_is_pruned_follows_from_all_tokens(tmp_path, tiny_scenario, request):
    """PRILoRA's mean of the inputs is that over all tokens in the last block as well."""
    few = ["training.steps=4", "adapter.pruning.every=2"]
    whole = go(tiny_scenario, tmp_path / "whole", "prilora", few, AS_THEY_ARE)
    tokens = request.getfixturevalue("wide")
    found = go(tiny_scenario, tmp_path / "found", "prilora", few, AS_THEY_ARE)
    assert tokens
    ours, theirs = deltas_of(found.folder), deltas_of(whole.folder)
    factors = [(ours[file][key], value) for file, part in theirs.items() for key, value in part.items()]
    assert any((value == 0).any() for _, value in factors)
    assert all(torch.equal(one == 0, other == 0) for one, other in factors)


@pytest.mark.parametrize("layer_scale", [None, 0.1])
def test_one_token_of_a_row_is_that_of_all(wide, tokenizer, layer_scale):
    """Features and gradients of both towers, the untouched open_clip model against the opened one."""
    parts = {name: TINY[name] | {"ls_init_value": layer_scale} for name in ("vision_cfg", "text_cfg")}
    torch.manual_seed(0)
    plain = open_clip.model.CLIP(**(TINY | parts)).eval()
    model = copy.deepcopy(plain)
    open_slots(model)
    classifier = ClipClassifier(model, tokenizer)
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    texts = tokenizer(["a", "a photo of two birds", "a photo"])
    towers = (
        (images, plain.encode_image, classifier._encode),
        (texts, plain.encode_text, classifier.text.encode),
    )
    for given, theirs, ours in towers:
        wide.clear()
        wanted, found = theirs(given), ours(given)
        assert 1 in wide
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
        for one, features in ((plain, wanted), (model, found)):
            one.zero_grad()
            (features * torch.arange(features.shape[1])).sum().backward()
        gradients = {name: p.grad for name, p in plain.named_parameters()}
        for name, p in model.named_parameters():
            assert (p.grad is None) == (gradients[name] is None), name
            if p.grad is not None:
                torch.testing.assert_close(p.grad, gradients[name], atol=1e-3, rtol=1e-3)
    assert not any("forward" in vars(module) for module in model.modules())


class Looks(StepInputs, supports_distributed=False):
    """Looks at nothing, and yet every token has to be there."""

    def watched(self):
        return []

    def given(self, slot, x):
        raise AssertionError("nothing is watched")


def test_who_looks_at_the_inputs_of_a_step_is_shown_every_token(wide, tokenizer):
    model = tiny_clip()
    open_slots(model)
    classifier, images = ClipClassifier(model, tokenizer), torch.zeros(2, 3, 32, 32)
    looks, step = Looks(), SimpleNamespace(model=classifier)
    for _ in range(2):  # a step that failed does not stay open
        looks.before_forward(step)
        classifier._encode(images)
    assert wide.count(1) == 0
    looks.after_forward(step)
    classifier._encode(images)
    assert wide.count(1) == 1


def test_towers_that_read_more_are_computed_whole(wide, tokenizer):
    model = tiny_clip()
    open_slots(model)
    classifier, images = ClipClassifier(model, tokenizer), torch.zeros(2, 3, 32, 32)
    classifier._encode(images)
    assert wide.count(1) == 1
    model.visual.pool_type = "avg"
    classifier._encode(images)
    model.visual.pool_type = "tok"
    with classifier.computing_everything():
        classifier._encode(images)
        classifier.text.encode(tokenizer(["a"]))
    factors = LowRankBlock(48, 48, 2, dropout=0.5)
    last = model.visual.transformer.resblocks[-1]
    last.attn.adapters.attach("q", last.attn.rows("q"), factors.train())
    classifier._encode(images)
    assert wide.count(1) == 1
    factors.eval()
    classifier._encode(images)
    assert wide.count(1) == 2
    last.__class__ = type("Other", (type(last),), {"forward": lambda self, x, **kwargs: x})
    classifier._encode(images)
    assert wide.count(1) == 2


def test_narrow_towers_are_computed_whole(tokenizer):
    model = tiny_clip()
    open_slots(model)
    assert not gives_one_token(model.visual.transformer.resblocks[-1])
