"""Heads on frozen features against naive references and the authors' numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from builders.heads import clusters, shots_from
from cl_complora.clip.heads.head import Question
from cl_complora.clip.heads.head_forms import FORMS, from_tensors, to_tensors
from cl_complora.clip.heads.key_cache import CacheHead
from cl_complora.clip.heads.linear import AffineHead, MeanHead, PairedHead, RowHead
from cl_complora.clip.heads.mask import PARTS, MaskHead
from cl_complora.clip.heads.regression import KernelHead, RandomFeatureHead
from cl_complora.config.heads import LinearHead, LinearProbe, NearestMean
from cl_complora.engine.fitting.linear_head import LinearHeadFitting, trained_rows
from cl_complora.engine.fitting.linear_probe import LinearProbeFitting, parts
from cl_complora.engine.fitting.nearest_mean import NearestMeanFitting

GOLDEN = json.loads((Path(__file__).parent / "golden" / "text_head.json").read_text())
TAU = 10.0


def question(features, texts, names=None) -> Question:
    names = names or tuple(f"class {k}" for k in range(len(texts)))
    untouched = features.flip(1)  # what some other tower makes of the images
    return Question(features, names, texts, TAU * features @ texts.mT, torch.tensor(TAU), untouched)


def probe(features, labels, texts, shared: bool = False, names=None, validation=None, **how):
    fitting = LinearProbeFitting(LinearProbe(kind="linear-probe", **how), 0, shared)
    return fitting.fit(shots_from(features, labels, texts, names, validation), None)


# Logistic regression


@pytest.mark.parametrize("classes", [2, 3])
def test_a_probe_answers_as_scikit_learn_does(classes):
    features, labels, texts = clusters(classes)
    found = probe(features, labels, texts, c=[10.0])
    theirs = LogisticRegression(C=10.0, max_iter=1000).fit(features.numpy(), labels.numpy())
    new = clusters(classes, seed=1)[0]
    shares = found.head.logits(question(new, texts)).softmax(1)
    np.testing.assert_allclose(shares.numpy(), theirs.predict_proba(new.numpy()), atol=2e-4)
    assert found.trained == classes * (features.shape[1] + 1) and found.told == {"c": 10.0}


def test_a_probe_chooses_c_where_nothing_was_fitted():
    """Validation images that lie where a strong C errs choose a weak one, and the other way round."""
    features, labels, texts = clusters(3, spread=0.8)
    certain = probe(features, labels, texts, validation=(features, labels)).told["c"]
    wrong = probe(features, labels, texts, validation=(features, (labels + 1) % 3)).told["c"]
    assert certain == 316.0 and wrong == 0.316
    assert probe(features, labels, texts).told["c"] not in (0.316, 316.0)  # by cross-validation


def test_a_probe_of_one_shot_or_one_class():
    features, labels, texts = clusters(3, shots=1)
    assert probe(features, labels, texts).told == {"c": 10.0}
    assert probe(features, labels, texts, c=[1.0, 31.6]).told == {"c": 31.6}  # nearest on a log scale
    both = probe(torch.cat([features, features], 1), labels, texts, with_untouched=True)
    assert both.told == {"c": 3.16}  # of rows twice as long in squares, 5 would regularise as 10
    one = probe(*clusters(1, shots=4))
    assert one.head.logits(question(clusters(1)[0], texts[:1])).argmax(1).sum() == 0


def test_a_class_without_images_has_no_say_in_c_and_one_of_one_shot_keeps_the_usual():
    features, labels, texts = clusters(5, shots=8, spread=0.8)
    assert probe(features, labels, texts).told["c"] != 10.0
    none = labels > 0
    assert probe(features[none], labels[none], texts).told["c"] != 10.0
    one = torch.cat([(labels == k).nonzero()[: 8 if k else 1, 0] for k in range(5)])
    assert probe(features[one], labels[one], texts).told["c"] == 10.0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=6), st.integers(2, 6), st.integers(0, 9))
def test_parts_of_a_cross_validation(shots, most, seed):
    labels = torch.repeat_interleave(torch.arange(len(shots)), torch.tensor(shots))
    if len(labels) == 0:
        return
    found, fewest = parts(labels, most, seed), min(n for n in shots if n)
    assert len(found) == (min(most, fewest) if fewest > 1 else 0)
    for fit, held in found:
        assert torch.equal(torch.cat([fit, held]).sort().values, torch.arange(len(labels)))
        assert set(labels[held].tolist()) == set(labels[fit].tolist()) == set(labels.tolist())
    if found:
        assert sorted(torch.cat([held for _, held in found]).tolist()) == list(range(len(labels)))


@pytest.mark.parametrize("present", [(0, 2, 3), (0, 2), (2,)])
@pytest.mark.parametrize("shots", [1, 4])
def test_a_class_without_images_is_never_answered_and_the_others_as_ever(present, shots):
    features, labels, texts = clusters(4, shots=shots)
    there = torch.isin(labels, torch.tensor(present))
    places = torch.tensor([present.index(int(k)) if int(k) in present else 0 for k in labels])
    held = (features[there], labels[there])
    head = probe(*held, texts, validation=held if shots == 4 else None).head
    logits = head.logits(question(features, texts))
    assert logits.shape == (len(features), 4) and bool(torch.isfinite(logits).all())
    others = [k for k in range(4) if k not in present]
    assert float(logits.softmax(1)[:, others].sum()) == 0
    own = (held[0], places[there])
    alone = probe(*own, texts[list(present)], validation=own if shots == 4 else None).head
    wanted = alone.logits(question(features, texts[list(present)]))
    assert torch.allclose(logits[:, list(present)], wanted, atol=1e-5)


def test_a_shared_probe_is_the_probe_of_all_shots():
    features, labels, texts = clusters(4)
    first = labels < 2
    names = tuple("abcd")
    fitting = LinearProbeFitting(LinearProbe(kind="linear-probe", c=[10.0]), 0, True)
    fitting.fit(shots_from(features[first], labels[first], texts[:2], names[:2]), None)
    later = fitting.fit(shots_from(features[~first], labels[~first] - 2, texts[2:], names[2:]), None)
    whole = probe(features, labels, texts, names=names, c=[10.0])
    assert later.head.classes == names
    assert torch.allclose(later.head.weight, whole.head.weight, atol=1e-6)

    resumed = LinearProbeFitting(fitting.settings, 0, True)
    resumed.kept.meet(names[:2])
    resumed.kept.meet(names[2:])
    resumed.load(fitting.tensors())
    again = resumed.fit(shots_from(features[first], labels[first], texts[:2], names[:2]), None)
    assert again.head.classes == names and len(resumed.kept.labels) == len(labels) + int(first.sum())


# Nearest class mean


def test_the_nearest_mean_is_nearest_in_angle():
    features, labels, texts = clusters(3, spread=0.6)
    head = (
        NearestMeanFitting(NearestMean(kind="nearest-mean"), 0, False)
        .fit(shots_from(features, labels, texts), None)
        .head
    )
    means = torch.stack([features[labels == k].mean(0) for k in range(3)])
    cosines = F.cosine_similarity(features[:, None], means[None], dim=-1)
    assert torch.allclose(head.logits(question(features, texts)), TAU * cosines, atol=1e-5)


# A linear head started from text: 2SFS, stage 2


def golden_start():
    texts = {name: torch.tensor(row, dtype=torch.float64) for name, row in GOLDEN["texts"].items()}
    unit = {name: F.normalize(row, dim=-1) for name, row in texts.items()}
    images = F.normalize(torch.tensor(GOLDEN["images"], dtype=torch.float64), dim=-1)
    start = torch.stack([unit[name] for name in GOLDEN["classes"]])
    return unit, start, images, torch.tensor(GOLDEN["labels"])


def golden_rows(start, images, labels, told=None, scale=100.0):
    batches = iter([torch.arange(len(labels))] * 6)
    others = start.new_empty(0, start.shape[1])
    numbers = GOLDEN["lr"], GOLDEN["weight_decay"], 6
    return trained_rows(start, others, images, labels, scale, batches, *numbers, told)


def test_six_steps_as_the_authors_class():
    _, start, images, labels = golden_start()
    told: list[float] = []
    rows = golden_rows(start, images, labels, told)
    np.testing.assert_allclose(told, GOLDEN["losses"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(rows.numpy(), GOLDEN["weight_after"], rtol=1e-5, atol=1e-6)
    assert not np.allclose(golden_rows(start, images, labels, scale=10.0), GOLDEN["weight_after"], rtol=1e-5)


def test_known_classes_have_their_rows_and_new_ones_their_texts():
    unit, start, images, labels = golden_start()
    begun = RowHead(tuple(GOLDEN["classes"]), start)
    ask = Question(images, begun.classes, start, 100 * images @ start.mT, torch.tensor(100.0))
    np.testing.assert_allclose(begun.logits(ask), GOLDEN["logits_at_start"], rtol=1e-6)
    assert torch.allclose(begun.logits(ask), ask.text_logits, atol=1e-6)  # before training: zero-shot

    head = RowHead(begun.classes, golden_rows(start, images, labels))
    names = tuple(GOLDEN["new_classes"])
    texts = torch.stack([unit[name] for name in names])
    found = head.logits(Question(images, names, texts, 100 * images @ texts.mT, torch.tensor(100.0)))
    np.testing.assert_allclose(found, GOLDEN["new_logits"], rtol=1e-6)


def test_rows_of_earlier_classes_stay_and_are_contrasted_with():
    features, labels, texts = clusters(4)
    first, names = labels < 2, tuple("abcd")
    settings = LinearHead(kind="linear", lr=1e-2, steps_per_shot=3)
    fitting = LinearHeadFitting(settings, 0, True)
    before = fitting.fit(shots_from(features[first], labels[first], texts[:2], names[:2]), None).head
    own = features[~first], labels[~first] - 2, texts[2:], names[2:]
    rest = shots_from(*own, seen=(names, texts))
    after = fitting.fit(rest, before).head
    alone = fitting.fit(rest, None).head
    task = LinearHeadFitting(settings.model_copy(update={"classes": "task"}), 0, True)
    apart = task.fit(rest, before).head
    assert torch.equal(apart.weight[2:], alone.weight) and torch.equal(apart.weight[:2], before.weight)
    assert after.classes == names and torch.equal(after.weight[:2], before.weight)
    assert not torch.equal(after.weight[2:], alone.weight)
    # A class that comes again (domain-incremental) goes on from its row.
    again = fitting.fit(shots_from(features[first], labels[first], texts[:2], names[:2]), after).head
    assert again.classes == ("c", "d", "a", "b") and torch.equal(again.weight[:2], after.weight[2:])
    assert F.cosine_similarity(again.weight[2:], after.weight[:2]).min() > 0.9


def test_random_rows_differ_from_seed_to_seed_and_not_from_run_to_run():
    features, labels, texts = clusters(3)
    settings = LinearHead(kind="linear", start="random", steps_per_shot=1)

    def rows(seed: int):
        shots = shots_from(features, labels, texts, seed=seed)
        return LinearHeadFitting(settings, 0, False).fit(shots, None).head.weight

    assert torch.equal(rows(0), rows(0)) and not torch.equal(rows(0), rows(1))


# Known and unknown classes


@pytest.mark.parametrize("share", [1.0, 0.8])
def test_texts_say_first_whether_a_class_is_known(share):
    features, _, texts = clusters(5, spread=0.9)
    names = tuple("abcde")
    head = MeanHead(("d", "b"), share, F.normalize(torch.randn(2, 12), dim=-1), TAU)
    ask = question(features, texts, names)
    shares = head.logits(ask).softmax(1)
    own = head.scores(features).softmax(1)
    for n, text in enumerate(ask.text_logits.softmax(1)):
        expected = text.clone()
        if names[int(text.argmax())] in head.classes:
            expected *= 1 - share
            for row, name in enumerate(head.classes):
                expected[names.index(name)] += share * own[n, row]
        assert torch.allclose(shares[n], expected, atol=1e-6)
    unknown = torch.tensor([k not in (1, 3) for k in ask.text_logits.argmax(1).tolist()])
    assert torch.equal(shares.argmax(1)[unknown], ask.text_logits.argmax(1)[unknown])
    strangers = question(features, texts, tuple("uvwxy"))
    assert head.logits(strangers) is strangers.text_logits


def test_a_regression_that_decides_alone_gives_its_scores_as_shares():
    features, _, texts = clusters(3, spread=0.9)
    generator = torch.Generator().manual_seed(3)
    projection, weight = torch.randn(20, 12, generator=generator), torch.rand(20, 3, generator=generator)
    head = RandomFeatureHead(tuple("abc"), 1.0, projection, weight)
    ask = question(features, texts, tuple("abc"))
    scores = head.scores(features)
    expected = scores / scores.sum(1, keepdim=True)
    assert torch.allclose(head.logits(ask).softmax(1), expected, atol=1e-6)
    nearly = RandomFeatureHead(tuple("abc"), 1 - 1e-7, projection, weight)
    assert torch.allclose(head.logits(ask), nearly.logits(ask), atol=1e-4)


def every_form(width: int = 12) -> list:
    torch.manual_seed(0)
    weight = F.normalize(torch.randn(3, width, generator=torch.Generator().manual_seed(2)), dim=-1)
    return [
        AffineHead(tuple("abc"), 1.0, weight, torch.tensor([0.1, -0.2, 0.3])),
        PairedHead(tuple("abc"), 1.0, torch.randn(3, 2 * width), torch.tensor([0.1, -0.2, 0.3])),
        MeanHead(tuple("abc"), 1.0, weight, TAU),
        RowHead(tuple("abc"), 3 * weight),
        RandomFeatureHead(tuple("abc"), 0.8, torch.randn(7, width), torch.randn(7, 3) / 7),
        KernelHead(tuple("abc"), 0.8, 0.1, weight[[0, 1, 1]], torch.randn(3, 3) / 3),
        CacheHead(tuple("abc"), 2.0, 3.0, weight[[0, 1, 1, 2]], torch.eye(3)[[0, 1, 1, 2]]),
        MaskHead(tuple("abc"), 4.0, 1.0, *(torch.randn(len(PARTS), width, width + 1) / 9)),
    ]


def test_every_form_is_tried():
    assert {head.kind for head in every_form()} == set(FORMS)


@pytest.mark.parametrize("head", every_form(), ids=lambda head: head.kind)
class TestEveryForm:
    def test_other_orders_of_classes_give_the_same(self, head):
        features, _, texts = clusters(4)
        names = tuple("abcz")
        found = head.logits(question(features, texts, names)).softmax(1)
        order = [2, 3, 0, 1]
        moved = question(features, texts[order], tuple(names[k] for k in order))
        assert torch.allclose(head.logits(moved).softmax(1), found[:, order], atol=1e-6)

    def test_it_comes_back_from_its_tensors_to_the_bit(self, head):
        back = from_tensors(to_tensors(head))
        features, _, texts = clusters(3)
        ask = question(features, texts, tuple("abc"))
        assert type(back) is type(head) and torch.equal(back.logits(ask), head.logits(ask))

    def test_what_no_fit_leaves_is_refused(self, head):
        tensors = to_tensors(head)
        name = next(key for key in tensors if key != "about")
        wrong = [
            {key: value for key, value in tensors.items() if key != name},
            tensors | {"more": torch.zeros(1)},
            tensors | {"means": torch.zeros(len(head.classes) + 1, 12)},
            tensors | {"means": torch.full((len(head.classes), 12), torch.nan)},
            tensors | {name: tensors[name] * torch.nan},
            tensors | {name: tensors[name][:1].double()[0]},
            tensors | {"about": torch.frombuffer(bytearray(b'{"kind": "x"}'), dtype=torch.uint8)},
            tensors | {"about": torch.frombuffer(bytearray(b"\xff"), dtype=torch.uint8)},
            tensors | {"about": torch.frombuffer(bytearray(b"[" * 200_000), dtype=torch.uint8)},
        ]
        for one in wrong:
            with pytest.raises(ValueError):
                from_tensors(one)
        with pytest.raises(ValueError, match="has shape"):
            head.check(width=13)
