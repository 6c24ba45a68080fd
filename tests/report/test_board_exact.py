"""TensorBoard says what was measured: unsmoothed charts, numbers as text, scales that noise does not fill."""

from __future__ import annotations

import socket

import numpy as np
import pytest
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from typer.testing import CliRunner

from cl_complora.cli import app
from cl_complora.report.heat_map import only_rounding, share_scale, similarity_scale
from cl_complora.report.tensorboard.figures import layers_image
from cl_complora.report.tensorboard.layout import MeasuredNames, custom_scalars
from cl_complora.report.tensorboard.numbers import numbers_text
from cl_complora.store.forms import DIRECTIONS


def layout_of(*words) -> dict:
    """Category → title → chart."""
    (value,) = custom_scalars(*words).value
    read = Layout.FromString(value.tensor.string_val[0])
    return {part.title: {chart.title: chart for chart in part.chart} for part in read.category}


def test_the_layout_has_the_curves_that_there_are():
    names = MeasuredNames(["one", "told"], [], ["pairs"], captioned=["told"])
    every = ("last", "average", "transfer", "forgetting", "bwt")
    found = layout_of(names, every)
    so_far = found["Forgetting"]["forgetting and backward transfer so far"].margin.series
    assert [one.value for one in so_far] == ["stream/forgetting", "stream/bwt"]
    # A task of captions is asked both ways, but has nothing that could be retained.
    ways = [f"{name}/{way}" for name in ("2_told", "pairs") for way in DIRECTIONS]
    assert [one.value for one in found["Retrieval"]["R@5"].margin.series] == [
        f"retrieval/{w}/R5" for w in ways
    ]
    kept = found["Retrieval"]["retention of R@1 in points"].margin.series
    assert [one.value for one in kept] == [f"retrieval_retention/{w}" for w in ways[2:]]
    # Nothing is retained where no set is of another task, and no chart is empty.
    alone = layout_of(MeasuredNames(["one", "told"], captioned=["told"]), every)
    assert list(alone["Retrieval"]) == ["R@1", "R@5", "R@10"] and "Zero-shot" not in alone
    assert all(c.multiline.tag or c.margin.series for part in alone.values() for c in part.values())
    apart = layout_of(names, ("average", "last"))
    assert "Forgetting" not in apart
    assert list(apart["Accuracy"]) == ["accuracy on every task", "Average, Last so far"]
    assert list(layout_of(names, ("last",))["Accuracy"]) == ["accuracy on every task", "Last so far"]


def test_curves_over_tasks_are_of_the_kind_that_is_never_smoothed():
    charts = {
        title: chart
        for group in layout_of(MeasuredNames(["one", "two"], ["held"]), ("last", "forgetting")).values()
        for title, chart in group.items()
    }
    for title in ("accuracy on every task", "forgetting by task", "retention in points", "accuracy"):
        series = charts[title].margin.series
        assert series and all(one.value == one.lower == one.upper for one in series), title
    assert [s.value for s in charts["accuracy on every task"].margin.series] == [
        "accuracy/1_one",
        "accuracy/2_two",
    ]
    assert charts["loss"].multiline.tag == ["^train/loss$"]


def test_the_text_has_the_exact_numbers_and_hostile_names_stay_text():
    rows = [[0.14, 0.5333], [0.93, 0.50]]
    headlines = {"last": 0.93, "bwt": float("nan")}
    text = numbers_text(
        rows,
        [{"held": 0.92}, {"held": 0.90}],
        ["a|b", "<i>*x*"],
        [1, 2],
        headlines,
        {"held": -2.0, "new": float("nan")},
    )
    assert "| untouched | 14.00 | 53.33 | 92.00 |" in text and "**93.00** | 50.00 | 90.00 |" in text
    assert "last 93.00 %" in text and "bwt" not in text and "retention held -2.00 points" in text
    assert "retention new" not in text
    told = numbers_text(rows, [{}, {}], ["one", "two"], [1, 2], headlines, {}, captioned=["two"])
    assert "| after | one | two (R@1) |" in told
    assert "<i>" not in text and "a|b" not in text and "a&#124;b" in text


@pytest.mark.parametrize(
    ("largest", "scale"), [(7e-7, (0, 0.1)), (0.05, (0, 0.1)), (0.3, (0, 1)), (float("nan"), (0, 0.1))]
)
def test_shares_are_drawn_on_fixed_scales(largest, scale):
    assert share_scale([0.0, largest]) == scale
    assert only_rounding([0.0, largest]) == (not largest >= 1e-3)


def test_similarities_that_hardly_differ_do_not_fill_the_scale():
    assert similarity_scale([0.998, 1.0]) == (0.9, 1.0) and similarity_scale([0.4, 1.0]) == (0.0, 1.0)


def test_a_map_of_rounding_errors_is_as_even_as_a_map_of_zeros():
    def drawn(scale):
        matrices = {
            f"visual.transformer.resblocks.{layer}.attn.{kind}": {"drift": scale * (layer + 1)}
            for layer in range(3)
            for kind in "qkv"
        }
        return layers_image(matrices, {"drift": "drift"})[60:]  # without the title

    assert np.abs(drawn(0.0).astype(int) - drawn(3e-7).astype(int)).max() <= 2
    assert np.abs(drawn(0.0).astype(int) - drawn(0.3).astype(int)).max() > 50


def test_a_port_in_use_is_one_line(tmp_path):
    (tmp_path / "events.out.tfevents.1").touch()
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        told = CliRunner().invoke(app, ["tensorboard", str(tmp_path), "--port", port])
    assert "--port 0" in str(told.exception) and port in str(told.exception)


def test_tasks_sort_as_the_stream_goes():
    names = [f"task {letter}" for letter in "zyxwvutsrq"]
    tags = MeasuredNames(names, ["a/b", "a b"]).tags()
    assert [tags[name] for name in names] == sorted(tags[name] for name in names)
    assert tags["task z"] == "01_task_z" and (tags["a/b"], tags["a b"]) == ("a_b", "a_b_2")
