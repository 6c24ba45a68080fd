"""The arithmetic of measuring: batches on their way to a device, precision of the towers, what it changes."""

from __future__ import annotations

import contextlib

import pytest
import torch

from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.evaluate import answers, image_features, share_changed
from cl_complora.clip.on_device import AHEAD, _copied_ahead, batches_on
from cl_complora.data.labels import LabelSpace
from cl_complora.errors import UserError
from cl_complora.run.devices import check_precision

SPACE = LabelSpace.from_templates(["red", "green", "blue"], ["a photo of a {}."])


@pytest.fixture
def classifier(clip_model, tokenizer):
    return ClipClassifier(clip_model, tokenizer).eval()


@pytest.fixture
def pixels():
    return torch.randint(256, (10, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_normalised_as_ever(classifier, pixels):
    wanted = (pixels.float() - classifier.mean) / classifier.std
    assert torch.equal(classifier.normalise(pixels), wanted)
    assert classifier.normalise(wanted) is wanted


@pytest.mark.parametrize("size", [1, 3, 10, 64])
def test_batches_are_those_of_a_split(pixels, size):
    found = list(batches_on(torch.device("cpu"), pixels, size))
    assert all(map(torch.equal, found, pixels.split(size))) and sum(map(len, found)) == 10
    assert not list(batches_on(torch.device("cpu"), pixels[:0], size))


class Gpu:
    """Stands in for ``torch.cuda``: notes who waits for what."""

    def __init__(self) -> None:
        self.done: list[tuple] = []

    def current_stream(self, device: object) -> Stream:
        return Stream(self, "computing")

    def Stream(self, device: object) -> Stream:  # noqa: N802 - as in torch
        return Stream(self, "copying")

    def Event(self) -> Event:  # noqa: N802
        return Event(self)

    def stream(self, stream: Stream) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()


class Stream:
    def __init__(self, gpu: Gpu, name: str) -> None:
        self.gpu, self.name = gpu, name

    def wait_stream(self, other: Stream) -> None:
        self.gpu.done.append((self.name, "waits for all of", other.name))

    def wait_event(self, event: Event) -> None:
        self.gpu.done.append((self.name, "waits for", event.of))


class Event:
    def __init__(self, gpu: Gpu) -> None:
        self.gpu, self.of = gpu, None

    def record(self, stream: Stream) -> None:
        self.of = (
            stream.name,
            sum(one[1:2] == ("records",) and one[0] == stream.name for one in self.gpu.done),
        )
        self.gpu.done.append((stream.name, "records", self.of[1]))

    def synchronize(self) -> None:
        self.gpu.done.append(("host", "waits for", self.of))


def test_a_place_is_written_again_only_when_it_was_copied_and_computed_with(pixels):
    gpu = Gpu()
    batches = _copied_ahead(torch.device("cpu"), pixels, 2, cuda=gpu, pinned=False)
    assert all(torch.equal(found, wanted) for found, wanted in zip(batches, pixels.split(2), strict=True))
    done = gpu.done
    assert done[0] == ("copying", "waits for all of", "computing")
    assert done[-1] == ("computing", "waits for all of", "copying")
    for number in range(5):
        assert ("computing", "waits for", ("copying", number)) in done
        # Of the batch that had the same place, and of no other: nobody waits for the one before.
        for who, whom in (("host", "copying"), ("copying", "computing")):
            assert ((who, "waits for", (whom, number)) in done) == (number < 5 - AHEAD)
    again = done.index(("host", "waits for", ("copying", 0)))
    assert done.index(("copying", "records", AHEAD - 1)) < again < done.index(("copying", "records", AHEAD))
    assert not list(_copied_ahead(torch.device("cpu"), pixels[:0], 2, cuda=gpu, pinned=False))


def test_answers_do_not_depend_on_who_asks_before(classifier, pixels):
    classifier.batch_size = 4
    labels, shares = answers(classifier, pixels, SPACE)
    parts = [answers(classifier, part, SPACE) for part in pixels.split(4)]
    assert torch.equal(labels, torch.cat([label for label, _ in parts]))
    assert torch.equal(shares, torch.cat([share for _, share in parts]))
    known = answers(classifier, pixels, SPACE, features=image_features(classifier, pixels))
    assert torch.equal(known[0], labels) and torch.equal(known[1], shares)
    assert [len(one) for one in answers(classifier, pixels[:0], SPACE)] == [0, 0]
    with torch.no_grad():
        classifier.clip.token_embedding.weight.mul_(-1.0)  # noticed, although nothing was within a call
    assert not torch.equal(answers(classifier, pixels, SPACE)[1], shares)


def test_weights_are_looked_at_once_for_all_batches(classifier, pixels, monkeypatch):
    from cl_complora.clip import text

    looked = []
    state = text._state
    monkeypatch.setattr(text, "_state", lambda parameters: looked.append(1) or state(parameters))
    classifier.batch_size = 2
    answers(classifier, pixels, SPACE)
    assert len(looked) == 1
    with torch.no_grad():
        classifier.text.features(SPACE)
        classifier.text.features(SPACE)
    assert len(looked) == 3


def test_bf16_is_that_of_the_towers_alone_and_only_within(classifier, pixels):
    labels, shares = answers(classifier, pixels, SPACE)
    seen = []
    hook = classifier.clip.visual.register_forward_hook(lambda *words: seen.append(words[-1].dtype))
    with classifier.measured_in("bf16"):
        low_labels, low_shares = answers(classifier, pixels, SPACE)
        assert classifier.head(image_features(classifier, pixels), SPACE).dtype == torch.float32
    hook.remove()
    assert torch.bfloat16 in seen and low_shares.dtype == torch.float32
    assert not torch.equal(low_shares, shares) and torch.allclose(low_shares, shares, atol=0.05)
    again = answers(classifier, pixels, SPACE)
    assert torch.equal(again[0], labels) and torch.equal(again[1], shares)
    share = share_changed(classifier, pixels, SPACE, "bf16")
    assert share == float((low_labels != labels).double().mean())
    assert share_changed(classifier, pixels, SPACE, "fp32") == 0.0


@pytest.mark.parametrize("first", [True, False])
def test_frozen_texts_are_those_of_the_arithmetic_that_asks(clip_model, tokenizer, first):
    """Training in 16 bits and measuring in 32 each have their own, whichever asked before."""
    classifier = ClipClassifier(clip_model, tokenizer, precision=torch.bfloat16)
    classifier.requires_grad_(False)
    found = {}
    for training in (first, not first, first):
        classifier.train(training)
        found.setdefault(training, []).append(classifier.text.features(SPACE))
    anew = classifier.train(False).text.encode_space(SPACE)
    assert torch.equal(found[False][-1], anew) and not torch.equal(found[True][-1], anew)
    assert torch.equal(*found[first])


def test_tf32_is_set_for_the_towers_and_put_back(classifier, pixels):
    seen = []
    hook = classifier.clip.visual.register_forward_hook(
        lambda *words: seen.append(torch.get_float32_matmul_precision())
    )
    before = torch.get_float32_matmul_precision()
    with classifier.measured_in("tf32"):
        image_features(classifier, pixels)
        assert torch.get_float32_matmul_precision() == before
    hook.remove()
    assert seen == ["high"] and before != "high"


def test_tf32_needs_a_gpu_that_has_it(monkeypatch):
    for precision in ("fp32", "bf16"):
        check_precision(precision, "cpu")
    with pytest.raises(UserError, match="evaluation.precision: tf32 .* cpu does not have; use fp32 or bf16"):
        check_precision("tf32", "cpu")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    with pytest.raises(UserError, match="Tesla V100 is older than tf32"):
        check_precision("tf32", "cuda:0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    check_precision("tf32", "cuda:0")
