"""compare --cluster: the same table from processes, one node and three, also where a node is lost."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest

from builders.commands import cli
from cl_complora.compare.ray_tasks import RayTasks, needs_of
from cl_complora.compare.study import Request, compare
from cl_complora.compare.workers import Placing
from cl_complora.errors import UserError
from cl_complora.run.ray_cluster import gpu_share, refuse_infeasible, refuse_silent

CPUS = [{"CPU": 4.0}, {"CPU": 8.0}]
GPUS = [*CPUS, {"CPU": 2.0, "GPU": 1.0}]
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install -e '.[cluster]'"
)


def test_without_the_extra_it_is_said_what_to_install(monkeypatch, capsys, tmp_path, tiny_scenario):
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ("compare", tiny_scenario, "-s", "zeroshot", "--cluster", "auto", "--out", tmp_path / "runs")
    code, _, said = cli(monkeypatch, capsys, *words)
    assert code == 2 and said.count("error:") == 1 and "pip install 'cl_complora[cluster]'" in said
    assert not (tmp_path / "runs").exists()


def test_what_a_run_takes_of_the_gpus():
    plain = needs_of(Placing())
    assert gpu_share(plain, CPUS) == gpu_share(needs_of(Placing(device="cpu")), GPUS) == 0
    assert gpu_share(plain, GPUS) == gpu_share(needs_of(Placing(device="cuda")), CPUS) == 1
    assert gpu_share(needs_of(Placing(gpus_per_run=0.5)), GPUS) == 0.5
    for placing, nodes in (
        (Placing(gpus_per_run=0.5), CPUS),
        (Placing(device="cpu", gpus_per_run=0.5), GPUS),
    ):
        with pytest.raises(UserError, match="there is no GPU to share"):
            gpu_share(needs_of(placing), nodes)


def test_what_no_node_can_run_is_refused():
    def refuse(threads, share, nodes):
        refuse_infeasible(needs_of(Placing(threads=threads)), share, nodes)

    refuse(8, 0, CPUS)
    refuse(2, 1, GPUS)
    for threads, share in ((9, 0), (4, 1), (4, 0.5)):
        with pytest.raises(UserError, match=f"takes {threads} CPUs and {share} GPUs of one node, which none"):
            refuse(threads, share, GPUS)
    with pytest.raises(UserError, match="takes 1 CPUs and 1 GPUs"):
        refuse(1, 1, CPUS)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("127.0.0.1:1", "nobody listens there"),
        ("ray://127.0.0.1:1", "nobody listens there"),
        ("no.such.host.invalid:6379", "nobody listens there"),
        ("127.0.0.1:99999", "nobody listens there"),
        ("somewhere", "must be auto, or an address such as"),
        ("host:port", "must be auto, or an address such as"),
        ("", "must be auto, or an address such as"),
    ],
)
def test_an_address_where_nobody_listens_is_refused_at_once(address, told):
    with pytest.raises(UserError, match=f"--cluster {address}: {told}"):
        refuse_silent(address)


def plain(found) -> dict:
    """A comparison less what no two have in common."""
    content = json.loads(json.dumps(found.content()))
    for method in content["methods"].values():
        for key in ("train_seconds", "peak_memory_bytes"):
            method["budget"].pop(key)
    return content


@pytest.fixture(scope="module")
def ours(tiny_scenario, tiny_strategy):
    return Request(str(tiny_scenario), (str(tiny_strategy), "zeroshot"), seeds=(0, 1))


@pytest.fixture(scope="module")
def cluster():
    """One node with one CPU, which the tests add others to."""
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 * 2**20})
    ray.init(made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


@needs_ray
def test_the_same_table_from_processes_one_node_and_three_with_one_lost(ours, cluster, tmp_path):
    expected = plain(compare(ours, tmp_path / "processes", jobs=2))
    options = {"cluster": cluster.address, "threads": 1}
    said: list[str] = []
    assert plain(compare(ours, tmp_path / "one", tell=said.append, **options)) == expected
    assert "1 nodes, 1 CPUs, 0 GPUs, object store of 0.1 GB; a run takes 1 CPUs and 0 GPUs" in said[0]
    others = [cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20) for _ in range(2)]
    lost = []

    def lose(*told: object) -> None:
        if not lost:
            lost.append(others[0])
            cluster.remove_node(others[0], allow_graceful=False)

    found = compare(ours, tmp_path / "three", report=lose, **options)
    assert lost and plain(found) == expected
    assert not list((tmp_path / "three").glob(".shared-*"))


@needs_ray
def test_a_users_error_is_told_and_not_tried_again(ours, cluster, tmp_path):
    import dataclasses

    wild = dataclasses.replace(ours, strategies=ours.strategies[:1], seeds=(0,))
    wild = dataclasses.replace(wild, strategy_settings=("optimiser.lr=1e30",))
    told = []
    with pytest.raises(UserError, match="no method could be tested") as error:
        compare(wild, tmp_path, report=lambda *line: told.append(line), cluster="auto", threads=1)
    assert len(told) == 1 and "diverged" in error.value.messages[1]
    with pytest.raises(UserError, match="a run takes 64 CPUs and 0 GPUs of one node, which none has"):
        RayTasks(Placing(tmp_path, cluster="auto", threads=64), said := [].append)
    with pytest.raises(UserError, match="on a cluster Ray chooses the GPU"):
        RayTasks(Placing(tmp_path, device="cuda:1", cluster="auto"), said)
