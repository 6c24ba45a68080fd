"""eval --shards on a cluster: the answers of an evaluation without shards, and what is said where that cannot
be."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest
import torch

from builders import fake_ray
from builders.commands import cli
from cl_complora.errors import UserError
from cl_complora.finished import ray_shards
from cl_complora.finished.asked_sets import together
from cl_complora.finished.eval_request import EvalRequest, open_request
from cl_complora.finished.eval_shards import Shards, gather
from cl_complora.run import ray_cluster

THREADS = torch.get_num_threads()


@pytest.fixture
def request_(tiny_run):
    return EvalRequest(str(tiny_run.folder), True, device="cpu")


def on_cluster(request_, shards) -> None:
    def compute(missing):
        ray_shards.compute_on_cluster(missing, request_, shards, "auto", print)

    gather(request_, shards, print, compute=compute)


def test_without_the_extra_it_is_said_what_to_install(monkeypatch, capsys, tmp_path, tiny_run):
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ("eval", tiny_run.folder, "--shards", "2", "--cluster", "auto", "--shard-folder", tmp_path / "s")
    code, out, said = cli(monkeypatch, capsys, *words)
    assert code == 2 and not out and said.count("error:") == 1
    assert "pip install 'cl_complora[cluster]'" in said and "see --shard" in said
    assert not (tmp_path / "s").exists()


def test_the_same_answers_as_without_shards(monkeypatch, capsys, tmp_path, tiny_run, request_):
    words = ("eval", tiny_run.folder, "--device", "cpu", "--json")
    _, plain, _ = cli(monkeypatch, capsys, *words)
    ray = fake_ray.install(monkeypatch, [{"CPU": float(THREADS)}] * 3)
    sharded = (*words, "--shards", "3", "--shard-folder", tmp_path, "--cluster", "auto")
    code, out, said = cli(monkeypatch, capsys, *sharded)
    assert code == 0 and out == plain
    assert f"3 nodes, {3 * THREADS} CPUs, 0 GPUs" in said and f"a shard takes {THREADS} CPUs" in said
    assert len(ray.begun) == 3 and not ray.running
    assert all(task["num_cpus"] == THREADS and task["num_gpus"] == 0 for task in ray.begun)
    assert ray.begun[0]["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == str(THREADS)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".safetensors"] * 3
    opened = open_request(request_)
    found, whole = Shards.find(opened, 3, tmp_path), together(opened.answer(opened.parts()))
    read = together([part for number in (1, 2, 3) for part in found.read(number)])
    assert all(torch.equal(read[place][key], whole[place][key]) for place in whole for key in whole[place])
    # All of it is there: nobody asks a cluster.
    monkeypatch.setitem(sys.modules, "ray", None)
    code, out, said = cli(monkeypatch, capsys, *sharded)
    assert code == 0 and out == plain and "3 of 3 shards are there" in said


def test_a_gpu_of_the_cluster_is_taken_where_there_is_one(monkeypatch, tmp_path, request_):
    from dataclasses import replace

    devices = []
    monkeypatch.setattr(ray_shards, "compute_shard", recording := Recording(devices))
    ray = fake_ray.install(monkeypatch, [{"CPU": 64.0}, {"CPU": 64.0, "GPU": 2.0}])
    for device in ("auto", "cuda"):
        asked = replace(request_, device=device, precision="tf32")
        # This machine need not have what the nodes have.
        shards = Shards.find(open_request(asked, answered_here=False), 2, tmp_path)
        ray_shards.compute_on_cluster([2], asked, shards, "auto", print)
    assert [one["num_gpus"] for one in ray.begun] == [1.0, 1.0] and recording.told == ["cuda", "cuda"]
    with pytest.raises(UserError, match="on a cluster Ray chooses the GPU"):
        ray_shards.compute_on_cluster([1], replace(request_, device="cuda:1"), shards, "auto", print)


class Recording:
    """Stands in for ``compute_shard``: notes the device; pickled, it stays the same list."""

    told: list[str] = []

    def __init__(self, told: list[str]) -> None:
        type(self).told = told

    def __reduce__(self):
        return Recording, (self.told,)

    def __call__(self, request, number, of, folder, device) -> tuple[str, ...]:
        self.told.append(device)
        return ()


def test_what_no_node_can_compute_is_refused_before_anything_is(monkeypatch, tmp_path, request_):
    ray = fake_ray.install(monkeypatch, [{"CPU": 0.5}])
    shards = Shards.find(open_request(request_), 2, tmp_path / "shards")
    told = f"a shard takes {THREADS} CPUs and 0 GPUs of one node, which none has .*OMP_NUM_THREADS"
    with pytest.raises(UserError, match=told):
        on_cluster(request_, shards)
    assert not ray.begun and not ray.running and not (tmp_path / "shards").exists()


def test_a_users_error_is_told_and_not_tried_again(monkeypatch, tmp_path, request_):
    ray = fake_ray.install(monkeypatch, [{"CPU": 64.0}])
    shards = Shards.find(open_request(request_), 2, tmp_path / "shards")
    monkeypatch.setattr(ray_shards, "compute_shard", refused)
    with pytest.raises(UserError, match="no such thing") as told:
        on_cluster(request_, shards)
    assert told.value.messages == ("no such thing", "nor this") and not ray.running
    assert UserError not in ray.begun[0]["retry_exceptions"]
    assert not list((tmp_path / "shards").iterdir())


def refused(*asked: object) -> tuple[str, ...]:
    """Stands in for ``compute_shard``: a fault of the user's."""
    return "no such thing", "nor this"


def test_a_lost_shard_leaves_the_others(monkeypatch, tmp_path, request_):
    ray = fake_ray.install(monkeypatch, [{"CPU": 64.0}])
    ray.lose = lambda place: place == 1
    shards = Shards.find(open_request(request_), 3, tmp_path)
    with pytest.raises(UserError, match=r"shard 2/3 was lost with its node or process \(the node died\)"):
        on_cluster(request_, shards)
    assert len(list(tmp_path.iterdir())) == 2 and ray.begun[0]["max_retries"] == ray_cluster.RETRIES
    ray.lose = lambda place: False
    on_cluster(request_, shards)
    assert len(ray.begun) == 4


def test_a_node_that_does_not_share_the_folder_is_told(monkeypatch, tmp_path, request_):
    fake_ray.install(monkeypatch, [{"CPU": 64.0}])
    monkeypatch.setattr(ray_cluster, "SHOWN", 0.0)
    monkeypatch.setattr(ray_cluster.RayCluster, "__enter__", lambda self: self)  # writes no marker
    shards = Shards.find(open_request(request_), 2, tmp_path)
    with pytest.raises(UserError, match=f"does not show .* and --shard-folder {tmp_path} as the node"):
        on_cluster(request_, shards)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--cluster", "auto"), "--cluster: is for --shards"),
        (("--cluster", "auto", "--shard", "1/2"), "--cluster: is for --shards"),
        (("--cluster", "auto", "--curve", "warm"), "--cluster: is for --shards"),
    ],
)
def test_a_cluster_is_for_shards(tiny_run, words, told, monkeypatch, capsys):
    code, out, said = cli(monkeypatch, capsys, "eval", tiny_run.folder, *words)
    assert code == 2 and not out and told in " ".join(said.split())


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_on_one_node_of_ray_itself(monkeypatch, capsys, tmp_path, tiny_run):
    words = ("eval", tiny_run.folder, "--device", "cpu", "--json")
    _, plain, _ = cli(monkeypatch, capsys, *words)
    sharded = ("--shards", "2", "--shard-folder", tmp_path, "--cluster", "auto")
    code, out, said = cli(monkeypatch, capsys, *words, *sharded)
    assert code == 0 and json.loads(out) == json.loads(plain), said
