"""Heads that all tasks share: what they are told apart from, and which images choose their settings."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from builders.heads import clusters, shots_from
from cl_complora.config.heads import Head, LinearProbe, LpPlusPlus, NearestMean, RAda
from cl_complora.config.loading import load_scenario, load_strategy
from cl_complora.engine.fitting import linear_head
from cl_complora.engine.fitting.fitting import HeadFitting, KeepingFitting, Shots
from cl_complora.engine.fitting.linear_probe import LinearProbeFitting
from cl_complora.engine.fitting.lp_plus_plus import LpPlusPlusFitting
from cl_complora.engine.fitting.nearest_mean import NearestMeanFitting
from cl_complora.engine.fitting.rada import RAdaFitting
from cl_complora.run.stream import run


def two_tasks(held: bool = True) -> list[Shots]:
    """Two tasks of two classes; validation images of the first are labelled wrong, of the second right."""
    features, labels, texts = clusters(4, spread=0.8)
    names, found = tuple("abcd"), []
    for first in (0, 2):
        own = (labels == first) | (labels == first + 1)
        here = labels[own] - first
        validation = (features[own], (here + 1) % 2 if first == 0 else here) if held else None
        one = shots_from(features[own], here, texts[first : first + 2], names[first : first + 2], validation)
        found.append(replace(one, seen=names[: first + 2], seen_texts=texts[: first + 2]))
    return found


def after_both(fitting: HeadFitting, first: Shots, second: Shots):
    return fitting.fit(second, fitting.fit(first, None).head)


KINDS = [
    (LinearProbeFitting, LinearProbe(kind="linear-probe")),
    (LpPlusPlusFitting, LpPlusPlus(kind="lp++", epochs=12)),
]


@pytest.mark.parametrize(("fitting", "settings"), KINDS)
class TestValidationImages:
    def told(self, fitting: type[KeepingFitting], settings: Head, first: Shots, second: Shots) -> dict:
        return after_both(fitting(settings, 0, True), first, second).told

    def test_those_of_all_tasks_so_far_choose(self, fitting, settings):
        first, second = two_tasks()
        few = {"validation_features": second.validation_features[:1], "validation_labels": torch.tensor([0])}
        wrong = self.told(fitting, settings, first, replace(second, **few))
        right = replace(first, validation_labels=1 - first.validation_labels)
        assert wrong != self.told(fitting, settings, right, replace(second, **few))

    def test_those_of_some_tasks_alone_do_not(self, fitting, settings):
        first, second = two_tasks()
        none, without = two_tasks(held=False)
        told = self.told(fitting, settings, none, without)
        assert self.told(fitting, settings, none, second) == told
        assert self.told(fitting, settings, first, without) == told

    def test_they_are_kept_over_a_pause_where_there_are_any(self, fitting, settings):
        for held in (True, False):
            first, second = two_tasks(held)
            whole, resumed = fitting(settings, 0, True), fitting(settings, 0, True)
            whole.fit(first, None)
            stored = whole.tensors()
            assert ("validation_labels" in stored) == held
            resumed.kept.meet(first.names)
            resumed.load(stored)
            one, other = whole.fit(second, None), resumed.fit(second, None)
            assert one.told == other.told and torch.equal(one.head.weight, other.head.weight)

    def test_tasks_apart_ask_their_own(self, fitting, settings):
        first, second = two_tasks()
        apart = fitting(settings, 0, False)
        apart.fit(first, None)
        assert apart.fit(second, None).told == fitting(settings, 0, False).fit(second, None).told
        assert apart.tensors() == {}


def test_what_chooses_nothing_keeps_no_validation_images():
    first, _ = two_tasks()
    for head in (
        NearestMeanFitting(NearestMean(kind="nearest-mean"), 0, True),
        LinearProbeFitting(LinearProbe(kind="linear-probe", c=[1.0]), 0, True),
    ):
        head.fit(first, None)
        assert set(head.tensors()) == {"features", "labels"}


def test_a_mask_is_trained_among_all_classes_so_far_unless_it_is_said_otherwise():
    _, second = two_tasks()
    own = replace(second, seen=second.names, seen_texts=second.texts)

    def weights(shots: Shots, **settings) -> torch.Tensor:
        chosen = RAda(kind="rada", epochs=2, lr=1e-2, **settings)
        return RAdaFitting(chosen, 0, True).fit(shots, None).head.out

    assert torch.equal(weights(second), weights(second, classes="seen"))
    assert torch.equal(weights(second, classes="task"), weights(own))
    assert not torch.equal(weights(second), weights(own))


@pytest.mark.parametrize(
    "name", ["2sfs", "lora+text-head", "complora+text-head", "lora+random-head", "text-head"]
)
def test_a_head_contrasts_all_classes_so_far_whatever_its_towers_do(name):
    towers = "seen" if name == "text-head" else "task"
    auto = load_strategy(name).value
    assert (auto.loss_classes, auto.head.classes) == (towers, "auto")
    for said in ("task", "seen"):
        both = load_strategy(name, [f"training.classes={said}"]).value
        assert (both.loss_classes, both.head.classes) == (said, said)
    apart = load_strategy(name, ["training.classes=task", "head.classes=seen"]).value
    assert (apart.loss_classes, apart.head.classes) == ("task", "seen")


def test_a_word_for_the_towers_is_none_for_heads_that_contrast_nothing():
    for name in ("tip-adapter", "complora", "linear-probe", "rail"):
        assert not hasattr(load_strategy(name, ["training.classes=seen"]).value.head, "classes") or (
            name == "tip-adapter"
        )
    assert load_strategy("tip-adapter-f", ["training.classes=task"]).value.head.classes == "task"


@pytest.mark.parametrize(("settings", "told_apart"), [([], True), (["training.classes=task"], False)])
def test_rows_on_moved_towers_are_told_apart_from_earlier_ones(
    settings, told_apart, tmp_path, tiny_scenario, tiny_strategy, monkeypatch
):
    others, fitted = [], linear_head.trained_rows

    def watched(start, earlier, *rest):
        others.append(len(earlier))
        return fitted(start, earlier, *rest)

    monkeypatch.setattr(linear_head, "trained_rows", watched)
    scenario = load_scenario(str(tiny_scenario), ["protocol=class-incremental"])
    head = ["head={kind: linear, steps_per_shot: 1}"]
    run(scenario, load_strategy(str(tiny_strategy), head + settings), out=tmp_path)
    assert others[0] == 0 and (others[-1] > 0) == told_apart
