"""The heads of several tasks asked together, against naive references."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from builders.heads import clusters
from cl_complora.clip.heads.head import Question
from cl_complora.clip.heads.head_forms import from_tensors, to_tensors
from cl_complora.clip.heads.linear import AffineHead, MeanHead, PairedHead
from cl_complora.clip.heads.several import SeveralHeads
from cl_complora.engine.fitting.fitting import class_means

TAU, WIDTH = 10.0, 12
NAMES = tuple("abcde")


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def asked(seed: int = 0) -> Question:
    features, _, texts = clusters(5, spread=0.8, seed=seed)
    untouched = F.normalize(drawn(*features.shape, seed=5), dim=-1)
    return Question(features, NAMES, texts, TAU * features @ texts.mT, torch.tensor(TAU), untouched)


def mean_head(names: str, seed: int) -> MeanHead:
    return MeanHead(tuple(names), 1.0, F.normalize(drawn(len(names), WIDTH, seed=seed), dim=-1), TAU)


def with_means(head, seed: int, width: int = WIDTH):
    return replace(head, means=F.normalize(drawn(len(head.classes), width, seed=seed), dim=-1))


def naive(heads, question: Question) -> torch.Tensor:
    """Picture by picture and class by class, as the formula has it."""
    text, rows = question.text_logits.softmax(1), []
    for place, feature in enumerate(question.features):
        if heads[0].reads_both:
            feature = torch.cat([feature, question.untouched[place]])
        closest = [
            max(
                float(feature @ head.means[k]) / float(feature.norm())
                for k, name in enumerate(head.classes)
                if name in NAMES
            )
            for head in heads
        ]
        share = torch.softmax(TAU * torch.tensor(closest), 0)
        headed = sum(
            float(text[place, k]) for k, name in enumerate(NAMES) if any(name in h.classes for h in heads)
        )
        row = {
            name: float(text[place, k])
            for k, name in enumerate(NAMES)
            if not any(name in h.classes for h in heads)
        }
        for own, head in zip(share, heads, strict=True):
            scores = head.scores(feature[None])[0]
            inside = scores[[k for k, name in enumerate(head.classes) if name in NAMES]].softmax(0)
            for name, value in zip([one for one in head.classes if one in NAMES], inside, strict=True):
                row[name] = row.get(name, 0.0) + headed * float(own) * float(value)
        rows.append([row[name] for name in NAMES])
    return torch.tensor(rows)


@pytest.mark.parametrize(
    "parts", [("ab", "cde"), ("ab", "bc"), ("ab", "c"), ("dcb", "a", "ec"), ("abx", "cyz")]
)
def test_class_means_tell_the_tasks_apart(parts):
    heads = [with_means(mean_head(names, 1 + k), 11 + k) for k, names in enumerate(parts)]
    found = SeveralHeads(heads).logits(asked()).softmax(1)
    assert torch.allclose(found, naive(heads, asked()), atol=1e-5)
    assert torch.allclose(found.sum(1), torch.ones(len(found)))
    # A wrong sign or means of the other task say something else.
    swapped = [replace(one, means=-one.means) for one in heads]
    assert not torch.allclose(SeveralHeads(swapped).logits(asked()).softmax(1), found, atol=1e-2)


def test_means_are_of_both_towers_where_the_heads_read_both():
    def paired(names: str, seed: int) -> PairedHead:
        weight, bias = drawn(len(names), 2 * WIDTH, seed=seed), drawn(len(names), seed=seed + 1)
        return with_means(PairedHead(tuple(names), 1.0, weight, bias), seed + 2, 2 * WIDTH)

    heads = [paired("ab", 20), paired("cd", 30)]
    found = SeveralHeads(heads).logits(asked()).softmax(1)
    assert torch.allclose(found, naive(heads, asked()), atol=1e-5)
    with pytest.raises(ValueError, match="reads the untouched image tower"):
        SeveralHeads(heads).logits(replace(asked(), untouched=None))


def test_a_picture_is_taken_for_one_of_the_task_with_the_nearest_mean():
    """Where every task's pictures lie around its own means, nothing is asked of the wrong head, whatever
    the texts say."""
    features, labels, texts = clusters(5, spread=0.05)
    means = class_means(features, labels, 5)
    heads = [
        AffineHead(tuple(NAMES[k] for k in places), 1.0, 1e3 * means[places], torch.zeros(len(places)))
        for places in ([0, 1], [2, 3, 4])
    ]
    knowing = [replace(head, means=means[k]) for head, k in zip(heads, ([0, 1], [2, 3, 4]), strict=True)]
    wrong = texts.flip(0)
    ask = Question(features, NAMES, wrong, 100 * features @ wrong.mT, torch.tensor(100.0))
    assert (SeveralHeads(knowing).logits(ask).argmax(1) == labels).all()
    assert (SeveralHeads(heads).logits(ask).argmax(1) != labels).any()  # without means texts tell the task


def test_without_means_they_share_what_the_texts_give_their_task():
    one, two = mean_head("ab", 1), mean_head("bc", 2)
    ask = asked()
    text = ask.text_logits.softmax(1)
    later = text[:, [1, 2]].sum(1, keepdim=True) * two.scores(ask.features).softmax(1)
    expected = torch.stack([text[:, 0], later[:, 0], later[:, 1], text[:, 3], text[:, 4]], 1)
    for first in (one, with_means(one, 3)):  # one of a run that began before means were kept
        assert torch.allclose(SeveralHeads([first, two]).logits(ask).softmax(1), expected, atol=1e-6)
    assert torch.equal(SeveralHeads([one]).logits(ask), one.logits(ask))


def test_classes_that_no_head_knows_are_left_to_their_texts():
    heads = [with_means(mean_head("xy", 1), 2), with_means(mean_head("z", 3), 4)]
    found = SeveralHeads(heads).logits(asked()).softmax(1)
    assert torch.allclose(found, asked().text_logits.softmax(1), atol=1e-6)


def test_means_come_back_with_the_head():
    head = with_means(mean_head("abc", 1), 2)
    assert torch.equal(from_tensors(to_tensors(head)).means, head.means)
    assert from_tensors(to_tensors(mean_head("abc", 1))).means is None


def test_class_means_are_unit_means():
    features, labels, texts = clusters(3)
    means = class_means(features, labels, 4)
    for k in range(3):
        assert torch.allclose(means[k], F.normalize(features[labels == k].mean(0), dim=0), atol=1e-6)
    assert not means[3].any()
