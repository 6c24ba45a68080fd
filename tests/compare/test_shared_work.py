"""What runs of a comparison share: cores between those that run at once, plans between all who ask."""

from __future__ import annotations

import pytest

from builders.runs import STRATEGY
from cl_complora.compare import plan_store, processes, workers
from cl_complora.compare.processes import Processes
from cl_complora.compare.publishing import publish
from cl_complora.compare.study import Request, compare
from cl_complora.compare.workers import Placing
from cl_complora.config import load_scenario


@pytest.mark.parametrize(
    ("placing", "threads"),
    [
        (Placing(jobs=8, gpus_per_run=0.5), 8),  # two at a time, of which each has half of the cores
        (Placing(jobs=8, gpus_per_run=0.5, threads=3), 3),
        (Placing(jobs=2, gpus_per_run=0.5), 8),
        (Placing(jobs=4), 4),
        (Placing(jobs=40), 1),
    ],
)
def test_no_core_is_idle_where_gpus_admit_fewer_runs(monkeypatch, placing, threads):
    monkeypatch.setattr(workers, "cores", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with Processes(placing, ["cuda:0"]) as opened:
        assert opened.threads == threads


def test_every_plan_of_a_comparison_is_made_once(tmp_path, tiny_scenario, monkeypatch):
    made, whole = [], plan_store.plan

    def counted(scenario, seed, opened):
        made.append((scenario.value.measure, seed))
        return whole(scenario, seed, opened)

    monkeypatch.setattr(plan_store, "plan", counted)
    monkeypatch.setattr(processes, "run_trial", None)  # all runs are there
    (tmp_path / "quick.yaml").write_text(STRATEGY.format(name="quick"))
    sweep = {"optimiser.lr": [1e-3, 5e-3]}
    request = Request(
        str(tiny_scenario), (str(tmp_path / "quick.yaml"),), (0, 1), sweep=sweep, validation_shots=2
    )
    with monkeypatch.context() as running:
        running.setattr(processes, "run_trial", workers.run_trial)
        compare(request, tmp_path / "runs", device="cpu")
    made.clear()
    found = compare(request, tmp_path / "runs", device="cpu", results=tmp_path / "results")
    publish(found, load_scenario(str(tiny_scenario)), tmp_path / "results")
    assert sorted(made) == [("test", 0), ("test", 1), ("validation", 0)]
    made.clear()
    compare(request, tmp_path / "runs", device="cpu", results=tmp_path / "results")
    assert sorted(made) == [("test", 0), ("test", 1), ("validation", 0)]


def test_plans_of_other_seeds_share_the_sources(tiny_scenario):
    store, scenario = plan_store.PlanStore(), load_scenario(str(tiny_scenario))
    first, second = store.of(scenario, 0), store.of(scenario, 1)
    assert all(
        one.source is other.source and one.train != other.train
        for one, other in zip(first.tasks, second.tasks, strict=True)
    )
    shots = load_scenario(str(tiny_scenario), ["measure=validation", "validation_shots=1"])
    assert store.of(shots, 0).tasks[0].source is not first.tasks[0].source  # which never lists tests
