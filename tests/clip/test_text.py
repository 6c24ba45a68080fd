"""The text head: trimming to the longest prompt, and the cache of features."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from builders.clip_models import (
    SPACE,
    attach,
    built,
    coca,
    tiny_clip,
    tokenizer_of,
    tokens,
)
from cl_complora.clip import text as text_module
from cl_complora.clip.blocks import Computing
from cl_complora.clip.slots import open_slots
from cl_complora.clip.text import TextEncoder
from cl_complora.data.labels import LabelSpace


# Text head
def encoder(model: nn.Module) -> TextEncoder:
    return TextEncoder(model, tokenizer_of(context_length=16))


@pytest.mark.parametrize("kind", ["CLIP", "CustomTextCLIP"])
@pytest.mark.parametrize("text", [{}, {"proj_type": "none"}, {"proj_bias": True}, {"block_type": "custom"}])
def test_trimmed_text_equals_full(kind, text):
    model = built(kind, text=text)
    head = encoder(model)
    lengths = []
    head.tower.transformer.register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
    for opened in (False, True):
        if opened:
            attach([s for s in open_slots(model) if s.tower == "text"])
        for prompts in (["hi"], ["a photo of a cat", "two"], ["word " * 30, "hi"]):
            tokens = head.tokenizer(prompts)
            torch.testing.assert_close(head.encode(tokens), model.encode_text(tokens), atol=1e-5, rtol=1e-5)
    assert head._trim and lengths[2] == 3, "<start> hi <end>"  # the first two calls are the check


@pytest.mark.parametrize(
    "text", [{"pool_type": "first"}, {"pool_type": "last"}, {"no_causal_mask": True}], ids=str
)
@pytest.mark.parametrize("kind", ["CLIP", "CustomTextCLIP"])
def test_no_trimming_where_it_would_not_be_exact(kind, text):
    model = built(kind, text=text)
    head = encoder(model)
    tokens = head.tokenizer(["hi", "a photo of a cat"])
    torch.testing.assert_close(head.encode(tokens), model.encode_text(tokens), atol=0, rtol=0)
    assert head._trim is False


def test_no_trimming_of_a_mask_that_is_not_causal():
    model = tiny_clip()
    model.attn_mask.zero_()
    head = encoder(model)
    full = head.tokenizer(["word " * 30])
    tokens = torch.cat([full] * 4 + [head.tokenizer(["hi"])])  # the first prompts leave nothing to trim
    torch.testing.assert_close(head.encode(tokens), model.encode_text(tokens), atol=0, rtol=0)


def test_the_check_leaves_modes_alone():
    model = tiny_clip().train()
    model.transformer.resblocks[0].eval()
    modes = [m.training for m in model.modules()]
    encoder(model).encode(tokenizer_of(context_length=16)(["hi"]))
    assert [m.training for m in model.modules()] == modes


def test_coca_is_encoded_in_full():
    model = coca()
    head = TextEncoder(model, tokenizer_of(context_length=15))
    torch.testing.assert_close(head.encode(tokens(model)), model.encode_text(tokens(model)), atol=0, rtol=0)


def test_features_are_the_normalised_mean_of_normalised_prompts():
    model = tiny_clip()
    head = encoder(model)
    rows = [
        F.normalize(model.encode_text(head.tokenizer(list(texts))), dim=-1).mean(0) for texts in SPACE.prompts
    ]
    torch.testing.assert_close(
        head.features(SPACE), F.normalize(torch.stack(rows), dim=-1), atol=1e-5, rtol=1e-5
    )


class Counted:
    """A text head of a frozen model, and how often its tower has run."""

    def __init__(self, kind: str = "CLIP") -> None:
        self.model = built(kind).requires_grad_(False)
        self.head = encoder(self.model)
        self.slots = [s for s in open_slots(self.model) if s.tower == "text"]
        self.head.features(SPACE)  # the first encoding brings the check of trimming
        self.head.forget()
        self.runs = 0
        self.head.tower.transformer.register_forward_hook(self.count)

    def count(self, *_) -> None:
        self.runs += 1

    def check(self) -> None:
        """What the cache answers is what the tower computes."""
        with torch.no_grad():
            torch.testing.assert_close(
                self.head.features(SPACE), self.head.encode_space(SPACE), atol=0, rtol=0
            )


@pytest.mark.parametrize("kind", ["CLIP", "CustomTextCLIP"])
def test_features_are_cached(kind):
    counted = Counted(kind)
    other = LabelSpace.from_templates(["dog"], ["{}"])
    for space in (SPACE, other, SPACE, SPACE, other):
        counted.head.features(space)
    assert counted.runs == 2
    for p in counted.model.visual.parameters():
        p.add_(1.0)
    counted.head.features(SPACE)
    assert counted.runs == 2, "the image tower has no part in it"
    counted.head.forget()
    counted.head.features(SPACE)
    assert counted.runs == 3


def step(p: nn.Parameter, **options) -> None:
    p.requires_grad_(True)
    p.grad = torch.ones_like(p)
    torch.optim.AdamW([p], lr=0.1, **options).step()
    p.requires_grad_(False)
    p.grad = None


def _swap(p: nn.Parameter) -> None:
    p.data = p.data.flip(0)


CHANGES = {
    "in place": lambda p: p.mul_(1.5),
    "one entry": lambda p: p.view(-1)[5].mul_(1 + 1e-6),
    "through data": lambda p: p.data.mul_(1.5),
    "one entry through data": lambda p: p.data.view(-1)[7].mul_(1 + 1e-6),
    "other data": _swap,
    "optimiser": step,
    "fused optimiser": lambda p: step(p, fused=True),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["transformer.resblocks.1.mlp.c_fc.weight", "ln_final.weight"])
def test_a_change_of_text_weights_is_noticed(change, name):
    counted = Counted()
    counted.head.features(SPACE)
    with torch.no_grad():
        CHANGES[change](counted.model.get_parameter(name))
    counted.head.features(SPACE)
    assert counted.runs == 2
    counted.check()


def test_loading_other_weights_is_noticed():
    counted = Counted()
    counted.head.features(SPACE)
    counted.model.load_state_dict(tiny_clip(seed=1).state_dict())
    counted.check()
    assert counted.runs == 3


def test_attaching_switching_and_detaching_are_noticed():
    counted = Counted()
    plain = counted.head.features(SPACE)
    attach(counted.slots)
    with torch.no_grad():
        adapted = counted.head.features(SPACE)
        assert not torch.allclose(plain, adapted, atol=1e-3)
        for slot in counted.slots:
            slot.adapters.enabled = False
        torch.testing.assert_close(counted.head.features(SPACE), plain, atol=1e-6, rtol=0)
        for slot in counted.slots:
            slot.adapters.enabled = True
        torch.testing.assert_close(counted.head.features(SPACE), adapted, atol=0, rtol=0)
        for slot in counted.slots:
            slot.adapters.detach(slot.matrix)
        torch.testing.assert_close(counted.head.features(SPACE), plain, atol=1e-6, rtol=0)


def test_features_that_dropout_draws_are_not_kept():
    counted = Counted()
    attach(counted.slots, dropout=0.5)
    counted.model.train()
    with torch.no_grad():
        assert not torch.equal(counted.head.features(SPACE), counted.head.features(SPACE))
        counted.model.eval()
        torch.testing.assert_close(counted.head.features(SPACE), counted.head.features(SPACE), atol=0, rtol=0)


def test_features_carry_gradients_while_text_is_trained():
    counted = Counted()
    blocks = attach(counted.slots)
    counted.head.features(SPACE).sum().backward()
    assert all(p.grad is not None for block in blocks.values() for p in (block.A, block.B))
    with torch.no_grad():
        assert not counted.head.features(SPACE).requires_grad


def test_tokens_follow_the_model():
    head = encoder(tiny_clip())
    assert head.tokens(SPACE) is head.tokens(SPACE)
    head.model.to("meta")
    assert head.tokens(SPACE).device.type == "meta"


def test_cut_prompts(tokenizer):
    long = "the long eared desert hedgehog of the northern steppe"
    space = LabelSpace.from_templates(["cat", long, "x " * 14], ["{}", "a photo of a {}.", "{}"])
    assert len(tokenizer.encode("x " * 14)) == 14  # with start and end it fills the context of 16, and fits
    cut = encoder(tiny_clip()).cut_prompts(space)
    assert cut == [f"a photo of a {long}.", "a photo of a " + "x " * 14 + "."]
    assert encoder(tiny_clip()).cut_prompts(SPACE) == []


def test_the_length_of_prompts_is_read_once(monkeypatch):
    """Reading it from tokens on a GPU would wait for the device at every step."""
    read = []
    measured = text_module._longest
    monkeypatch.setattr(text_module, "_longest", lambda tokens: read.append(1) or measured(tokens))
    model = tiny_clip().requires_grad_(True)
    head = encoder(model)
    first = head.features(SPACE)
    read.clear()
    torch.testing.assert_close(head.features(SPACE), first, atol=0, rtol=0)
    assert not read
    # In chunks each is still cut to its own longest prompt.
    head.compute_as(Computing(chunk=1))
    torch.testing.assert_close(head.features(SPACE), first, atol=1e-5, rtol=0)
    assert read


class TestManyTexts:
    """Spaces of more texts than the tower reads at once, which is four here."""

    UNEVEN = SPACE.joined(LabelSpace.from_templates(["dog", "owl"], ["a {}.", "the {}.", "{}"]))

    @pytest.fixture
    def read(self, monkeypatch) -> tuple[TextEncoder, list[int]]:
        """An encoder, and the number of texts of every run of its tower."""
        head = encoder(tiny_clip())
        head.settle(head.tokens(SPACE))
        runs: list[int] = []
        head.tower.transformer.register_forward_pre_hook(lambda _, args: runs.append(len(args[0])))
        monkeypatch.setattr(text_module, "AT_ONCE", 4)
        return head, runs

    def test_they_are_read_in_parts_with_the_same_features(self, read, monkeypatch):
        head, runs = read
        with torch.no_grad():
            found = head.encode_space(SPACE)
            assert runs == [4, 2]
            monkeypatch.setattr(text_module, "AT_ONCE", 6)
            torch.testing.assert_close(head.encode_space(SPACE), found, atol=1e-6, rtol=0)
        assert runs == [4, 2, 6], "up to the limit it is one product, whose digits stay"

    def test_of_classes_with_fewer_prompts_none_is_read_twice(self, read, monkeypatch):
        head, runs = read
        with torch.no_grad():
            found = head.encode_space(self.UNEVEN)
            assert sum(runs) == 2 * 3 + 3 * 2
            runs.clear()
            monkeypatch.setattr(text_module, "AT_ONCE", 30)
            torch.testing.assert_close(head.encode_space(self.UNEVEN), found, atol=1e-6, rtol=0)
        assert runs == [5 * 6], "few are as many for every class, as they always were"

    def test_gradients_and_who_looks_on_are_given_a_whole_space(self, read):
        head, runs = read
        head.encode_space(self.UNEVEN).sum().backward()
        head.everything = True
        with torch.no_grad():
            head.encode_space(self.UNEVEN)
        assert runs == [30, 30] and len(head.up_to_the_end(self.UNEVEN)) == 30
