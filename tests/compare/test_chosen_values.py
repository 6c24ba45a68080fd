"""What a swept value is chosen by where something is not measured, not kept, or asked for twice."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cl_complora.compare.choosing import choose, point
from cl_complora.compare.method import Method
from cl_complora.compare.outcomes import Outcome
from cl_complora.compare.statistics import difference
from cl_complora.compare.study import SHOTS, Comparison, Request, prepare
from cl_complora.errors import UserError
from cl_complora.metrics import retention
from cl_complora.report.comparison.tables import FLOORS, floor_table, front, how_chosen

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
    tmp_path, tiny_scenario, tiny_strategy, own, asked, used
):
    scenario = tiny_scenario.with_name(f"{tmp_path.name}.yaml")  # beside its pictures
    of_its_own = "" if own is None else f"validation_shots: {own}\n"
    scenario.write_text(f"{tiny_scenario.read_text()}\n{of_its_own}")
    request = Request(
        str(scenario),
        (str(tiny_strategy),),
        (0,),
        sweep={"optimiser.lr": [1e-3]},
        validation_shots=asked,
        scenario_settings=("shots=1",),
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


def test_what_loses_as_much_as_the_floor_allows_is_chosen():
    lost = retention([0.90, 0.85])
    assert lost < -5.0
    curve = [_point(1e-3, 60.0, -1.0), _point(2e-3, 90.0, lost)]
    assert choose("lora", curve, -5.0) == (("optimiser.lr", 2e-3),)
    assert choose("lora", curve, -4.9) == (("optimiser.lr", 1e-3),)
    request = Request("tiny", ("lora",), (0,), sweep={"optimiser.lr": [1e-3, 2e-3]}, floor=-5.0)
    methods = [Method("lora", (("optimiser.lr", 2e-3),), curve)]
    content = Comparison(request, "tiny", "lora", methods).content()
    assert "keeps that much" not in how_chosen(content)
    _, [(_, *cells)] = floor_table(content)
    assert "90.0" in [cell.text for cell in cells][FLOORS.index(-5)]


def test_of_scores_that_differ_by_the_order_of_a_sum_the_first_is_chosen():
    curve = [_point(1e-3, 80.0, 0.0), _point(2e-3, float(np.nextafter(80.0, 81.0)), 0.0)]
    assert choose("lora", curve, None) == (("optimiser.lr", 1e-3),)


def test_a_method_whose_sweep_failed_was_swept_nevertheless():
    failed = [{"settings": {"optimiser.lr": 1.0}, "told": "lr=1", "error": "diverged"}]
    methods = [
        Method("lora", (), failed, failed=["on validation shots: diverged"]),
        Method("complora", (("optimiser.lr", 1.0),), [_point(1.0, 50.0, 0.0)]),
    ]
    request = Request("tiny", ("lora", "complora"), (0,), sweep={"optimiser.lr": [1.0]})
    assert "was not swept" not in how_chosen(Comparison(request, "tiny", "lora", methods).content())


def _point(rate, score, kept):
    figures = {"last": score, "average": score, "score": score, "retention": kept}
    return {"settings": {"optimiser.lr": rate}, "told": "", "error": None, **figures}


def test_what_is_not_measured_is_on_no_front():
    assert front([(math.nan, 90.0), (-1.0, 80.0), (math.nan, 95.0)]) == [(-1.0, 80.0)]


def test_equal_counts_of_images_are_ties():
    ours = 100 * np.array([[70 / 120, 31 / 120, 50 / 120, 9 / 120, 77 / 120, 5 / 120]])
    other = np.array(
        [[100 * 70 / 120, 100 * 31 / 120, 100 * 50 / 120, 100 * 9 / 120, 100 * 77 / 120, 100 * 5 / 120]]
    )
    assert difference(ours, other + 1e-13).p == 1.0
