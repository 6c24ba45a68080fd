"""The page of a comparison: its numbers, and the way to its runs."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml

from builders.pages import HOSTILE, read
from cl_complora.compare.method import METRICS, Method
from cl_complora.compare.statistics import difference
from cl_complora.compare.study import Comparison, Request
from cl_complora.report.comparison.made_with import has_plugin
from cl_complora.report.comparison.saving import save
from cl_complora.report.html import write_report
from cl_complora.report.reproduce import compare_command


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The folder of a comparison of three methods, of which two were swept; its runs are results alone."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    rng = np.random.default_rng(0)
    methods = [Method(name) for name in ("quick", "slow", "zeroshot")]
    values = {m.name: {metric: rng.uniform(30, 60, (2, 4)) for metric in METRICS} for m in methods}
    for m in methods:
        m.figures = {metric: v.mean(1).tolist() for metric, v in values[m.name].items()}
        if m.name != "slow":
            m.differences = {key: difference(v, values["slow"][key]) for key, v in values[m.name].items()}
        sizes = dict.fromkeys(("stored_bytes", "carried_bytes", "peak_memory_bytes"), 1e6)
        m.budget = {"steps": 8.0, "trainable_parameters": 2e4, "train_seconds": 3.0, **sizes}
        m.updates = {"norm": 0.5, "matrix_norm": 0.25, "principal": 0.1, "earlier": None, "cosine": None}
        if m.name != "zeroshot":
            points = [(1e-3, 40.0, -1.0), (5e-3, 50.0, -3.0)]
            m.curve = [
                {"settings": {"optimiser.lr": lr}, "told": f"lr={lr:g}", "error": None,
                 "last": last, "average": last,
                 "retention": retention, "score": last}
                for lr, last, retention in points
            ]  # fmt: skip
            m.chosen = (("optimiser.lr", 5e-3),)
        for seed in (0, 1):
            variant = (
                "optimiser.lr-0.005" if m.name == "slow" else ""
            )  # the others' files say what was chosen
            place = folder / m.name / variant / f"seed{seed}"
            place.mkdir(parents=True)
            (place / "results.json").write_text("{}")
    request = Request(
        "tiny", tuple(m.name for m in methods), (0, 1), sweep={}, validation_shots=2, reference="slow"
    )
    save(Comparison(request, "tiny", "slow", methods).content(), folder)
    return folder


def test_a_comparison_shows_its_numbers_and_leads_to_its_runs(compared):
    page = read(write_report(compared))
    found = json.loads((compared / "comparison.json").read_text())
    names = ("learned", "last", "forgetting", "average", "transfer", "retention")
    for row, method in zip(page.values("Accuracy"), found["methods"].values(), strict=True):
        assert row[1:] == pytest.approx([np.mean(method["figures"][metric]) for metric in names])
    paired = {row[0][0]: [v for _, v in row[1:]] for row in page.tables["Paired differences"][1:]}
    for name in ("quick", "zeroshot"):
        assert paired[name] == [found["methods"][name]["differences"][metric]["mean"] for metric in names]
    assert len(page.tables["Sweep"]) == 5 and len(page.tables["Budget"]) == 4
    assert sum(row[-1][0] == "chosen" for row in page.tables["Sweep"]) == 2
    links = [a["href"] for a in page.all("a") if a["href"].startswith("./")]
    assert len(links) == 6 and all((compared / link / "results.json").is_file() for link in links)
    assert f"{compare_command(found['request'])} --out {compared.parent}" in page.text
    assert "chosen by last on validation shots (seed 0)." in page.text


def test_a_comparison_elsewhere_still_leads_to_its_runs(compared, tmp_path):
    page = read(write_report(compared, tmp_path / "a" / "b.html"))
    links = [a["href"] for a in page.all("a") if a["href"].startswith("./")]
    assert len(links) == 6 and all((tmp_path / "a" / link / "results.json").is_file() for link in links)


def test_many_strange_methods_stay_small_and_are_not_run(compared, tmp_path):
    found = json.loads((compared / "comparison.json").read_text())
    one = found["methods"]["quick"]
    names = [*HOSTILE, *(f"a method of a long name {n}" for n in range(12))]
    one["curve"] = [one["curve"][0] | {"last": 9.0 + n, "retention": -n / 3} for n in range(12)]
    found["methods"] |= {name: one | {"name": name} for name in names}
    found["methods"]["broken"] = one | {
        "name": "broken", "figures": {}, "budget": {}, "differences": {}, "updates": {}, "per_task": [],
        "failed": ["seed 0: <b>diverged</b>"],
    }  # fmt: skip
    found["methods"]["quick"]["figures"]["transfer"] = [None, None]
    (tmp_path / "comparison.json").write_text(json.dumps(found))
    page = read(write_report(tmp_path))
    assert "Failed: broken, seed 0: <b>diverged</b>" in page.text and not page.all("b")
    assert len(page.tables["Accuracy"]) == 22 and all(name in page.text for name in HOSTILE[:4])


def test_the_command_of_a_comparison_says_what_was_asked():
    request = {
        "scenario": "embedded", "strategies": ["a", "b c"], "seeds": [0, 1],
        "sweep": {"optimiser.lr": [1e-4, 3]},
        "sweep_seeds": [5], "metric": "harmonic", "floor": -5.0, "reference": "a", "validation_shots": 4,
        "scenario_settings": ["shots=4"], "strategy_settings": ["strategy.name=x"],
    }  # fmt: skip
    assert (
        compare_command(request)
        == "cl-complora compare embedded --strategies 'a,b c' --seeds 0,1 --sweep optimiser.lr=0.0001,3"
        " --sweep-seeds 5 --metric harmonic --validation-shots 4 --floor -5 --reference a --set"
        " scenario.shots=4 --set strategy.name=x"
    )
    swept = {"optimiser.lr": [0.00012345678], "training.steps": [1234567, 8]}
    words = shlex.split(compare_command(request | {"sweep": swept, "floor": -1234567.5}))
    assert {"optimiser.lr=0.00012345678", "training.steps=1234567,8", "-1234567.5"} <= set(words)
    assert "--sweep-from strategy" in compare_command(request | {"sweep": {}})
    assert "--sweep" not in compare_command(request | {"sweep": None})


def test_the_command_of_a_comparison_finds_its_runs_and_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    request = {"scenario": "embedded", "strategies": ["own.yaml"], "seeds": [0], "sweep": None}
    request |= {"scenario_settings": [], "strategy_settings": []}
    plain = "cl-complora compare embedded --strategies own.yaml --seeds 0"
    assert compare_command(request, Path("runs/embedded")) == plain
    assert compare_command(request, tmp_path / "runs" / "embedded", True) == f"{plain} --allow-plugins"
    assert compare_command(request, Path("else where/embedded")) == f"{plain} --out 'else where'"


def test_whether_a_run_has_a_plugin_is_read_off_its_config(tiny_run, tmp_path):
    assert not has_plugin(tmp_path) and not has_plugin(tiny_run.folder)
    config = yaml.safe_load((tiny_run.folder / "config.yaml").read_text())
    config["strategy"]["plugin"] = "own:Mine"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert has_plugin(tmp_path)
    (tmp_path / "config.yaml").write_text("[")
    assert not has_plugin(tmp_path)
