"""compare: sweeps without test images, one table whatever was interrupted, differences called only where they
hold."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats
from typer.testing import CliRunner

from builders.commands import cli
from builders.processes import start
from builders.runs import STRATEGY
from cl_complora.cli import app, main
from cl_complora.compare.choosing import choose
from cl_complora.compare.method import Method
from cl_complora.compare.statistics import difference, per_unit
from cl_complora.compare.study import Comparison, Request, compare
from cl_complora.compare.trials import grid, parse_sweep, sweep_of
from cl_complora.compare.updates import measure_updates
from cl_complora.config import load_scenario
from cl_complora.data.planning import plan
from cl_complora.delta import TaskDelta
from cl_complora.errors import UserError
from cl_complora.report.comparison.saving import latex, markdown
from cl_complora.report.comparison.tables import front
from cl_complora.store.deltas import save_delta
from cl_complora.store.folder import RunDir

TIMES = ("train_seconds", "peak_memory_bytes")


@pytest.fixture(scope="module")
def methods(tmp_path_factory):
    folder = tmp_path_factory.mktemp("methods")
    for name in ("quick", "slow"):
        (folder / f"{name}.yaml").write_text(
            STRATEGY.format(name=name) + "sweep: {optimiser.lr: [1e-3, 5e-3]}\n"
        )
    return str(folder / "quick.yaml"), str(folder / "slow.yaml"), "zeroshot"


def without_times(found: Comparison) -> dict:
    plain = found.content()
    for method in plain["methods"].values():
        for key in TIMES:
            method["budget"].pop(key, None)
    return plain


@pytest.fixture(scope="module")
def request_(tiny_scenario, methods):
    return Request(str(tiny_scenario), methods, seeds=(0, 1), sweep={}, validation_shots=2, reference="slow")


@pytest.fixture(scope="module")
def compared(request_, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    told = []
    found = compare(request_, out, jobs=2, report=lambda *line: told.append(line))
    return found, out, told


def test_sweep_test_and_table(compared):
    found, out, told = compared
    quick, slow, zeroshot = found.methods
    assert [len(m.curve) for m in found.methods] == [2, 2, 0] and found.reference == "slow"
    assert dict(quick.chosen) == max(quick.curve, key=lambda p: p["score"])["settings"]
    assert len(told) == 4 + 6 and not any(outcome.error for _, outcome, *_ in told)
    assert all(len(values) == 2 for m in found.methods for values in m.figures.values())
    # Both methods are the same but for their name: no difference at all, and never "better".
    assert quick.figures == slow.figures
    assert all(d.mean == 0 and d.verdict != "better" for d in quick.differences.values())
    assert set(zeroshot.differences) == {"transfer", "average", "last", "forgetting", "learned", "retention"}
    assert (
        quick.budget["steps"] == 8
        and quick.budget["stored_bytes"] > 0
        and quick.budget["peak_memory_bytes"] > 1e6
    )
    assert (
        quick.updates["norm"] == pytest.approx(quick.updates["matrix_norm"], rel=1e-4)
        and zeroshot.updates["norm"] == 0
    )
    # Retention is compared on the zero-shot images, of which both seeds have the same here.
    images = [
        row for row in RunDir(out / "tiny/zeroshot/seed0").read_split("colours") if row["split"] == "test"
    ]
    retention = zeroshot.differences["retention"]
    assert retention.pairs == len(images) and retention.test == "flips by image"
    assert retention.mean == pytest.approx(-np.mean(slow.figures["retention"]))
    # The run of the strategy as it stands is where `run` keeps it; others have folders that say what they
    # are.
    folders = {
        p.relative_to(out / "tiny" / "quick").as_posix()
        for p in (out / "tiny" / "quick").glob("**/seed*")
        if p.is_dir()
    }
    assert {"validation-optimiser.lr-0.001/seed0", "validation/seed0"} <= folders
    plain = json.loads((out / "tiny" / "zeroshot" / "seed0" / "results.json").read_text())
    assert plain["accuracy"] is not None


def test_a_second_time_nothing_is_run_and_the_table_is_the_same(compared, request_):
    found, out, _ = compared
    told = []
    again = compare(request_, out, jobs=1, report=lambda *line: told.append(line))
    assert all(outcome.reused for _, outcome, *_ in told)
    assert again.content() == found.content()


def test_killed_in_the_middle_and_started_again_ends_with_the_same_table(
    compared, tmp_path, tiny_scenario, methods, monkeypatch, capsys
):
    command = [
        *("compare", tiny_scenario),
        *("--strategies", ",".join(methods)),
        *("--seeds", "0,1", "--sweep-from", "strategy", "--validation-shots", "2", "--reference", "slow"),
        *("--jobs", "2", "--out", str(tmp_path / "runs")),
    ]  # fmt: skip
    process = start(*command)
    process.wait_for(lambda: "2/4" in process.said())  # two runs of the sweep are there
    process.kill()
    process.communicate()
    # Whatever the workers hold is free as soon as they notice: at once, or the second start would be refused.
    time.sleep(1)
    code, out, err = cli(monkeypatch, capsys, *command)
    assert code == 0, out + err
    assert "found finished" in out and "tiny: accuracy" in out
    told = json.loads((tmp_path / "runs" / "tiny" / "comparison.json").read_text())
    for method in told["methods"].values():
        for key in TIMES:
            method["budget"].pop(key)
    expected = json.loads(json.dumps(without_times(compared[0])))
    assert told["methods"] == expected["methods"]
    tables = ["", "-runs", "-sweep", "-updates"]
    for name in ("comparison.md", "comparison.tex", *(f"comparison{kind}.csv" for kind in tables)):
        assert (tmp_path / "runs" / "tiny" / name).stat().st_size > 50
    assert (tmp_path / "runs" / "tiny" / "comparison.png").read_bytes()[:4] == b"\x89PNG"


def test_test_labels_change_no_chosen_setting(compared, tmp_path, class_folders, tiny_scenario, methods):
    """Every test image under another class: the sweep's curves and the choice are the same to the last
    digit."""
    swapped = tmp_path / "swapped"
    shutil.copytree(class_folders, swapped)
    names = sorted(p.name for p in (swapped / "test").iterdir())
    for old, new in zip(names, [*names[1:], names[0]], strict=True):
        (swapped / "test" / old).rename(swapped / "test" / f".{new}")
    for new in names:
        (swapped / "test" / f".{new}").rename(swapped / "test" / new)
    text = tiny_scenario.read_text().replace(str(class_folders), str(swapped))
    (tmp_path / "tiny.yaml").write_text(text)
    # "slow" is "quick" by another name.
    asked = (methods[0], "zeroshot")
    request = Request(str(tmp_path / "tiny.yaml"), asked, seeds=(0,), sweep={}, validation_shots=2)
    found, before = (
        {one.name: one for one in each.methods} for each in (compare(request, tmp_path / "runs"), compared[0])
    )
    assert len(found) == 2 and len(found["quick"].curve) == 2
    for name, ours in found.items():
        assert ours.chosen == before[name].chosen and ours.curve == before[name].curve
    assert found["zeroshot"].figures["last"][:1] != before["zeroshot"].figures["last"][:1]


def test_the_sweep_measures_retention_on_other_images_than_the_test(tiny_scenario):
    test = plan(load_scenario(str(tiny_scenario)), 0)
    chosen = plan(load_scenario(str(tiny_scenario), ["measure=validation", "validation_shots=1"]), 0)
    tested = {item.key for p in test.zero_shot for item in p.test}
    assert tested and not tested & {item.key for p in chosen.zero_shot for item in p.test}
    assert len(chosen.zero_shot[0].test) == len(test.zero_shot[0].test)


def test_a_value_that_diverges_is_noted_and_not_chosen(tmp_path, tiny_scenario, methods):
    request = Request(
        str(tiny_scenario), methods[:1], seeds=(0,), sweep={"optimiser.lr": [1e30, 5e-3]}, validation_shots=2
    )
    (quick,) = compare(request, tmp_path / "runs").methods
    assert "diverged" in quick.curve[0]["error"] and dict(quick.chosen) == {"optimiser.lr": 5e-3}
    with pytest.raises(UserError, match="no swept value could be trained: .*diverged"):
        choose("quick", quick.curve[:1], None)


def test_the_floor_decides_before_the_score():
    points = [(-1.0, 30.0), (-4.0, 40.0), (-9.0, 50.0)]
    curve = [
        {"settings": {"lr": i}, "error": None, "retention": retention, "score": score}
        for i, (retention, score) in enumerate(points)
    ]
    assert [dict(choose("m", curve, floor))["lr"] for floor in (None, -10, -5, -2, -0.5)] == [2, 2, 1, 0, 0]
    assert choose("m", [], -5) == ()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--strategies", "lora,nothing"], "no strategy named 'nothing'"),
        (["--strategies", "lora,lora"], "--strategies: lora stands twice"),
        (["--strategies", "lora", "--reference", "ewc"], "must be one of the compared strategies: lora"),
        (["--strategies", "lora", "--sweep", "lr"], "must have the form key.path="),
        (["--strategies", "lora", "--sweep", "lr=1e-3", "--sweep-from", "strategy"], "one of the two"),
        (["--strategies", "lora", "--sweep-from", "zeroshot"], "declares no sweep"),
        (["--strategies", "lora", "--metric", "best"], "must be one of last, average, harmonic"),
        (["--strategies", "lora", "--seeds", "0,0"], "different whole numbers"),
        (
            ["--strategies=lora", "--sweep=lr=1e-3", "--floor=-5",
             "--set=zero_shot=[]", "--validation-shots=1"],
            "that no test uses",
        ),
        (["--strategies", "lora", "--sweep", "lr=1e-3", "--validation-shots", "99"], "99 for validation"),
        (
            ["--strategies=lora", "--sweep=lr=1e-3", "--validation-shots=1", "--set=validation_shots=2"],
            "the same is set twice",
        ),
        (
            ["--strategies=lora", "--set=measure=validation", "--set=validation_shots=1"],
            "--set measure=validation: must be test in a comparison",
        ),
        (["--strategies", "lora", "--seeds", "0", "--set", "seeds=[5]"], "has no effect beside --seeds"),
        (["--strategies", "lora", "--results", str(Path(__file__).parent)], "holds no results of 'tiny'"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_anything_is_run(
    words, told, tmp_path, tiny_scenario, monkeypatch, capsys
):
    out = tmp_path / "runs"
    monkeypatch.setattr(
        sys, "argv", ["cl-complora", "compare", str(tiny_scenario), "--out", str(out), *words]
    )
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2 and told in capsys.readouterr().err
    assert not out.exists()


def test_help_names_what_a_comparison_takes():
    shown = CliRunner().invoke(app, ["compare", "--help"], terminal_width=200).output
    assert all(
        option in shown for option in ("--strategies", "--sweep-from", "--floor", "--jobs", "--reference")
    )


def test_grids_are_all_combinations():
    assert grid({}) == [()]
    assert grid({"a": [1, 2], "b": [3]}) == [(("a", 1), ("b", 3)), (("a", 2), ("b", 3))]
    assert parse_sweep(["lr=1e-4,3e-4", "adapter.rank=2,4"]) == {
        "optimiser.lr": [1e-4, 3e-4],
        "adapter.rank": [2, 4],
    }
    assert sweep_of("finetune", (), {"optimiser.lr": [1e-3], "adapter.rank": [2]}) == {"optimiser.lr": [1e-3]}
    assert sweep_of("zeroshot", (), {"optimiser.lr": [1e-3]}) == {}


@given(st.integers(2, 4), st.integers(2, 6), st.integers(0, 2**31))
@hypothesis_settings(max_examples=25, deadline=None)
def test_differences_are_antisymmetric_and_hold_their_mean(seeds, units, seed):
    rng = np.random.default_rng(seed)
    one, other = rng.normal(size=(2, seeds, units))
    forth, back = difference(one, other), difference(other, one)
    assert forth.low <= forth.mean <= forth.high
    assert forth.mean == pytest.approx(-back.mean) and forth.p == pytest.approx(back.p)
    assert {forth.verdict, back.verdict} in ({"better", "worse"}, {"not shown"}, {"too few pairs"})


def test_a_bound_at_zero_is_zero_not_what_rounding_leaves_of_its_mean():
    rng = np.random.default_rng(0)
    found = [difference(100 * rng.integers(-2, 6, (3, 2)) / 30, np.zeros((3, 2))) for _ in range(120)]
    bounds = [bound for one in found for bound in (one.low, one.high)]
    assert 0.0 in bounds
    assert all(bound == 0 or abs(bound) > 1e-3 for bound in bounds)


def test_better_is_said_only_where_it_holds():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(3, 7))
    assert difference(noise + 5, noise).verdict == "better"
    assert difference(noise + 5, noise, larger_is_better=False).verdict == "worse"
    assert difference(rng.normal(size=(3, 7)), noise).verdict == "not shown"
    assert difference(noise, noise).verdict == "not shown" and difference(noise, noise).p == 1.0
    few = difference(noise[:, :1] + 5, noise[:, :1])
    assert few.verdict == "too few pairs" and few.test == "sign test" and few.p == 0.25


@pytest.mark.parametrize("values", [[-1, 2, 2, -0.5, 3, 4], [1, 1, 1, -1, 2, 0, 5], [2, -2, 1, -1, 3, -3]])
def test_ties_change_nothing_of_the_signed_rank_test(values):
    ours = np.array([values], dtype=float)
    moved = ours[ours != 0]
    assert difference(ours, np.zeros_like(ours)).p == pytest.approx(stats.wilcoxon(moved).pvalue, abs=1e-12)


def test_values_per_task_average_to_the_metrics_of_the_run():
    rng = np.random.default_rng(1)
    accuracy = rng.random((5, 4))
    from cl_complora.metrics import summarize

    summary = summarize(accuracy)
    results = {"accuracy": accuracy.tolist(), "tasks": list("abcd"), "retention": {"z": -1.0}, **summary}
    for metric in ("transfer", "average", "last", "forgetting"):
        assert per_unit([results], metric).mean() == pytest.approx(100 * summary[metric])
    assert per_unit([results], "retention").tolist() == [[-1.0]]
    assert np.isnan(per_unit([results | {"transfer": None}], "transfer")).all()


@given(st.lists(st.tuples(st.integers(-9, 0), st.integers(0, 9)), min_size=1, max_size=20))
def test_no_point_beats_one_of_the_front(points):
    kept = front(points)
    for x, y in kept:
        assert not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points)
    assert all(any(a >= x and b >= y for a, b in kept) for x, y in points)


def test_updates_are_measured_as_their_formulas_say(tmp_path, tiny_scenario):
    from cl_complora.clip.model import load_clip
    from cl_complora.clip.slots import open_slots
    from cl_complora.subspace import Keep, principal

    scenario = load_scenario(str(tiny_scenario))
    slot = open_slots(load_clip(scenario.value.model, scenario.folder).model)[0]
    split = principal(slot.weight, Keep("energy", 0.5))
    inside = torch.outer(split.u_c[:, 0], split.v_c[:, 0])
    top = torch.outer(split.u_k[:, 0], split.v_k[:, 0])
    deltas = [inside, 3 * inside, 0.6 * inside + 0.8 * top]
    (tmp_path / "deltas").mkdir()
    for index, update in enumerate(deltas):
        u, s, vh = torch.linalg.svd(update)
        delta = TaskDelta(factors={slot.key: (u[:, :2] * s[:2], vh[:2])})
        (tmp_path / "deltas" / f"{index + 1:03d}-t{index}.safetensors").write_bytes(save_delta(delta))
    (tmp_path / "results.json").write_text(json.dumps({"tasks": ["t0", "t1", "t2"]}))
    first, second, third = measure_updates(tmp_path, scenario)
    assert first["norm"] == pytest.approx(1, rel=1e-4) and first["principal"] == pytest.approx(0, abs=1e-3)
    assert first["earlier"] is None and first["cosine"] is None
    assert second["earlier"] == pytest.approx(1, rel=1e-4) and second["cosine"] == pytest.approx(1, rel=1e-4)
    assert third["principal"] == pytest.approx(0.8, rel=1e-3)
    assert third["earlier"] == pytest.approx(0.6, rel=1e-3) and third["cosine"] == pytest.approx(
        0.6, rel=1e-3
    )
    assert measure_updates(tmp_path, scenario) == [first, second, third]  # from the file


def test_tables_say_what_failed_and_escape_what_latex_reads():
    request = Request("x", ("a_b",), seeds=(0,))
    found = Comparison(request, "x", "a_b", [Method("a_b", failed=["seed 0: it diverged"])])
    assert "seed 0: it diverged" in markdown(found.content())
    assert latex([["a_b", "c"], ["1 ± 2", "5 %"]]).splitlines()[2:5] == [
        r"a\_b & c \\",
        r"\midrule",
        r"1 $\pm$ 2 & 5 \% \\",
    ]
