"""Runs of a comparison as tasks of a cluster that is none: outcomes, their order, and what became of lost
ones."""

from __future__ import annotations

import pytest

from builders import fake_ray
from cl_complora.compare import ray_tasks
from cl_complora.compare.outcomes import Outcome
from cl_complora.compare.study import Request, compare
from cl_complora.compare.trials import Trial
from cl_complora.compare.workers import Placing
from cl_complora.config import load_scenario
from cl_complora.errors import UserError
from cl_complora.run import ray_cluster


@pytest.fixture
def ray(monkeypatch):
    return fake_ray.install(monkeypatch, [{"CPU": 2.0}, {"CPU": 8.0}])


def test_the_same_table_as_from_processes(ray, tiny_scenario, tmp_path):
    request = Request(str(tiny_scenario), ("zeroshot", "nearest-mean"), seeds=(0,))
    found = compare(request, tmp_path / "cluster", cluster="auto", threads=1)
    assert compare(request, tmp_path / "cluster").content() == found.content()  # which reads them
    assert not any(method.failed for method in found.methods) and not ray.running
    # Two runs, and on every node the pictures, once.
    assert [task.get("scheduling_strategy") for task in ray.begun] == ["0", "1", None, None]
    assert not list((tmp_path / "cluster").glob(".shared-*"))


def test_a_lost_run_and_a_folder_that_is_not_shared_are_outcomes(ray, monkeypatch, tmp_path):
    monkeypatch.setattr(ray_tasks.RayTasks, "_warm", lambda self, trials: None)
    monkeypatch.setattr(ray_tasks, "run_trial", named)
    trials = [Trial(name, (), 0, False, None, None, "") for name in ("first", "second", "third")]
    ray.lose = lambda place: place == 1
    told: list[str] = []
    placing = Placing(tmp_path, cluster="auto", threads=1, device="cpu")
    with ray_tasks.RayTasks(placing, print) as workers:
        outcomes = workers.run(trials, lambda t, outcome: told.append(t.method))
        monkeypatch.setattr(ray_cluster, "SHOWN", 0.0)
        workers.cluster._marker.unlink()
        (hidden,) = workers.run(trials[:1], lambda t, outcome: None)
    assert [one.error for one in outcomes] == [
        "first on cpu",
        "lost with its node or process: the node died",
        "third on cpu",
    ]
    assert sorted(told) == ["first", "second", "third"]
    assert hidden.refused and f"--out {tmp_path} as the node" in hidden.error


def test_a_busy_node_is_not_waited_for_and_one_without_a_gpu_decodes_nothing(
    monkeypatch, tmp_path, tiny_scenario
):
    ray = fake_ray.install(monkeypatch, [{"CPU": 2.0, "GPU": 1.0}, {"CPU": 2.0, "GPU": 1.0}, {"CPU": 8.0}])
    ray.busy = lambda options: options.get("scheduling_strategy") == "1"
    monkeypatch.setattr(ray_tasks, "run_trial", named)
    monkeypatch.setattr(ray_tasks, "PATIENCE", 0.0)
    t = Trial("first", (), 0, False, load_scenario(str(tiny_scenario)), None, "")
    with ray_tasks.RayTasks(Placing(tmp_path, cluster="auto", threads=1), print) as workers:
        (found,) = workers.run([t], lambda t, outcome: None)
    assert found.error == "first on cuda"
    assert [task.get("scheduling_strategy") for task in ray.begun] == ["0", "1", None]
    assert [task["scheduling_strategy"] for task in ray.cancelled] == ["1"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (type("Drained", (fake_ray.RayTaskError, ray_cluster.Drained), {})("stopped"), "was asked to stop"),
        (
            fake_ray.RayTaskError("…\nModuleNotFoundError: No module named 'cl_complora'"),
            "a node cannot load",
        ),
        (fake_ray.RayTaskError("ValueError: of the program"), None),
    ],
    ids=["drained", "without the package", "fault"],
)
def test_what_the_nodes_are_to_blame_for_is_told(ray, monkeypatch, tmp_path, error, told):
    def fails(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(ray_tasks.RayTasks, "_warm", lambda self, trials: None)
    monkeypatch.setattr(fake_ray._Task, "_computed", fails)
    placing = Placing(tmp_path, cluster="auto", threads=1, device="cpu")
    with ray_tasks.RayTasks(placing, print) as workers:
        trials = [Trial("first", (), 0, False, None, None, "")]
        if isinstance(error, ray_cluster.Drained):
            (found,) = workers.run(trials, lambda t, outcome: None)
            assert found.lost and told in found.error
        else:
            with pytest.raises(UserError if told else fake_ray.RayTaskError, match=told or "of the program"):
                workers.run(trials, lambda t, outcome: None)


def named(t: Trial, placing: Placing, device: str) -> Outcome:
    """Stands in for ``run_trial``."""
    return Outcome(None, error=f"{t.method} on {device}")
