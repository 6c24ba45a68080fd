"""comparison.png: every method has its name at its point."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from cl_complora.report.comparison.pareto import pareto, pareto_figure


def compared(methods: int, swept: bool) -> dict:
    """What a comparison of so many methods holds that the picture needs."""
    rng, entries = np.random.default_rng(0), {}
    for place in range(methods):
        name = f"method-{place}"
        middle = (-10 * rng.uniform(), 50 + 30 * rng.uniform())
        curve = [
            {"settings": {"optimiser.lr": lr}, "error": None, "retention": middle[0] - lr, "last": middle[1]}
            for lr in (0.0, 0.5)
        ]
        entries[name] = {
            "name": name,
            "curve": curve if swept and place else [],
            "chosen": {"optimiser.lr": 0.5} if swept and place else {},
            "figures": {"retention": [middle[0], middle[0] + 0.2], "last": [middle[1], middle[1] + 1]},
        }
    return {"scenario": "tiny $", "request": {"seeds": [0, 1]}, "methods": entries}


def names_in(axes) -> list[Annotation]:
    return [one for one in axes.texts if one.get_text()]


@pytest.mark.parametrize("methods", [3, 12])
def test_every_point_has_its_name_and_none_covers_another(methods):
    figure = pareto_figure(compared(methods, swept=True), Figure)
    figure.draw_without_rendering()
    assert not figure.legends and not any(axes.get_legend() for axes in figure.axes)
    left, right = figure.axes
    every = [f"method-{place}" for place in range(methods)]
    assert sorted(one.get_text() for one in names_in(right)) == sorted(every)
    assert sorted(one.get_text() for one in names_in(left)) == sorted(every[1:])
    for axes in (left, right):
        boxes = [one.get_window_extent() for one in names_in(axes)]
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
        assert all(
            axes.get_window_extent().padded(2).contains(*corner)
            for box in boxes
            for corner in box.get_points()
        )


def test_no_two_of_twelve_methods_look_alike():
    axes = pareto_figure(compared(12, swept=False), Figure).axes[0]
    looks = {(line.get_color(), line.get_marker()) for line, *_ in axes.containers}
    assert len(axes.containers) == len(looks) == 12


def test_names_of_any_kind_and_methods_without_a_figure_are_drawn(tmp_path):
    found = compared(3, swept=True)
    found["methods"]["method-0"]["name"] = "$\\alpha"
    found["methods"]["method-1"]["figures"]["retention"] = [None, None]
    pareto(found, tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes()[:4] == b"\x89PNG"
    assert sorted(one.get_text() for one in names_in(pareto_figure(found, Figure).axes[1])) == [
        "$\\alpha",
        "method-2",
    ]
    pareto(compared(0, swept=False), tmp_path / "none.png")


def test_of_very_many_methods_the_front_is_named_and_others_where_there_is_room():
    axes = pareto_figure(compared(60, swept=False), Figure).axes[0]
    assert 10 < len(names_in(axes)) < 60
