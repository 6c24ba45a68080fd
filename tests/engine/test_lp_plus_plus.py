"""LP++ against the numbers of its authors' code, what it leaves, and how it goes from task to task."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from builders.heads import clusters, shots_from
from cl_complora.clip.heads.head import Question
from cl_complora.config.heads import LpPlusPlus
from cl_complora.engine.fitting.lp_plus_plus import LpPlusPlusFitting, begun, rates, trained

NUMBERS = json.loads((Path(__file__).parent / "golden" / "lp_plus_plus.json").read_text())
TOLERANCE = {"rtol": 1e-7, "atol": 1e-8}
NOTHING = torch.empty(0, 6, dtype=torch.float64), torch.empty(0, dtype=torch.long)


def exact(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def given() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    images, texts = (F.normalize(exact(NUMBERS[key]), dim=-1) for key in ("image", "text"))
    return images, texts, torch.tensor(NUMBERS["labels"])


def question(features, texts, names) -> Question:
    return Question(features, names, texts, 10 * features @ texts.mT, torch.tensor(10.0))


def fitting(shared: bool = False, **settings) -> LpPlusPlusFitting:
    return LpPlusPlusFitting(LpPlusPlus(kind="lp++", **settings), 0, shared)


def test_it_begins_as_the_authors():
    images, texts, labels = given()
    start = begun(images, texts, labels, exact(NUMBERS["bias_init"]))
    np.testing.assert_allclose(start.weight, NUMBERS["weight_init"], **TOLERANCE)
    np.testing.assert_allclose(start.alpha, NUMBERS["alpha_init"][0], **TOLERANCE)
    np.testing.assert_allclose(rates(images, texts), [NUMBERS["lr_w"], NUMBERS["lr_alpha"]], rtol=1e-9)


def test_twenty_five_epochs_as_the_authors():
    images, texts, labels = given()
    start = begun(images, texts, labels, exact(NUMBERS["bias_init"]))
    losses: list[float] = []
    found, epoch = trained(start, images, texts, labels, NUMBERS["epochs"], 10, NOTHING, losses)
    np.testing.assert_allclose(found.weight, NUMBERS["weight_after"], **TOLERANCE)
    np.testing.assert_allclose(found.bias, NUMBERS["bias_after"], **TOLERANCE)
    np.testing.assert_allclose(found.alpha, NUMBERS["alpha_after"][0], **TOLERANCE)
    assert losses[-1] == pytest.approx(NUMBERS["last_loss"], rel=1e-7) and epoch == NUMBERS["epochs"]
    # What is folded into one linear map answers the same.
    one_map = F.linear(images, found.folded(texts), found.bias)
    np.testing.assert_allclose(one_map, found.logits(images, texts), atol=1e-10)


def test_validation_images_choose_the_epoch_the_latest_of_equals():
    images, texts, labels = given()
    start = begun(images, texts, labels, exact(NUMBERS["bias_init"]))
    assert trained(start, images, texts, labels, 8, 10, (images, labels))[1] == 8  # always right
    # An image between two classes that is right in the first epochs alone.
    between = F.normalize(images[:1] + 0.6 * images[2:3], dim=-1)
    right = [
        bool(
            trained(start, images, texts, labels, epochs, 10, NOTHING)[0].logits(between, texts).argmax() == 1
        )
        for epochs in range(1, 9)
    ]
    kept, epoch = trained(start, images, texts, labels, 8, 10, (between, torch.tensor([1])))
    assert epoch == (8 if not any(right) else max(k + 1 for k, one in enumerate(right) if one))
    alone = trained(start, images, texts, labels, epoch, 10, NOTHING)[0]
    assert torch.equal(kept.weight, alone.weight) and torch.equal(kept.alpha, alone.alpha)


def test_it_learns_and_tells_what_it_fitted():
    features, labels, texts = clusters(3, spread=0.5)
    found = fitting(epochs=50).fit(shots_from(features, labels, texts), None)
    names = found.head.classes
    new, own, _ = clusters(3, spread=0.5, seed=0)
    assert (found.head.logits(question(new, texts, names)).argmax(1) == own).double().mean() > 0.9
    assert found.trained == 3 * 12 + 3 + 3 and found.told == {"epoch": 50}
    one = fitting(epochs=5).fit(shots_from(*clusters(1, shots=1)), None)
    assert one.head.weight.isfinite().all()


def test_the_order_of_classes_does_not_matter_but_for_the_drawn_bias():
    features, labels, texts = clusters(3)
    order = torch.tensor([2, 0, 1])
    one = begun(features, texts, labels, torch.zeros(3))
    other = begun(features, texts[order], torch.argsort(order)[labels], torch.zeros(3))
    assert torch.allclose(one.weight[order], other.weight) and torch.allclose(one.alpha, other.alpha)


def test_in_one_label_space_it_is_fitted_to_all_shots_so_far_and_goes_on_after_a_pause():
    features, labels, texts = clusters(4)
    first, names = labels < 2, tuple("abcd")
    begin = shots_from(features[first], labels[first], texts[:2], names[:2])
    rest = shots_from(features[~first], labels[~first] - 2, texts[2:], names[2:])
    whole = fitting(True, epochs=20)
    whole.fit(begin, None)
    resumed = fitting(True, epochs=20)
    resumed.kept.meet(names[:2])
    resumed.load(whole.tensors())
    one, other = whole.fit(rest, None).head, resumed.fit(rest, None).head
    assert (
        one.classes == names and torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)
    )
    joint = fitting(False, epochs=20).fit(shots_from(features, labels, texts, names), None).head
    assert torch.equal(one.weight, joint.weight)
