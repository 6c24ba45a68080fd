"""Signs of what explain reports, on a made-up model whose scores are sums of its weights: what comes back of
the old task and of zero-shot sets without a part counts as returned, and what the new task loses as cost."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch

from cl_complora.delta import TaskDelta
from cl_complora.finished.explain import Blame, Pair, _Changed, _losses, _ranked
from cl_complora.finished.samples import Score
from cl_complora.finished.update_parts import pieces

# Accuracy of each set before the update, and the points that the update of each layer brings it.
BEFORE = {"old": 90.0, "new": 20.0, "birds": 60.0, "cars": 50.0}
BROUGHT = {"old": (5.0, -30.0), "new": (10.0, 40.0), "birds": (0.0, -8.0), "cars": (-2.0, 6.0)}
WEIGHTS = [f"visual.transformer.resblocks.{layer}.mlp.c_fc.weight" for layer in (0, 1)]


class Sums:
    """Samples of sets whose accuracy hangs on two weights, and the right class's probability is half of
    it."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        self.weights = weights

    def measure(self, names: Iterable[str]) -> dict[str, Score]:
        held = [float(self.weights[name]) for name in WEIGHTS]
        points = {
            name: BEFORE[name] + sum(brought * now for brought, now in zip(BROUGHT[name], held, strict=True))
            for name in names
        }
        return {name: Score(accuracy, accuracy / 2) for name, accuracy in points.items()}

    def measure_changed(self, names: Iterable[str], *places: object) -> dict[str, Score]:
        return self.measure(names)


@pytest.fixture
def blames() -> dict[str, list[Blame]]:
    """Kind → parts of an update that took both weights from 0 to 1, as explain orders them."""
    weights = {name: torch.ones(1, 1) for name in WEIGHTS}
    changed = _Changed(Sums(weights), weights, list(BEFORE))
    found = pieces(TaskDelta(dense={name: torch.ones(1, 1) for name in WEIGHTS}))
    parts = _ranked(changed, ["old"], found)["old"]
    told = changed.blames(parts, "old", "new", ["birds", "cars"], earlier_heads={})
    assert all(float(weight) == 1.0 for weight in weights.values())
    return {kind: [one for one in told if one.kind == kind] for kind in ("tower", "layer", "matrix")}


def test_the_part_that_did_harm_stands_first_and_gives_back_what_it_took(blames):
    harmful = blames["layer"][0]
    assert (harmful.name, harmful.returned, harmful.probability) == ("vision 1", 30.0, 15.0)
    assert [part.name for part in blames["matrix"]] == ["vision 1 fc", "vision 0 fc"]


def test_a_part_that_did_good_gives_back_less_than_nothing(blames):
    harmless = blames["layer"][1]
    assert (harmless.name, harmless.returned, harmless.probability) == ("vision 0", -5.0, -2.5)


def test_what_the_new_task_loses_is_cost_and_what_zero_shot_sets_win_is_retention(blames):
    harmful, harmless = blames["layer"]
    assert (harmful.cost, harmful.retention) == (40.0, {"birds": 8.0, "cars": -6.0})
    assert (harmless.cost, harmless.retention) == (10.0, {"birds": 0.0, "cars": 2.0})
    (tower,) = blames["tower"]
    assert (tower.returned, tower.cost, tower.retention) == (25.0, 50.0, {"birds": 8.0, "cars": -4.0})


def test_pairs_are_those_of_which_an_earlier_task_fell_when_a_later_one_was_learned():
    accuracies = {"a": (10, 90, 70, 75), "b": (10, 5, 80, 60), "c": (10, 40, 30, 90)}
    curve = [
        {name: Score(float(points[state]), 0.0) for name, points in accuracies.items()} for state in range(4)
    ]
    assert sorted(_losses(curve, ["a", "b", "c"])) == [(20.0, "b", "a"), (20.0, "c", "b")]
    assert Pair("b", "a", 10, 0.9, 0.7, {}, ()).lost == pytest.approx(20.0)
