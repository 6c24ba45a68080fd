"""What a swept value is chosen by where something is not measured, not kept, or asked for twice."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cl_complora.compare.choosing import point
from cl_complora.compare.method import Method
from cl_complora.compare.outcomes import Outcome
from cl_complora.compare.statistics import difference
from cl_complora.compare.study import SHOTS, Comparison, Request, prepare
from cl_complora.errors import UserError
from cl_complora.report.comparison.tables import front, how_chosen

INDEPENDENT = {"last": 0.5, "average": None, "retention": {}, "zero_shot": {}, "independent": True}


def test_independent_tasks_have_no_average_and_are_swept_nevertheless(tiny_scenario, tiny_strategy):
    found = point((("optimiser.lr", 1e-3),), [Outcome(INDEPENDENT)], "last")
    assert found["score"] == 50.0 and math.isnan(found["average"])
    request = Request(
        str(tiny_scenario),
        (str(tiny_strategy),),
        sweep={"optimiser.lr": [1e-3]},
        metric="average",
        scenario_settings=("independent=true",),
    )
    with pytest.raises(UserError, match="--metric average: independent tasks have none"):
        prepare(request)


@pytest.mark.parametrize(
    ("own", "asked", "used"), [(None, None, SHOTS), (2, None, 2), (2, 1, 1), (None, 3, 3)]
)
def test_validation_shots_that_are_asked_for_go_before_the_scenarios(
    tiny_scenario, tiny_strategy, own, asked, used
):
    settings = ("shots=1",) + (() if own is None else (f"validation_shots={own}",))
    request = Request(
        str(tiny_scenario),
        (str(tiny_strategy),),
        (0,),
        sweep={"optimiser.lr": [1e-3]},
        validation_shots=asked,
        scenario_settings=settings,
    )
    prepared = prepare(request)
    assert prepared.request.validation_shots == used
    assert {t.scenario.value.validation_shots for t in prepared.swept()} == {used}


def test_a_floor_that_no_value_keeps_is_told():
    curve = [
        {"settings": {"optimiser.lr": rate}, "told": "", "error": None, "last": 50.0, "average": 50.0}
        | {"retention": kept, "score": 50.0}
        for rate, kept in ((1e-3, -9.0), (2e-3, -12.0))
    ]
    methods = [Method("lora", (("optimiser.lr", 1e-3),), curve)]
    for floor, told in ((-3.0, True), (-10.0, False)):
        request = Request("tiny", ("lora",), (0,), sweep={"optimiser.lr": [1e-3, 2e-3]}, floor=floor)
        said = how_chosen(Comparison(request, "tiny", "lora", methods).content())
        assert ("No value of lora keeps that much" in said) == told


def test_what_is_not_measured_is_on_no_front():
    assert front([(math.nan, 90.0), (-1.0, 80.0), (math.nan, 95.0)]) == [(-1.0, 80.0)]


def test_equal_counts_of_images_are_ties():
    ours = 100 * np.array([[70 / 120, 31 / 120, 50 / 120, 9 / 120, 77 / 120, 5 / 120]])
    other = np.array(
        [[100 * 70 / 120, 100 * 31 / 120, 100 * 50 / 120, 100 * 9 / 120, 100 * 77 / 120, 100 * 5 / 120]]
    )
    assert difference(ours, other + 1e-13).p == 1.0
