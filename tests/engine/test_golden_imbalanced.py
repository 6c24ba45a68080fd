"""Losses for uneven shots against what their authors' programs compute, and formulas beside them that must
not pass."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from builders.golden import agrees, golden, tensor
from cl_complora.config.losses import BalancedSoftmax, ClassWeighted, Focal, Lade, Ldam
from cl_complora.engine.training import imbalanced
from cl_complora.engine.training.training_loss import Answered, training_loss

# By name in the file: the settings that give it, and the scale of the logits.
CASES = {
    "balanced-softmax": (BalancedSoftmax(kind="balanced-softmax"), 1.0),
    "focal gamma=1": (Focal(kind="focal", gamma=1.0), 1.0),
    "focal gamma=2": (Focal(kind="focal"), 1.0),
    "cbw": (ClassWeighted(kind="class-weighted"), 1.0),
    "grw": (ClassWeighted(kind="class-weighted", power=1.2), 1.0),
    "ldam on logits": (Ldam(kind="ldam", margin=0.5), 1.0),
    "ldam on cosines": (Ldam(kind="ldam", margin=0.5), 30.0),
    "lade": (Lade(kind="lade"), 1.0),
}


def batch_of(z: torch.Tensor, labels: list[int], counts: list[float], scale: float = 1.0) -> Answered:
    y = torch.tensor(labels)
    return Answered(z, y, torch.zeros_like(y), [torch.tensor(counts).long()], torch.tensor(scale))


def check(name: str) -> None:
    file = golden("imbalanced")
    given, out = file["inputs"], file["outputs"][name]
    settings, scale = CASES[name]
    key = "cosines_for_original_ldam" if name == "ldam on cosines" else "logits"
    x = tensor(given[key]).requires_grad_()
    loss = training_loss(settings, batch_of(scale * x, given["labels"], given["counts"], scale))
    agrees(file, loss, out["loss"], name)
    told = next(value for key, value in out.items() if key.startswith("grad"))
    agrees(file, torch.autograd.grad(loss, x)[0], told, f"gradient of {name}")


@pytest.mark.parametrize("name", CASES)
def test_losses_of_the_authors(name):
    check(name)


def test_lades_regulariser_alone():
    file = golden("imbalanced")
    given, out = file["inputs"], file["outputs"]["lade regulariser"]
    z, y, n = tensor(given["logits"]), torch.tensor(given["labels"]), torch.tensor(given["counts"])
    agrees(file, imbalanced.lade_regulariser(z, y, n, 0.1), out["loss"], "lade regulariser")


@pytest.mark.parametrize(
    "name, part, wrong",
    [
        ("balanced-softmax", "balanced_softmax", lambda z, y, n: F.cross_entropy(z, y)),
        ("balanced-softmax", "balanced_softmax", lambda z, y, n: F.cross_entropy(z - n.log(), y)),
        ("balanced-softmax", "balanced_softmax", lambda z, y, n: F.cross_entropy(z + n / n.sum(1, True), y)),
        ("focal gamma=2", "focal", lambda z, y, gamma: F.cross_entropy(z, y)),
        ("ldam on cosines", "ldam", lambda z, y, n, m, s: _ldam(z, y, n, m, 1.0)),
        ("ldam on cosines", "ldam", lambda z, y, n, m, s: _ldam(z, y, n, -m, s)),
        ("ldam on cosines", "ldam", lambda z, y, n, m, s: _ldam(z, y, 1 / n, m, s)),
        ("cbw", "class_weighted", lambda z, y, n, power, beta: _weighted(z, y, 1 / n, power)),
        ("lade", "lade_regulariser", lambda z, y, n, remine: -_regulariser(z, y, n, remine)),
        ("lade", "lade_regulariser", lambda z, y, n, remine: _regulariser(z + n.log(), y, n, remine)),
    ],
)
def test_other_losses_are_noticed(monkeypatch, name, part, wrong):
    monkeypatch.setattr(imbalanced, part, wrong)
    with pytest.raises(AssertionError):
        check(name)


_ldam, _weighted, _regulariser = imbalanced.ldam, imbalanced.class_weighted, imbalanced.lade_regulariser


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_is_finite_at_clips_scale(gamma):
    file = golden("imbalanced")
    z = (tensor(file["inputs"]["logits"], torch.float32) * 60).requires_grad_()
    y = torch.tensor(file["inputs"]["labels"])
    loss = imbalanced.focal(z, y, gamma)
    assert torch.isfinite(torch.autograd.grad(loss, z)[0]).all()
    if gamma == 2.0:
        assert loss.item() == pytest.approx(file["focal_at_clip_scale"]["stable"]["loss"], rel=1e-5)
    # As sure as can be, rightly and wrongly.
    z = torch.tensor([[100.0, -100.0], [100.0, -100.0]], requires_grad=True)
    loss = imbalanced.focal(z, torch.tensor([0, 1]), gamma)
    assert torch.isfinite(loss) and torch.isfinite(torch.autograd.grad(loss, z)[0]).all()


def test_equal_shots_are_cross_entropy():
    torch.manual_seed(0)
    equal = golden("imbalanced")["equal_counts_5_each"]
    z, y = 100 * torch.randn(16, 7), torch.randint(7, (16,))
    n = torch.full((7,), 5)
    for shots in (1, 3, 5, 1000):
        assert torch.equal(imbalanced.balanced_softmax(z, y, torch.full((7,), shots)), F.cross_entropy(z, y))
    for more in ({}, {"power": 1.2}, {"beta": 0.99}):
        torch.testing.assert_close(imbalanced.class_weighted(z, y, n, **more), F.cross_entropy(z, y))
    given = golden("imbalanced")["inputs"]
    z, y = tensor(given["logits"]), torch.tensor(given["labels"])
    assert float(imbalanced.ldam(z, y, n[:4], 0.5, 1.0)) == pytest.approx(equal["ldam"], rel=1e-6)


def test_weights_by_effective_numbers():
    torch.manual_seed(0)
    z, y, n = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 0, 1]), torch.tensor([30, 5, 1])
    weights = (1 - 0.9) / (1 - 0.9**n)
    expected = F.cross_entropy(z, y, weight=weights)
    torch.testing.assert_close(imbalanced.class_weighted(z, y, n, beta=0.9), expected)


@pytest.mark.parametrize("settings", [settings for settings, _ in CASES.values()], ids=list(CASES))
def test_every_image_has_the_counts_of_its_own_label_space(settings):
    torch.manual_seed(0)
    z, y = torch.randn(6, 3), torch.tensor([0, 1, 0, 2, 0, 1])
    z[:3, 2] = torch.finfo(torch.float32).min  # filled up: these have two classes
    of = torch.tensor([0, 0, 0, 1, 1, 1])
    few, many = torch.tensor([4, 1]), torch.tensor([1, 9, 2])
    z.requires_grad_()
    both = Answered(z, y, of, [few, many], torch.tensor(10.0))
    whole = training_loss(settings, both)
    assert torch.isfinite(torch.autograd.grad(whole, z)[0]).all()
    parts = [
        training_loss(settings, Answered(z[:3, :2], y[:3], of[:3], [few], both.scale)),
        training_loss(settings, Answered(z[3:], y[3:], of[:3], [many], both.scale)),
    ]
    if settings.kind != "class-weighted":  # which divides by the weights of all
        torch.testing.assert_close(whole, (parts[0] + parts[1]) / 2)
    equal = [torch.tensor([3, 3]), torch.tensor([2, 2, 2])]
    if settings.kind == "balanced-softmax":
        found = training_loss(settings, Answered(z, y, of, equal, both.scale))
        assert torch.equal(found, F.cross_entropy(z, y))


def test_a_class_without_images_takes_no_part():
    torch.manual_seed(0)
    z, y = torch.randn(4, 3), torch.tensor([0, 2, 2, 0])
    n, there = torch.tensor([2, 0, 5]), torch.tensor([0, 2])
    among = z[:, there], y // 2, n[there]
    for loss in (
        imbalanced.balanced_softmax,
        lambda z, y, n: imbalanced.lade_regulariser(z, y, n, 0.1),
    ):
        torch.testing.assert_close(loss(z, y, n), loss(*among))
    for loss in (lambda z, y, n: imbalanced.ldam(z, y, n, 0.1, 10.0), imbalanced.class_weighted):
        assert torch.isfinite(loss(z, y, n))
