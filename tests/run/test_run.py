"""A run from YAML to results.json: the numbers, the resume, and that looking at a run does not change it."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from builders.images import paint
from builders.interruptions import Said, Stop, StopAfter
from builders.places import LONG
from builders.processes import Process, completed
from builders.runs import STRATEGY, deltas_of, on_own_pictures, without_timings
from cl_complora import metrics
from cl_complora.config import load_scenario, load_strategy
from cl_complora.delta import TaskDelta
from cl_complora.errors import UserError
from cl_complora.run.stream import run
from cl_complora.store.deltas import load_delta
from cl_complora.store.folder import RunDir
from cl_complora.subspace import Keep, principal


def go(scenario, strategy, out, **options):
    return run(load_scenario(str(scenario)), load_strategy(str(strategy)), out=out, **options)


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(
        a[name].keys() == b[name].keys() and all(torch.equal(a[name][k], b[name][k]) for k in a[name])
        for name in a
    )


def test_results_follow_the_interface(tiny_run):
    results = json.loads((tiny_run.folder / "results.json").read_text())
    assert without_timings(results) == without_timings(tiny_run.results)
    assert results["schema"] == 1 and results["status"] == "done" and results["seed"] == 0
    assert results["scenario"] == "tiny" and results["strategy"] == "quick"
    assert results["tasks"] == ["warm", "cold"] and results["zero_shot_sets"] == ["colours"]
    assert np.shape(results["accuracy"]) == (3, 2) and len(results["zero_shot"]["colours"]) == 3
    assert all(0 <= value <= 1 for row in results["accuracy"] for value in row)
    for key, value in metrics.summarize(results["accuracy"]).items():
        assert results[key] == pytest.approx(value)
    before, *_, after = results["zero_shot"]["colours"]
    assert results["retention"] == {"colours": pytest.approx(100 * (after - before))}
    assert results["model"]["name"] == "tiny_clip" and len(results["model"]["sha256"]) == 64
    for detail, classes in zip(results["tasks_detail"], (2, 2), strict=True):
        assert detail["classes"] == classes and detail["shots"] == 3 and detail["steps"] == 4
        assert detail["train_images"] == 3 * classes and detail["test_images"] == 6 * classes
        assert detail["delta_norm"] > 0 and detail["protected_overlap"] <= 1e-5
        assert detail["trainable_parameters"] > 0 and len(detail["split_sha256"]) == 64
    assert {"python", "torch", "open_clip_torch", "avalanche-lib", "cl_complora"} <= set(results["software"])


def test_protection_recomputed_from_the_stored_deltas_of(tiny_run, tiny_files):
    weights = load_file(tiny_files[1])
    for file in sorted((tiny_run.folder / "deltas").iterdir()):
        delta = TaskDelta.from_tensors(load_file(file))
        assert delta.factors and not delta.dense
        for key, (b, a) in delta.factors.items():
            name, _, rows = key.rpartition("[")
            start, stop = (int(v) for v in rows.rstrip("]").split(":"))
            w = weights[name][start:stop]
            split = principal(w, Keep("energy", 0.5), room=2)
            error = torch.linalg.matrix_norm((w + b @ a) @ split.v_k - split.u_k * split.sigma[: split.k])
            assert float(error) <= 1e-5 * float(torch.linalg.matrix_norm(w))
        delta.add_to(weights)


def test_the_same_seed_twice_gives_the_same_results(tiny_run, tmp_path, tiny_scenario, tiny_strategy):
    again = go(tiny_scenario, tiny_strategy, tmp_path)
    assert without_timings(again.results) == without_timings(tiny_run.results)
    assert same(deltas_of(again.folder), deltas_of(tiny_run.folder))
    other = go(tiny_scenario, tiny_strategy, tmp_path, seed=1)
    assert not same(deltas_of(other.folder), deltas_of(tiny_run.folder))


def test_evaluation_changes_no_weight(tiny_run, tmp_path, tiny_scenario, tiny_strategy):
    blind = go(tiny_scenario, tiny_strategy, tmp_path, evaluate=False)
    assert same(deltas_of(blind.folder), deltas_of(tiny_run.folder))
    assert blind.results["last"] is None


def test_nothing_global_shifts_a_run(tiny_run, tmp_path, tiny_scenario, tiny_strategy):
    torch.manual_seed(12345)
    np.random.seed(5)
    torch.rand(17)
    assert same(deltas_of(go(tiny_scenario, tiny_strategy, tmp_path).folder), deltas_of(tiny_run.folder))


def test_a_finished_run_is_read_not_repeated(tiny_run, tiny_scenario, tiny_strategy):
    before = {path: path.stat().st_mtime_ns for path in tiny_run.folder.rglob("*") if path.is_file()}
    again = go(tiny_scenario, tiny_strategy, tiny_run.folder.parents[2])
    assert again.reused == 2 and without_timings(again.results) == without_timings(tiny_run.results)
    changed = {p.name for p, t in before.items() if p.stat().st_mtime_ns != t}
    assert not changed


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_an_interrupted_run_ends_with_the_same_bits(tiny_run, tmp_path, tiny_scenario, tiny_strategy, rows):
    with pytest.raises(Stop):
        go(tiny_scenario, tiny_strategy, tmp_path, progress=StopAfter(rows))
    resumed = go(tiny_scenario, tiny_strategy, tmp_path)
    # What is told has been recorded: the stop loses nothing.
    assert resumed.reused == rows
    assert without_timings(resumed.results) == without_timings(tiny_run.results)
    assert same(deltas_of(resumed.folder), deltas_of(tiny_run.folder))


def killed_at_a_write(scenario: str, strategy: str, out: Path, file: str, at: int, threads: int) -> None:
    torch.set_num_threads(threads)
    writes, real = 0, os.replace

    def replace(source, target):
        nonlocal writes
        writes += file in str(target)
        if writes == at:
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)

    os.replace = replace
    go(scenario, strategy, out)


@pytest.fixture(scope="module")
def ewc_strategy(tmp_path_factory):
    """Comp-LoRA with EWC and replay: a run with every kind of state."""
    path = tmp_path_factory.mktemp("ewc") / "heavy.yaml"
    path.write_text(
        STRATEGY.format(name="heavy") + "regularisers: [{kind: ewc, strength: 10, samples: 4}]\n"
        "memory: {kind: replay, per_class: 1, batch_size: 4}\n"
    )
    return path


@pytest.fixture(scope="module")
def with_every_state(tmp_path_factory, tiny_scenario, ewc_strategy):
    return go(tiny_scenario, ewc_strategy, tmp_path_factory.mktemp("every-state"))


# results.json: once after the untouched model and after each task, and at the end. In short, the other writes
# fail in ``test_faults`` instead, which leaves the same files but for the one that was being written.
@pytest.mark.parametrize(
    "file, at",
    [
        ("deltas/001-warm", 1),
        ("results.json", 4),
        *(
            [("config.yaml", 1), ("state/001-warm", 1), ("tasks/001-warm", 1), ("tasks/002-cold", 1)]
            if LONG
            else []
        ),
    ],
)
def test_killed_at_any_write_a_run_ends_with_the_same_bits(
    tmp_path, tiny_scenario, ewc_strategy, with_every_state, file, at
):
    whole = with_every_state
    what = (str(tiny_scenario), str(ewc_strategy), tmp_path / "cut", file, at, torch.get_num_threads())
    done = completed(Process(killed_at_a_write, *what))
    assert done.returncode == -signal.SIGKILL, done.stderr
    resumed = go(tiny_scenario, ewc_strategy, tmp_path / "cut")
    assert without_timings(resumed.results) == without_timings(whole.results)
    assert resumed.results["status"] == "done" and same(deltas_of(resumed.folder), deltas_of(whole.folder))
    assert not list(resumed.folder.rglob("*.tmp"))


def test_a_resumed_run_repeats_the_decompositions_of_the_interrupted_one(
    tmp_path, class_folders, tiny_scenario, tiny_files
):
    """Three tasks, so that some bases are older than the last task and some are not."""
    source = yaml.safe_load(tiny_scenario.read_text())
    source["tasks"].append(
        {"name": "more", "source": source["tasks"][0]["source"], "classes": ["red", "blue"]}
    )
    path = tmp_path / "three.yaml"
    path.write_text(yaml.safe_dump(source))
    quick = tmp_path / "quick.yaml"
    quick.write_text(
        STRATEGY.format(name="quick").replace("5e-3", "0.05").replace("energy: 0.5", "energy: 0.9")
    )
    whole = go(path, quick, tmp_path / "whole", evaluate=False)
    record = json.loads(next((whole.folder / "tasks").glob("002-*")).read_text())
    assert len(set(record["adapter_state"]["decomposed_at"].values())) > 1
    with pytest.raises(Stop):
        go(path, quick, tmp_path / "cut", progress=StopAfter(2), evaluate=False)
    resumed = go(path, quick, tmp_path / "cut", evaluate=False)
    assert resumed.reused == 2 and same(deltas_of(resumed.folder), deltas_of(whole.folder))
    again = json.loads(next((resumed.folder / "tasks").glob("003-*")).read_text())
    assert (
        again["adapter_state"]
        == json.loads(next((whole.folder / "tasks").glob("003-*")).read_text())["adapter_state"]
    )


def test_a_blind_run_can_be_interrupted_and_is_not_taken_for_a_measured_one(
    tmp_path, tiny_scenario, tiny_strategy
):
    with pytest.raises(Stop):
        go(tiny_scenario, tiny_strategy, tmp_path, progress=StopAfter(1), evaluate=False)
    blind = go(tiny_scenario, tiny_strategy, tmp_path, evaluate=False)
    assert blind.reused == 1 and blind.results["last"] is None
    with pytest.raises(UserError, match="evaluate = false"):
        go(tiny_scenario, tiny_strategy, tmp_path)


def test_training_that_diverges_is_told(tmp_path, tiny_scenario, tiny_strategy):
    wild = load_strategy(str(tiny_strategy), ["optimiser.lr=1.0e30"])
    with pytest.raises(UserError, match="task 'warm': training diverged.*lower optimiser.lr"):
        run(load_scenario(str(tiny_scenario)), wild, out=tmp_path)


def test_exchanged_pictures_are_noticed(tmp_path, class_folders, tiny_scenario, tiny_strategy):
    path, copy = on_own_pictures(tiny_scenario, class_folders, tmp_path)
    go(path, tiny_strategy, tmp_path / "runs")
    for file in copy.rglob("*.png"):
        paint(file, (1, 2, 3), 0, size=20)
    with pytest.raises(UserError, match="the pictures of 'warm', .*, or their division, are others"):
        go(path, tiny_strategy, tmp_path / "runs")


def test_changed_settings_are_told_not_mixed(tiny_run, tmp_path, tiny_scenario, tiny_strategy):
    copy = tmp_path / "runs"
    shutil.copytree(tiny_run.folder.parents[2], copy)
    changed = load_strategy(str(tiny_strategy), ["optimiser.lr=0.001"])
    with pytest.raises(UserError, match=r"strategy\.optimiser\.lr = 0\.005, now it is 0\.001.*--fresh"):
        run(load_scenario(str(tiny_scenario)), changed, out=copy)
    fresh = run(load_scenario(str(tiny_scenario)), changed, out=copy, fresh=True)
    assert fresh.reused == 0
    kept = [path for path in fresh.folder.parent.iterdir() if path != fresh.folder and path.is_dir()]
    assert len(kept) == 1 and (kept[0] / "results.json").exists()


@pytest.mark.parametrize("protocol", ["task-incremental", "class-incremental"])
def test_one_task_more_is_another_stream_and_no_damage(
    tiny_run, tmp_path, tiny_scenario, tiny_strategy, class_folders, protocol
):
    text = tiny_scenario.read_text().replace("task-incremental", protocol)
    (tmp_path / "short.yaml").write_text(text)
    if protocol == "task-incremental":
        shutil.copytree(tiny_run.folder.parents[2], tmp_path, dirs_exist_ok=True)
    made = go(tmp_path / "short.yaml", tiny_strategy, tmp_path)
    more = f"  - name: more\n    source: {{kind: folder, root: {class_folders}}}\n    classes: [red, blue]\n"
    (tmp_path / "long.yaml").write_text(text.replace("zero_shot:\n", f"{more}zero_shot:\n"))
    before, said = files_of(made.folder), Said()
    with pytest.raises(UserError, match="this run was made with") as refused:
        go(tmp_path / "long.yaml", tiny_strategy, tmp_path, progress=said)
    assert not any("damaged" in line or "going on" in line for line in (*said.lines, *refused.value.messages))
    assert files_of(made.folder) == before
    long = go(tmp_path / "long.yaml", tiny_strategy, tmp_path, variant="longer", evaluate=False)
    assert long.reused == 0 and len(long.results["tasks"]) == 3


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def lock(folder: Path) -> None:
    with RunDir(folder).locked():
        pass


def test_two_processes_do_not_share_a_run(tiny_run, tiny_scenario, tiny_strategy):
    with RunDir(tiny_run.folder).locked():
        done = completed(Process(lock, tiny_run.folder))
    assert done.returncode == 1 and "in use by process" in done.stderr


def test_the_resolved_config_is_stored(tiny_run):
    config = yaml.safe_load((tiny_run.folder / "config.yaml").read_text())
    assert (
        config["strategy"]["optimiser"]["lr"] == 5e-3 and config["strategy"]["schedule"]["name"] == "cosine"
    )
    assert set(config["splits"]) == {"warm", "cold", "colours", "_reference"}
    rows = [json.loads(line) for line in (tiny_run.folder / "splits" / "warm.jsonl").read_text().splitlines()]
    assert {row["split"] for row in rows} == {"train", "test"} and rows[0]["class"] == "red"


def test_tensorboard_has_the_task_index_on_its_axis(tiny_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tiny_run.folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    results = tiny_run.results
    for column, task in enumerate(results["tasks"]):
        points = [(e.step, e.value) for e in events.Scalars(f"accuracy/{column + 1}_{task}")]
        assert points == [(i, pytest.approx(row[column])) for i, row in enumerate(results["accuracy"])]
    assert [e.step for e in events.Scalars("stream/last")] == [1, 2]
    assert events.Scalars("stream/transfer")[-1].value == pytest.approx(results["transfer"])
    assert events.Scalars("forgetting/1_warm")[-1].value == pytest.approx(
        metrics.forgetting(results["accuracy"])[0]
    )
    assert events.Scalars("retention/colours")[-1].value == pytest.approx(
        results["retention"]["colours"], abs=1e-4
    )
    assert [e.step for e in events.Scalars("train/loss")] == list(range(1, 9))


def test_validation_shots_can_be_measured_instead_of_test_images(
    tmp_path, tiny_scenario, tiny_strategy, monkeypatch
):
    """Choosing hyper-parameters must not see a test label: changing all of them changes nothing that was
    measured."""
    from cl_complora.data import tasks as stream

    settings = ["validation_shots=2", "measure=validation"]

    def measured(out):
        return run(
            load_scenario(str(tiny_scenario), settings), load_strategy(str(tiny_strategy)), out=out
        ).results["accuracy"]

    honest, load = measured(tmp_path / "a"), stream.load

    def wrong_labels(*arguments, **options):
        data = load(*arguments, **options)
        for task in data.tasks:
            task.test.labels.fill_(0)
        return data

    monkeypatch.setattr(stream, "load", wrong_labels)
    assert measured(tmp_path / "b") == honest


@pytest.fixture(scope="module")
def update_in(tmp_path_factory, tiny_scenario):
    """(precision, method) → the update of the first task, trained once."""

    @functools.cache
    def update(precision: str, method: str) -> TaskDelta:
        settings = ["training.steps=5", f"training.precision={precision}"]
        settings += ["adapter.rank=2"] if method == "lora" else []
        scenario, strategy = load_scenario(str(tiny_scenario)), load_strategy(method, settings)
        done = run(scenario, strategy, out=tmp_path_factory.mktemp(precision), evaluate=False)
        return load_delta(RunDir(done.folder).delta(0, "warm"))

    return update


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("method", ["lora", "finetune"])
def test_lower_precision_trains_nearly_the_same_weights(precision, method, update_in):
    updates = {kind: update_in(kind, method) for kind in ("fp32", precision)}
    for update in updates.values():
        tensors = update.tensors().values()
        assert all(
            t.dtype == torch.float32 and torch.isfinite(t).all() for t in tensors if t.is_floating_point()
        )
    full, low = (
        {(k, str(rows)): d for k, rows, d in updates[kind].updates()} for kind in ("fp32", precision)
    )
    inner = sum(float((full[k] * low[k]).sum()) for k in full)
    assert inner / (updates["fp32"].norm() * updates[precision].norm()) > 0.9
    assert any(not torch.equal(full[k], low[k]) for k in full)


def test_what_is_told_of_a_strategy_is_called_a_note(tmp_path, tiny_scenario, tiny_strategy):
    said = Said()
    strategy = load_strategy(str(tiny_strategy), ["adapter.rank=300", "training.steps=1"])
    quick = {"evaluate": False, "analysis": False}
    run(load_scenario(str(tiny_scenario)), strategy, out=tmp_path, progress=said, **quick)
    assert any(line.startswith("note: strategy 'quick': adapter.rank: 300 is more") for line in said.lines)


def test_settings_of_growing_label_spaces_are_told_to_be_idle_elsewhere(tmp_path, tiny_scenario):
    quick = {"evaluate": False, "analysis": False}
    for protocol in ("task-incremental", "class-incremental"):
        said = Said()
        scenario = load_scenario(str(tiny_scenario), [f"protocol={protocol}"])
        strategy = load_strategy("complora", ["training.classes=seen", "head.drift=1.0", "training.steps=1"])
        run(scenario, strategy, out=tmp_path / protocol, progress=said, **quick)
        idle = [line.partition(" has no effect on a ")[0] for line in said.lines if "no effect" in line]
        told = ["note: training.classes: seen", "note: head.drift"]
        assert idle == (told if protocol == "task-incremental" else [])
