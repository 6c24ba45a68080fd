"""cl_complora.run, compare, load_run: what a notebook gets, and errors in the words of a caller."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

import cl_complora
from builders.places import PACKAGE
from cl_complora import UserError

needs_pandas = pytest.mark.skipif(find_spec("pandas") is None, reason="pandas is not installed")


@pytest.fixture(scope="module")
def loaded(tiny_run):
    return cl_complora.load_run(tiny_run.folder)


def test_a_run_is_made_with_settings_as_a_dict(tmp_path, tiny_scenario, tiny_strategy, capsys):
    options = {"out": tmp_path, "progress": True}
    made = cl_complora.run(tiny_scenario, tiny_strategy, 1, {"training": {"steps": 2}, "shots": 2}, **options)
    assert [detail["steps"] for detail in made.results["tasks_detail"]] == [2, 2]
    assert "task 2/2 cold: 2 steps" in capsys.readouterr().out
    again = cl_complora.run(tiny_scenario, tiny_strategy, 1, {"training.steps": 2, "shots": 2}, out=tmp_path)
    assert again.reused == 2 and again.results == made.results
    texts = cl_complora.run_stream(
        tiny_scenario, tiny_strategy, 1, ["training.steps=2", "shots=2"], out=tmp_path
    )
    assert texts.results == made.results


def test_the_matrix_has_names_and_percent(loaded, tiny_run):
    matrix = loaded.matrix
    assert matrix.rows == ["(untouched)", "warm", "cold"] and matrix.columns == ["warm", "cold", "colours"]
    assert np.allclose(np.asarray(matrix)[:, :2], 100 * np.array(tiny_run.results["accuracy"]))
    assert matrix["cold", "warm"] == matrix["warm"][2] == matrix[2, 0]
    assert matrix.shape == (3, 3)
    with pytest.raises(KeyError, match="hot.*'warm'"):
        matrix["hot"]
    shown = str(matrix).splitlines()
    assert len(shown) == 4 and shown[0].split() == ["after", "warm", "cold", "colours"]
    assert matrix._repr_html_().count("<tr>") == 4


def test_the_summary_is_one_flat_row_in_percent_and_points(loaded, tiny_run):
    row = loaded.summary()
    assert row["last"] == pytest.approx(100 * tiny_run.results["last"])
    assert row["retention"] == row["retention_colours"] == tiny_run.results["retention"]["colours"]
    assert row["retention_colours_low"] <= row["retention_colours"] <= row["retention_colours_high"]
    assert row["scenario"] == "tiny" and 0 <= row["retention_colours_p"] <= 1


def test_it_shows_itself_shortly_and_as_html(loaded):
    assert len(repr(loaded)) < 400 and "tiny · quick · seed 0" in repr(loaded) and "[" in repr(loaded)
    page = loaded._repr_html_()
    assert "<table>" in page and "Retention colours" in page and "(untouched)" in page


@pytest.mark.parametrize("what", ["curves", "matrix", "zero_shot"])
def test_figures_can_be_changed_saved_and_shown(loaded, what, tmp_path):
    figure = loaded.plot(what)
    figure.axes[0].set_title("mine")
    figure.savefig(tmp_path / "figure.pdf")
    assert figure._repr_png_().startswith(b"\x89PNG") and (tmp_path / "figure.pdf").stat().st_size > 1000


def test_an_unknown_drawing_and_a_folder_without_a_run_are_told(loaded, tmp_path):
    with pytest.raises(UserError, match="'curves', 'matrix', 'zero_shot'"):
        loaded.plot("pie")
    without = replace(loaded, results=loaded.results | {"zero_shot_sets": [], "zero_shot": {}})
    with pytest.raises(UserError, match=r"plot\('zero_shot'\): scenario 'tiny' has no zero-shot sets"):
        without.plot("zero_shot")
    begun = replace(loaded, results=loaded.results | {"accuracy": []})
    for what in ("curves", "matrix", "zero_shot"):
        with pytest.raises(UserError, match="nothing of this run has been measured yet"):
            begun.plot(what)
    with pytest.raises(UserError, match="no such folder"):
        cl_complora.load_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is no run"):
        cl_complora.load_run(tmp_path)
    with pytest.raises(UserError, match="no comparison"):
        cl_complora.load_comparison(tmp_path)


@needs_pandas
def test_frames_are_tidy(loaded):
    frame = loaded.to_frame()
    assert list(frame.columns[:3]) == ["scenario", "strategy", "seed"] and len(frame) == 9
    assert set(frame["kind"]) == {"task", "zero_shot"}
    wide = frame.pivot(index="state", columns="set", values="accuracy")
    assert np.allclose(wide[loaded.matrix.columns], loaded.matrix.values)
    assert np.allclose(loaded.matrix.to_frame().loc["cold", "warm"], loaded.matrix["cold", "warm"])


def test_without_pandas_the_message_says_what_to_install(loaded, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="pip install pandas"):
        loaded.to_frame()


def test_a_comparison_shows_itself(tmp_path, tiny_scenario, tiny_strategy, capsys):
    options = {"seeds": [0, 1], "settings": {"training.steps": 2}, "out": tmp_path, "progress": True}
    made = cl_complora.compare(tiny_scenario, ["zeroshot", tiny_strategy], **options)
    said = capsys.readouterr().out.splitlines()
    assert made.methods == ["zeroshot", "quick"] and any(line.startswith("  4/4 ") for line in said)
    assert "4 runs: 2 methods × 2 seeds, 1 at a time" in said[0] and said[1].startswith(
        "begins with zeroshot"
    )
    last = made.content["methods"]["quick"]["figures"]["last"]
    assert made.matrix["quick", "last"] == made.summary()["quick"]["last"] == pytest.approx(np.mean(last))
    assert made.summary()["quick"]["last_verdict"] in ("better", "worse", "not shown", "too few pairs")
    assert "last_difference" not in made.summary()["zeroshot"]
    assert "quick" in repr(made) and "<td>" in made._repr_html_()
    assert made.plot()._repr_png_().startswith(b"\x89PNG")
    again = cl_complora.load_comparison(made.folder)
    assert again.matrix.columns == made.matrix.columns and again.report().exists()
    if find_spec("pandas") is not None:
        assert set(made.to_frame()["metric"]) >= {"last", "retention"}


@pytest.mark.parametrize(
    "given, told",
    [
        (
            {"settings": {"training.stepz": 3}},
            "settings['training.stepz']: unknown key; did you mean 'steps'",
        ),
        ({"settings": {"training": {"steps": -1}}}, "settings['training.steps']"),
        ({"settings": "training.steps"}, "settings 'training.steps': must have the form"),
        ({"settings": 3}, "settings: must be a mapping"),
        ({"settings": {"shots": object()}}, "settings: shots: must be a plain value, got object"),
        ({"seed": -1}, "seed: must be a whole number"),
        ({"seed": True}, "seed: must be a whole number"),
        ({"scenario": "lora"}, "'lora' is a strategy, a scenario is expected here; a strategy is the second"),
        ({"strategy": None}, "strategy: must be a name or a path, got NoneType"),
        ({"device": "cuda:99"}, "device cuda:99"),
    ],
)
def test_errors_name_arguments_and_no_options(tiny_scenario, tiny_strategy, tmp_path, given, told):
    with pytest.raises(UserError) as error:
        cl_complora.run(**({"scenario": tiny_scenario, "strategy": tiny_strategy, "out": tmp_path} | given))
    assert error.value.messages[0].startswith(told) and "--" not in " ".join(error.value.messages)
    assert not list(tmp_path.iterdir())


def test_a_run_made_otherwise_is_told_as_arguments(tiny_run, tiny_scenario, tiny_strategy):
    out = tiny_run.folder.parent.parent.parent
    with pytest.raises(UserError, match="use fresh=True to start over .* or another out"):
        cl_complora.run(tiny_scenario, tiny_strategy, 0, {"shots": 2}, out=out)


@pytest.mark.parametrize(
    "given, told",
    [
        ({"strategies": "lora"}, "strategies: must be a list"),
        ({"strategies": ["lora", "lora"]}, "strategies: lora stands twice"),
        ({"sweep": 3}, "sweep: must be a mapping"),
        ({"sweep": {"nothing": [1.0]}}, "sweep nothing"),
        ({"seeds": [0, -1]}, "seeds: must be"),
        ({"metric": "best"}, "metric best: must be one of"),
        ({"reference": "nobody"}, "reference nobody: must be"),
    ],
)
def test_errors_of_a_comparison_too(tiny_scenario, tmp_path, given, told):
    with pytest.raises(UserError) as error:
        cl_complora.compare(**({"scenario": tiny_scenario, "strategies": ["lora"], "out": tmp_path} | given))
    assert error.value.messages[0].startswith(told)


def test_importing_is_light_and_the_functions_keep_their_names():
    code = (
        "import sys, cl_complora\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'pydantic', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import cl_complora.run.signals, cl_complora.compare.choosing\n"
        "from cl_complora.run import signals\n"
        "assert cl_complora.run.__module__ == 'cl_complora.api.running' and signals.Stopping\n"
        "assert callable(cl_complora.compare) and 'CompLoRAPlugin' in dir(cl_complora)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_hints_reach_users():
    assert (PACKAGE / "py.typed").exists()
    for function in (cl_complora.run, cl_complora.compare, cl_complora.load_run):
        parameters = inspect.signature(function).parameters.values()
        assert function.__doc__ and all(p.kind is not p.VAR_KEYWORD and p.annotation for p in parameters)
    assert cl_complora.CompLoRAPlugin.__name__ == "CompLoRAPlugin"
    with pytest.raises(AttributeError):
        cl_complora.nothing  # noqa: B018
