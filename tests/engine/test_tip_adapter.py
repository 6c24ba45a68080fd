"""Tip-Adapter and its search against the authors' numbers and naive references."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from builders.heads import clusters, shots_from
from cl_complora.clip.heads.head import Question
from cl_complora.clip.heads.key_cache import CacheHead
from cl_complora.config.heads import TipAdapter
from cl_complora.engine.fitting.cache_search import Asked, best_of, grid, right_answers
from cl_complora.engine.fitting.fitting import Shots
from cl_complora.engine.fitting.tip_adapter import ALPHA, ALPHAS, BETA, BETAS, TipAdapterFitting, parts

NUMBERS = json.loads((Path(__file__).parent / "golden" / "tip_adapter.json").read_text())
FIRST = {"alpha": ALPHA, "beta": BETA}


def unit(values) -> torch.Tensor:
    return F.normalize(torch.tensor(values, dtype=torch.float64), dim=-1)


def question(features, texts, scale: float = 10.0, names=None) -> Question:
    names = names or tuple(f"class {k}" for k in range(len(texts)))
    return Question(
        features, names, texts, scale * features @ texts.mT, torch.tensor(scale, dtype=texts.dtype)
    )


def golden_head() -> CacheHead:
    keys, labels = unit(NUMBERS["images"]), torch.tensor(NUMBERS["labels"])
    names = tuple(f"class {k}" for k in range(3))
    return CacheHead(names, NUMBERS["alpha"], NUMBERS["beta"], keys, F.one_hot(labels).double())


def test_logits_as_the_equation():
    ask = question(unit(NUMBERS["queries"]), unit(NUMBERS["texts"]), 100.0)
    np.testing.assert_allclose(golden_head().logits(ask), NUMBERS["logits"], rtol=1e-7, atol=1e-6)


def test_the_search_as_the_authors():
    queries, texts, head = unit(NUMBERS["queries"]), unit(NUMBERS["texts"]), golden_head()
    labels = torch.tensor(NUMBERS["query_labels"])
    asked = Asked(100 * queries @ texts.mT, queries @ head.keys.mT, head.values, labels)
    # Scale and steps of the golden search: β to 20 and α to 200, 20 values each.
    assert best_of([asked], grid(20, 20), grid(200, 20))[0] == pytest.approx(NUMBERS["searched"])


def test_the_grid_is_as_dense_and_as_wide_as_the_authors():
    """Their ends of β and α by data set: 7 and 3 (ImageNet, Pets), 12 and 10, 13 and 13, 30 and 30."""
    assert len(BETAS) == 200 and BETAS[-1] > 29 and min(abs(beta - BETA) for beta in BETAS) < 0.1
    assert set(grid(3, 20)) <= set(ALPHAS) and set(grid(30, 20)) <= set(ALPHAS)
    assert min(abs(alpha - ALPHA) for alpha in ALPHAS) < 0.1


def test_a_few_logits_at_a_time_are_all_of_them(monkeypatch):
    features, labels, texts = clusters(3, spread=0.9)
    asked = Asked(10 * features @ texts.mT, features @ features.mT, F.one_hot(labels).float(), labels)
    whole = right_answers(asked, BETAS[:5], ALPHAS)
    naive = [
        [
            int(
                (
                    (asked.text_logits + a * (-b * (1 - asked.cosines)).exp() @ asked.values).argmax(1)
                    == labels
                ).sum()
            )
            for a in ALPHAS
        ]
        for b in BETAS[:5]
    ]
    assert whole.tolist() == naive
    monkeypatch.setattr("cl_complora.engine.fitting.cache_search.MOST_NUMBERS", 1)
    assert torch.equal(right_answers(asked, BETAS[:5], ALPHAS), whole)


# Choosing


def fitting(shared: bool = False, **settings) -> TipAdapterFitting:
    return TipAdapterFitting(TipAdapter(kind="tip-adapter", **settings), 0, shared)


def fitted(shots: Shots | None = None, earlier=None, **settings):
    return fitting(**settings).fit(shots or shots_from(*clusters(3, spread=0.6)), earlier)


def naive_choice(features, labels, keys, key_labels, texts, leave_out: bool) -> tuple[float, float]:
    """(α, β) by one image after another; ``leave_out``: the n-th image does not see the n-th key."""
    best, found = -1, (0.0, 0.0)
    values = F.one_hot(key_labels, len(texts)).float()
    for beta in BETAS:
        rows = []
        for n, image in enumerate(features):
            similar = (-beta * (1 - keys @ image)).exp()
            if leave_out:
                similar[n] = 0
            rows.append(similar @ values)
        cached = torch.stack(rows)
        for alpha in ALPHAS:
            right = int(((10.0 * features @ texts.mT + alpha * cached).argmax(1) == labels).sum())
            if right > best:
                best, found = right, (alpha, beta)
    return found


def two_tasks(validation: int = 0) -> tuple[Shots, Shots, tuple]:
    """Two tasks of two classes each; and all their shots, texts and validation images."""
    drawn, labels, texts = clusters(4, shots=5 + validation, spread=0.6, seed=2)
    place = torch.arange(len(labels)) % (5 + validation)
    names, (own, held) = tuple("abcd"), ((drawn[part], labels[part]) for part in (place < 5, place >= 5))

    def shots(first: int, **more) -> Shots:
        parts = [
            (x[(y == first) | (y == first + 1)], y[(y == first) | (y == first + 1)] - first)
            for x, y in (own, held)
        ]
        return shots_from(*parts[0], texts[first : first + 2], names[first : first + 2], parts[1], **more)

    return shots(0), shots(2, seen=(names, texts)), (*own, texts, *held)


def test_a_shot_is_not_held_against_itself():
    """Each shot is its own nearest key: with that left in, the sharpest cache would always be right."""
    features, labels, texts = clusters(3, shots=4, spread=0.9)
    told = fitted(shots_from(features, labels, texts), views=1).told
    left_out = naive_choice(features, labels, features, labels, texts, True)
    assert (told["alpha"], told["beta"]) == left_out
    assert left_out != naive_choice(features, labels, features, labels, texts, False)


def test_a_class_of_one_shot_has_no_say_and_shots_of_one_each_keep_the_first_values():
    features, labels, texts = clusters(3, shots=4, spread=0.9)
    alone = torch.cat([torch.tensor([True]), labels[1:] > 0])  # one image of the first class
    few = features[alone], labels[alone]
    told = fitted(shots_from(*few, texts), views=1).told
    asked = few[1] > 0
    keys, cosines = F.one_hot(few[1]).float(), few[0][asked] @ few[0].mT
    cosines[torch.arange(int(asked.sum())), asked.nonzero()[:, 0]] = -torch.inf
    expected = best_of([Asked(10 * few[0][asked] @ texts.mT, cosines, keys, few[1][asked])], BETAS, ALPHAS)[0]
    assert (told["alpha"], told["beta"]) == expected
    one = shots_from(*clusters(3, shots=1))
    assert fitted(one).told == FIRST and fitted(one, train=True, epochs=2).told == FIRST | {"epoch": 2}


@pytest.mark.parametrize("validation", [0, 6])
def test_one_head_for_all_is_chosen_among_all_classes_so_far_on_images_of_all_of_them(validation):
    begin, rest, (features, labels, texts, held, own) = two_tasks(validation=validation)
    shared = fitting(True, views=1)
    before = shared.fit(begin, None)
    told = shared.fit(rest, before.head).told
    asked = (held, own) if validation else (features, labels)
    whole = naive_choice(*asked, features, labels, texts, not validation)
    assert (told["alpha"], told["beta"]) == whole
    alone = fitted(replace(rest, seen=rest.names, seen_texts=rest.texts), views=1).told
    assert (alone["alpha"], alone["beta"]) != whole


@pytest.mark.parametrize("train", [{}, {"train": True, "epochs": 2}])
@pytest.mark.parametrize("validation", [0, 6])
def test_it_goes_on_after_a_pause_to_the_bit(train, validation):
    begin, rest, _ = two_tasks(validation=validation)
    whole, resumed = fitting(True, **train), fitting(True, **train)
    before = whole.fit(begin, None).head
    resumed.kept.meet(begin.names)
    resumed.load(whole.tensors())
    one, other = whole.fit(rest, before), resumed.fit(rest, before)
    assert one.told == other.told and torch.equal(one.head.keys, other.head.keys)


def test_each_task_of_its_own_keeps_nothing():
    separate = fitting()
    separate.fit(shots_from(*clusters(3)), None)
    assert separate.tensors() == {} and len(separate.kept.labels) == 0


def test_unlearned_classes_are_answered_where_the_texts_say_so():
    """However much the keys count, what they add to learned classes is no evidence against the others."""
    features, labels, texts = clusters(4, spread=0.4)
    names, known = tuple("abcd"), labels < 2
    head = CacheHead(names[:2], 1000.0, 1.0, features[known], F.one_hot(labels[known], 2).float())
    ask = question(features, texts, names=names)
    found, text = head.logits(ask), ask.text_logits.argmax(1)
    other = text > 1
    assert torch.equal(found.argmax(1)[other], text[other]) and int(other.sum()) > 8
    assert torch.allclose(found[other].softmax(1), ask.text_logits[other].softmax(1), atol=1e-6)
    among = head.logits(question(features, texts[:2], names=names[:2]))
    assert torch.equal(found.argmax(1)[~other], among.argmax(1)[~other])
    assert torch.allclose(found[~other].softmax(1)[:, :2], among[~other].softmax(1), atol=1e-6)


# Tip-Adapter-F


def with_views(shots: Shots) -> Shots:
    """With views that differ from one another."""
    generator = torch.Generator().manual_seed(3)
    noise = 0.2 * torch.randn(40, *shots.features.shape, generator=generator)
    return replace(shots, views=lambda count: F.normalize(shots.features + noise[:count], dim=-1))


def naive_training(shots: Shots, views: int, epochs: int, alpha: float, beta: float) -> torch.Tensor:
    """The authors' loop: every image anew in every epoch, all of them in one batch."""
    seen = shots.views(views + epochs)
    adapter = torch.nn.Linear(*reversed(shots.features.shape), bias=False)
    adapter.weight = torch.nn.Parameter(F.normalize(seen[:views].mean(0), dim=-1))
    values = F.one_hot(shots.labels, len(shots.names)).float()
    optimiser = torch.optim.AdamW(adapter.parameters(), lr=1e-3, eps=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for epoch in range(epochs):
        images = seen[views + epoch]
        cache = ((-1) * (beta - beta * adapter(images))).exp() @ values
        loss = F.cross_entropy(shots.scale * images @ shots.texts.mT + alpha * cache, shots.labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return adapter.weight.detach()


def test_keys_are_trained_at_the_first_values_on_views_of_their_own():
    shots = with_views(shots_from(*clusters(3, spread=0.6)))
    found = fitted(shots, train=True, views=2, epochs=5)
    naive = naive_training(shots, 2, 5, ALPHA, BETA)
    assert torch.allclose(found.head.keys, naive, atol=1e-5) and found.told["epoch"] == 5
    assert not torch.allclose(naive_training(shots, 2, 5, 3.0, 2.0), naive, atol=1e-5)


def test_what_is_searched_after_training_counts_where_it_gets_more_right():
    features, labels, texts = clusters(3, spread=0.9)
    shots = shots_from(features, labels, texts)
    keys = fitted(shots, train=True, epochs=1, views=1, **FIRST).head.keys
    new, own, _ = clusters(3, shots=20, spread=1.2, seed=0)
    told = fitted(
        replace(shots, validation_features=new, validation_labels=own), train=True, epochs=1, views=1
    )
    asked = Asked(10 * new @ texts.mT, new @ keys.mT, F.one_hot(labels).float(), own)
    found, most = best_of([asked], BETAS, ALPHAS)
    assert most > int(right_answers(asked, [BETA], [ALPHA]))
    assert (told.told["alpha"], told.told["beta"]) == found
    # Where the first values get all right, nothing that is found gets more.
    easy = shots_from(features, labels, texts, validation=(texts, torch.arange(3)))
    assert fitted(easy, train=True, epochs=2).told == FIRST | {"epoch": 1}


def test_without_validation_images_every_part_is_asked_of_keys_that_were_trained_without_it():
    features, labels, texts = clusters(3, shots=6, spread=0.9)
    shots = shots_from(features, labels, texts)
    found = fitted(shots, train=True, epochs=3, views=1)
    folds, rounds = parts(labels, 5, shots.seed), []
    for fold in range(5):
        fit, held = folds != fold, folds == fold
        kept = shots_from(features[fit], labels[fit], texts)
        keys = fitted(kept, train=True, epochs=3, views=1, **FIRST).head.keys
        values = F.one_hot(labels[fit], 3).float()
        rounds.append(Asked(10 * features[held] @ texts.mT, features[held] @ keys.mT, values, labels[held]))
    expected, most = best_of(rounds, BETAS, ALPHAS)
    assert most > sum(int(right_answers(asked, [BETA], [ALPHA])) for asked in rounds)
    assert (found.told["alpha"], found.told["beta"]) == expected


def test_parts_are_of_every_class_alike():
    labels = torch.tensor([0] * 10 + [1] * 7 + [2])
    found = parts(labels, 5, 0)
    assert found[labels == 0].bincount().tolist() == [2] * 5
    assert sorted(found[labels == 1].bincount().tolist()) == [1, 1, 1, 2, 2]
    assert torch.equal(found, parts(labels, 5, 0)) and not torch.equal(found, parts(labels, 5, 1))


def test_training_moves_keys_and_validation_chooses_the_epoch():
    features, labels, texts = clusters(3, spread=0.6)
    given = {"alpha": 2.0, "beta": 3.0, "views": 2}
    still = fitted(**given).head
    last = fitted(train=True, epochs=5, **given)
    assert last.told == {"alpha": 2.0, "beta": 3.0, "epoch": 5}
    assert not torch.equal(last.head.keys, still.keys)
    # Validation images that every epoch answers alike keep the first.
    easy = shots_from(features, labels, texts, validation=(texts, torch.arange(3)))
    assert fitted(easy, train=True, epochs=5, lr=1e-6, **given).told["epoch"] == 1


def test_earlier_keys_stay_and_their_classes_are_told_apart():
    begin, rest, (_, labels, *_) = two_tasks()
    settings = {"alpha": 2.0, "beta": 3.0, "train": True, "epochs": 2}
    shared = fitting(True, **settings)
    before = shared.fit(begin, None).head
    after = shared.fit(rest, before).head
    assert after.classes == tuple("abcd") and torch.equal(after.keys[: len(before.keys)], before.keys)
    assert torch.equal(after.values.argmax(1), labels) and after.values.sum() == len(labels)
    apart = fitting(True, **settings, classes="task").fit(rest, before).head
    assert not torch.equal(apart.keys, after.keys)
    alone = fitting(True, **settings).fit(replace(rest, seen=rest.names, seen_texts=rest.texts), None).head
    assert torch.allclose(apart.keys[len(before.keys) :], alone.keys, atol=1e-6)


def test_shots_of_a_task_that_are_all_in_one_part():
    begin, rest, _ = two_tasks()
    one = rest.labels == 0
    few = replace(
        shots_from(rest.features[one][:1], rest.labels[one][:1], rest.texts[:1], ("c",)),
        seen=(*begin.names, "c"),
        seen_texts=torch.cat([begin.texts, rest.texts[:1]]),
    )
    shared = fitting(True, train=True, epochs=2)
    before = shared.fit(begin, None).head
    assert shared.fit(few, before).head.keys.shape[0] == len(begin.labels) + 1


def test_settings_of_training_without_it_are_refused():
    for key, value in (("lr", 1e-3), ("classes", "task")):
        with pytest.raises(ValueError, match="has no effect without train"):
            TipAdapter(kind="tip-adapter", **{key: value})
