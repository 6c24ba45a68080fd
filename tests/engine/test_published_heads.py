"""RAIL, RAda and LFA against the numbers of their authors' code, and where each goes wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from builders.clip_models import MODELS, batch
from builders.heads import clusters, shots_from
from cl_complora.clip.heads.head import Question
from cl_complora.clip.heads.mask import PARTS, MaskHead, masked
from cl_complora.clip.heads.regression import KernelHead, RandomFeatureHead
from cl_complora.clip.projection import image_projection
from cl_complora.config.heads import Lfa, RAda, Ridge
from cl_complora.engine.fitting import lfa
from cl_complora.engine.fitting.lfa import LfaFitting, folded, mixed, procrustes, ranking_loss, refine
from cl_complora.engine.fitting.rada import RAdaFitting, loss_of, rates, started
from cl_complora.engine.fitting.ridge import RidgeFitting, ridge


def golden(name: str) -> dict:
    return json.loads((Path(__file__).parent / "golden" / f"{name}.json").read_text())


def exact(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def unit(values) -> torch.Tensor:
    return F.normalize(exact(values), dim=-1)


def question(features, texts, scale: float = 10.0, names=None) -> Question:
    names = names or tuple(f"class {k}" for k in range(len(texts)))
    return Question(
        features, names, texts, scale * features @ texts.mT, torch.tensor(scale, dtype=texts.dtype)
    )


class TestRail:
    numbers = golden("rail")

    def shots(self, upto: int) -> tuple[torch.Tensor, torch.Tensor]:
        tasks = self.numbers["tasks"][:upto]
        # Labels are those of each task.
        own = [torch.tensor(task["labels"]) for task in tasks]
        before = np.cumsum([0, *(int(labels.max()) + 1 for labels in own)]).tolist()
        labels = torch.cat([labels + first for labels, first in zip(own, before, strict=False)])
        return torch.cat([exact(task["features"]) for task in tasks]), labels

    @pytest.mark.parametrize("upto", [1, 2, 3])
    def test_the_regression_to_all_shots_is_the_authors_recursion(self, upto):
        features, labels = self.shots(upto)
        hidden = torch.relu(features @ exact(self.numbers["projection"]).mT)
        found = ridge(hidden, F.one_hot(labels), self.numbers["regularisation"])
        theirs = np.array(self.numbers["weights"][upto - 1])
        np.testing.assert_allclose(found, theirs, rtol=2e-3, atol=2e-3)
        other = ridge(hidden, F.one_hot(labels), 10 * self.numbers["regularisation"])
        assert not np.allclose(other, theirs, rtol=2e-3, atol=2e-3)

    @pytest.mark.parametrize("count", [5, 40])
    def test_both_systems_have_one_solution(self, count):
        hidden = torch.randn(count, 20, dtype=torch.float64)
        labels = torch.arange(count) % 3
        naive = (
            torch.linalg.inv(hidden.T @ hidden + 0.5 * torch.eye(20)) @ hidden.T @ F.one_hot(labels).double()
        )
        assert torch.allclose(ridge(hidden, F.one_hot(labels), 0.5), naive, atol=1e-8)

    def test_the_kernel_as_the_authors(self):
        features, labels = self.shots(3)
        fitting = RidgeFitting(Ridge(kind="ridge", form="dual"), 0, False)
        names = tuple(map(str, range(int(labels.max()) + 1)))
        head = fitting.fit_to(names, features, labels, None).head
        assert isinstance(head, KernelHead) and (head.gamma, head.share) == (0.1, 0.8)
        head = KernelHead(names, 0.8, 0.1, features, head.weight.double())
        found = head.scores(exact(self.numbers["new"]))
        np.testing.assert_allclose(found, self.numbers["dual"], rtol=2e-3, atol=2e-3)

    def test_it_forgets_nothing_and_keeps_its_projection(self):
        features, labels, texts = clusters(4)
        names, first = tuple("abcd"), labels < 2
        fitting = RidgeFitting(Ridge(kind="ridge", hidden=30), 0, True)
        before = fitting.fit(shots_from(features[first], labels[first], texts[:2], names[:2]), None).head
        rest = shots_from(features[~first], labels[~first] - 2, texts[2:], names[2:])
        after = fitting.fit(rest, before).head
        whole = (
            RidgeFitting(fitting.settings, 0, False)
            .fit(shots_from(features, labels, texts, names), None)
            .head
        )
        assert isinstance(after, RandomFeatureHead) and torch.equal(after.projection, before.projection)
        assert torch.allclose(after.weight, whole.weight, atol=1e-6)
        assert before.projection.abs().max() <= 12**-0.5 < 1.05 * before.projection.abs().max()

    def test_settings_of_the_other_form_are_refused(self):
        for form, idle in (("primal", "gamma"), ("dual", "hidden")):
            with pytest.raises(ValueError, match="has no effect with form"):
                Ridge(kind="ridge", form=form, **{idle: 1})


class TestRAda:
    numbers = golden("rada")

    @pytest.mark.parametrize("case", numbers["cases"], ids=lambda case: case["name"])
    def test_logits_loss_and_gradients_as_the_authors(self, case):
        weights = {name: exact(value).requires_grad_() for name, value in self.numbers["weights"].items()}
        images, texts = unit(self.numbers["images"]), unit(case["texts"])
        scale, heads = exact(case["log_scale"]).exp(), self.numbers["heads"]
        mask, logits = masked(weights, images, texts, scale, heads, case["temperature"])
        np.testing.assert_allclose(logits.detach(), case["logits"], rtol=1e-8, atol=1e-9)
        loss = loss_of(mask, logits, torch.tensor(case["labels"]), case["penalty"])
        assert float(loss.detach()) == pytest.approx(case["loss"], rel=1e-9)
        loss.backward()
        for name, norm in case["gradient_norms"].items():
            assert float(weights[name].grad.norm()) == pytest.approx(norm, rel=1e-8, abs=1e-12)

    def head(self, scale: float = 1.0) -> MaskHead:
        weights = {name: scale * exact(value) for name, value in self.numbers["weights"].items()}
        return MaskHead(tuple("abcd"), 8.0, 1.0, **weights)

    def test_chunks_of_images_change_nothing(self, monkeypatch):
        images, texts = unit(self.numbers["images"]), unit(self.numbers["cases"][0]["texts"])
        ask = question(images, texts, names=tuple("abcd"))
        whole = self.head().logits(ask)
        monkeypatch.setattr("cl_complora.clip.heads.mask.MOST_BYTES", 1)
        assert torch.allclose(self.head().logits(ask), whole, atol=1e-12)

    def test_other_orders_of_classes_give_the_same_and_fewer_others(self):
        images, texts = unit(self.numbers["images"]), unit(self.numbers["cases"][0]["texts"])
        found = self.head().logits(question(images, texts, names=tuple("abcd")))
        order = [2, 0, 3, 1]
        moved = self.head().logits(question(images, texts[order], names=tuple("cadb")))
        assert torch.allclose(moved, found[:, order], atol=1e-10)
        fewer = self.head().logits(question(images, texts[:2], names=tuple("ab")))
        assert not torch.allclose(fewer, found[:, :2], atol=1e-3)

    def test_it_begins_as_zero_shot_and_moves_its_last_projection_first(self):
        features, labels, texts = clusters(3, width=16)
        begun = MaskHead(tuple("abc"), 8.0, 1.0, **started(16, 0))
        ask = question(features, texts, names=tuple("abc"))
        assert torch.allclose(begun.logits(ask), ask.text_logits, atol=1e-6)
        weights = {name: value.clone().requires_grad_() for name, value in started(16, 0).items()}
        mask, logits = masked(weights, features, texts, 10.0, 8, 1.0)
        loss_of(mask, logits, labels, 1.0).backward()
        assert [name for name in PARTS if weights[name].grad.abs().sum() > 0] == ["out"]

    def test_it_learns_and_one_class_works(self):
        features, labels, texts = clusters(3, width=16, spread=0.5)
        settings = RAda(kind="rada", lr=1e-2, epochs=6)
        shots = shots_from(features, labels, texts, tuple("abc"))
        head = RAdaFitting(settings, 0, False).fit(shots, None).head
        ask = question(features, texts, names=tuple("abc"))
        before, after = (F.cross_entropy(found, labels) for found in (ask.text_logits, head.logits(ask)))
        assert after < before
        one = RAdaFitting(settings, 0, False).fit(shots_from(*clusters(1, width=16)), None)
        assert one.trained == 6 * (16**2 + 16)

    def test_rates_are_those_of_the_authors_scheduler(self):
        """A constant first epoch, and a cosine over all epochs whose first step comes after the second."""
        parameter = torch.nn.Parameter(torch.zeros(1))
        optimiser = torch.optim.SGD([parameter], lr=1e-2)
        cosine, wanted = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 5), [1e-5]
        for _ in range(4):
            wanted += cosine.get_last_lr()
            optimiser.step()
            cosine.step()
        assert list(rates(1e-2, 5)) == pytest.approx(wanted)
        assert list(rates(1e-2, 1)) == [1e-2] and list(rates(1e-6, 2))[0] == 1e-6


class TestLfa:
    numbers = golden("lfa")

    def part(self, name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        part = self.numbers[name]
        return unit(part["images"]), unit(part["texts"]), torch.tensor(part["labels"])

    @pytest.mark.parametrize("completion", ["identity", "svd"])
    def test_the_map_as_the_authors(self, completion):
        images, texts, labels = self.part("full")
        linear = procrustes(images, texts[labels], completion)
        for beta, theirs in self.numbers["full"]["maps"].items():
            np.testing.assert_allclose(mixed(linear, float(beta)), theirs, rtol=1e-7, atol=1e-8)
        assert torch.equal(mixed(linear, 1.0), torch.eye(len(linear), dtype=torch.float64))

    def test_fewer_classes_than_dimensions(self):
        images, texts, labels = self.part("few")
        linear, targets = procrustes(images, texts[labels]), texts[labels]
        _, s, vt = torch.linalg.svd(images.mT @ targets)
        v = vt[: int((s > 1e-10).sum())].mT
        np.testing.assert_allclose(linear @ v @ v.mT, self.numbers["few"]["determined_part"], atol=1e-8)
        trace = float((linear.mT @ images.mT @ targets).trace())
        assert trace == pytest.approx(self.numbers["few"]["nuclear_norm"], rel=1e-9)
        eye = torch.eye(6, dtype=torch.float64)
        assert torch.allclose(linear @ linear.mT, eye, atol=1e-10)
        assert (linear - eye).norm() <= (procrustes(images, targets, "svd") - eye).norm() + 1e-9

    def test_the_order_of_the_shots_does_not_matter(self):
        features, labels, texts = (
            part.double() if part.is_floating_point() else part for part in clusters(3, width=24)
        )
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
        one, other = (procrustes(features[o], texts[labels[o]]) for o in (torch.arange(len(labels)), order))
        assert torch.allclose(one, other, atol=1e-6)

    def test_the_ranking_loss_as_the_authors(self):
        images, texts, labels = self.part("loss")
        linear = exact(self.numbers["loss"]["map"]).requires_grad_()
        loss = ranking_loss(images @ linear, texts, labels, 3, 4.0)
        loss.backward()
        assert float(loss.detach()) == pytest.approx(self.numbers["loss"]["3 of 4"]["loss"], rel=1e-7)
        np.testing.assert_allclose(
            linear.grad, self.numbers["loss"]["3 of 4"]["grad_W"], rtol=1e-6, atol=1e-8
        )
        more = ranking_loss(images @ linear.detach(), texts, labels, 10, 2.0)
        assert float(more) == pytest.approx(self.numbers["loss"]["10 of 2"], rel=1e-7)

    def test_an_image_that_equals_a_text_has_a_finite_gradient(self):
        texts = F.normalize(torch.randn(3, 5, dtype=torch.float64), dim=-1)
        linear = torch.eye(5, dtype=torch.float64).requires_grad_()
        ranking_loss(texts @ linear, texts, torch.tensor([1, 2, 0]), 3, 4.0).backward()
        assert linear.grad.isfinite().all() and linear.grad.abs().sum() > 0

    @pytest.mark.parametrize("constraint", ["none", "orthogonal", "spectral"])
    def test_eight_steps_as_the_authors(self, constraint):
        images, texts, labels = self.part("full")
        part = self.numbers["refined"]
        theirs = part if constraint == "none" else part["constrained"][constraint]
        settings = Lfa(
            kind="lfa",
            constraint=constraint,
            **{"steps": part["steps"], "lr": part["learning_rate"], "weight_decay": part["weight_decay"]},
            **{"neighbours": part["knn"], "scale": float(part["scale"]), "noise": 0.0, "dropout": 0.0},
        )
        start = mixed(procrustes(images, texts[labels]), part["W0_beta"])
        found, mean = refine(start, images, texts, labels, settings, torch.Generator())
        np.testing.assert_allclose(found, theirs["W"], rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(mean, theirs["W_ema"], atol=1e-6)

    def test_what_is_left_out_at_random_differs_from_seed_to_seed_alone(self):
        def found(seed: int):
            shots = shots_from(*clusters(3, width=16), seed=seed)
            return LfaFitting(Lfa(kind="lfa", steps=4), 0, False).fit(shots, None).delta.dense[lfa._MAP]

        assert torch.equal(found(0), found(0)) and not torch.equal(found(0), found(1))

    @pytest.mark.parametrize("kind", ["CLIP", "CustomTextCLIP", "ResNet", "CoCa", "timm ViT"])
    def test_folded_it_is_the_map_applied_outside(self, kind):
        model = MODELS[kind]()
        with torch.no_grad():
            before = F.normalize(model.encode_image(batch(model)), dim=-1).double()
            linear = torch.linalg.qr(torch.randn(before.shape[1], before.shape[1], dtype=torch.float64))[0]
            delta = folded(model, 0.7 * linear)
            delta.add_to(dict(model.named_parameters()))
            after = F.normalize(model.encode_image(batch(model)), dim=-1).double()
        assert torch.allclose(after, F.normalize(before @ linear, dim=-1), atol=2e-6)
        assert not torch.allclose(after, F.normalize(before @ linear.mT, dim=-1), atol=1e-2)

    def test_a_tower_without_a_last_linear_map_is_refused(self):
        model = torch.nn.Module()
        model.visual = torch.nn.Conv2d(3, 4, 1)
        with pytest.raises(ValueError, match="ends in no linear map"):
            image_projection(model)

    def test_crops_are_seen_by_the_steps_and_not_by_the_start(self):
        features, labels, texts = clusters(3, width=16)
        turned = torch.roll(features, 1, dims=1)

        def found(views: torch.Tensor, **settings) -> torch.Tensor:
            shots = replace(
                shots_from(features, labels, texts), views=lambda count: views.expand(count, -1, -1)
            )
            chosen = Lfa(kind="lfa", beta=0.5, noise=0.0, dropout=0.0, **settings)
            return LfaFitting(chosen, 0, False).fit(shots, None).delta.dense[lfa._MAP]

        plain = found(turned, steps=4)
        assert torch.equal(plain, found(features, steps=4))  # without crops no view is looked at
        assert torch.allclose(found(features, steps=4, crops=2), plain)  # views that are the images
        assert not torch.allclose(found(turned, steps=4, crops=2), plain, atol=1e-6)
        first = mixed(procrustes(features.double(), texts.double()[labels]), 0.5)
        assert (found(turned, steps=1, crops=2, lr=1e-9) - first).abs().max() < 1e-6

    def test_settings_of_steps_without_any_are_refused(self):
        for key, value in (("crops", 5), ("constraint", "spectral")):
            with pytest.raises(ValidationError, match="has no effect with steps: 0"):
                Lfa(kind="lfa", steps=0, **{key: value})

    def test_spectral_values_stay_below_one(self):
        wide = 3 * torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        found = torch.linalg.svdvals(lfa._CONSTRAINTS["spectral"](wide))
        assert float(found.max()) <= 1 + 1e-9
        small = wide / 100
        assert torch.allclose(lfa._CONSTRAINTS["spectral"](small), small)
