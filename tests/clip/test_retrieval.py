"""R@k against a naive recomputation from features; ties, numbers that are none, several texts an image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.retrieval import ranks, text_features
from cl_complora.metrics import recall_at


def naive(images: np.ndarray, texts: np.ndarray, owners: list[int]) -> tuple[list[int], list[int]]:
    """Places by sorting, with what is as similar as the right answer before it."""

    def places(rows, right) -> list[int]:
        found = []
        for row, place in zip(rows, right, strict=True):
            scored = sorted(((float(score), other == place) for score, other in row), key=order)
            found.append(1 + [is_right for _, is_right in scored].index(True))
        return found

    by_image = [[(image @ text, o) for text, o in zip(texts, owners, strict=True)] for image in images]
    by_text = [[(image @ text, place) for place, image in enumerate(images)] for text in texts]
    return places(by_image, range(len(images))), places(by_text, owners)


def order(scored: tuple[float, bool]) -> tuple[float, bool]:
    return -scored[0], scored[1]


@st.composite
def features(draw):
    """Features of whole numbers, so that products are exact and ties happen; one to four texts an image."""
    counts = draw(st.lists(st.integers(1, 4), min_size=2, max_size=9))
    owners = draw(st.permutations([place for place, count in enumerate(counts) for _ in range(count)]))
    vectors = st.lists(st.integers(-2, 2), min_size=3, max_size=3)
    size = len(counts) + len(owners)
    drawn = np.array(draw(st.lists(vectors, min_size=size, max_size=size)), dtype=np.float32)
    return drawn[: len(counts)], drawn[len(counts) :], list(owners)


@settings(max_examples=150, deadline=None)
@given(features())
def test_ranks_are_those_of_sorting(drawn):
    images, texts, owners = drawn
    found = ranks(torch.from_numpy(images), torch.from_numpy(texts), owners)
    assert tuple(one.tolist() for one in found) == naive(images, texts, owners)


def test_a_best_text_counts_however_bad_the_others_are():
    images = torch.eye(2)
    texts = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.5, 0.5]])
    of_images, of_texts = ranks(images, texts, [0, 0, 1])
    assert of_images.tolist() == [1, 1] and of_texts.tolist() == [1, 2, 2]
    assert recall_at(of_texts, 1) == pytest.approx(1 / 3) and recall_at(of_texts, 5) == 1


def test_what_is_equal_or_no_number_is_never_found():
    same = torch.ones(3, 4)
    assert [one.tolist() for one in ranks(same, same, [0, 1, 2])] == [[3, 3, 3]] * 2
    broken = torch.full((3, 4), math.nan)
    assert [one.tolist() for one in ranks(broken, broken, [0, 1, 2])] == [[3, 3, 3]] * 2


def test_more_than_a_batch(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    images, texts = torch.randn(13, 5, generator=generator), torch.randn(29, 5, generator=generator)
    owners = [place % 13 for place in range(29)]
    whole = ranks(images, texts, owners)
    monkeypatch.setattr("cl_complora.clip.retrieval.QUERIES", 4)
    assert all(torch.equal(*pair) for pair in zip(whole, ranks(images, texts, owners), strict=True))


def test_text_features_are_open_clips_own(clip_model, tokenizer):
    tokens = tokenizer(["a red square", "something blue in it that is told at length", "green"])
    classifier = ClipClassifier(clip_model, tokenizer)
    classifier.batch_size = 2
    found = text_features(classifier, tokens)
    with torch.no_grad():
        own = clip_model.encode_text(tokens, normalize=True)
    assert torch.allclose(found, own, atol=1e-5)
