"""Faults that really happen: damaged files, a full disk, numbers that are none, too little memory, many
tasks."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import weakref

import pytest
import torch

from builders.interruptions import Said
from builders.places import LONG
from builders.processes import Process, command_line, completed, ended, start
from builders.runs import deltas_of, without_timings
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.config import load_scenario, load_strategy
from cl_complora.errors import UserError
from cl_complora.finished.states import open_run
from cl_complora.progress import Quiet
from cl_complora.run.failures import told_of_memory
from cl_complora.run.stream import run
from cl_complora.store.deltas import load_delta
from cl_complora.store.folder import RunDir


def go(tiny_scenario, out, strategy="lora+ewc", settings=(), scenario=(), **options):
    quick = load_strategy(strategy, ["training.steps=3", "training.batch_size=4", *settings])
    return run(load_scenario(str(tiny_scenario), list(scenario)), quick, out=out, **options)


@pytest.fixture(scope="module")
def done(tmp_path_factory, tiny_scenario):
    """A finished run, for reading only."""
    return go(tiny_scenario, tmp_path_factory.mktemp("done"))


@pytest.fixture
def copied(tmp_path, done) -> RunDir:
    """That run below ``tmp_path / "runs"``, to be damaged."""
    out = done.folder.parents[2]
    return RunDir(shutil.copytree(out, tmp_path / "runs") / done.folder.relative_to(out))


def flip(path, place: float = 0.8) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(bytes(content))


# With the number of tasks that are gone on from. Of a state after the last task nobody needs anything
# (``test_resuming``).
@pytest.mark.parametrize(("which", "reused"), [("first delta", 0), ("last delta", 1), ("both states", 0)])
@pytest.mark.parametrize("how", ["flipped", "truncated", "gone"] if LONG else ["flipped"])
def test_a_damaged_file_of_a_run_is_named_and_its_task_learned_again(
    tmp_path, tiny_scenario, done, copied, which, reused, how
):
    folder = copied
    files = {
        "first delta": [folder.delta(0, "warm")],
        "last delta": [folder.delta(1, "cold")],
        "both states": sorted((folder.root / "state").glob("*.safe*")),
    }[which]
    assert files and all(file.exists() for file in files)
    for file in files:
        if how == "gone":
            file.unlink()
        elif how == "flipped":
            flip(file)
        else:
            file.write_bytes(file.read_bytes()[:-7])
    # As if it had been interrupted at its end, or, to need what the first task left, in the last task.
    folder.results.unlink()
    if which == "both states":
        folder.record(1, "cold").unlink()
    said = Said()
    again = go(tiny_scenario, tmp_path / "runs", progress=said)
    assert again.reused == reused and without_timings(again.results) == without_timings(done.results)
    told = [line for line in said.lines if "damaged" in line]
    if which == "both states":
        assert "damaged or gone" in told[0]
    elif how != "gone":
        assert str(files[0]) in told[0]


def test_a_digit_that_changed_in_a_record_is_found_and_its_task_learned_again(
    tmp_path, tiny_scenario, done, copied
):
    record = copied.record(1, "cold")
    content = json.loads(record.read_text())
    content["row"][0] = 0.123
    record.write_text(json.dumps(content))
    said = Said()
    again = go(tiny_scenario, tmp_path / "runs", progress=said)
    assert again.reused == 1 and without_timings(again.results) == without_timings(done.results)
    assert any(
        line.startswith(f"{record}: damaged") and "its checksum is another" in line for line in said.lines
    )


@pytest.mark.parametrize("how", ["changed", "truncated", "gone"])
def test_results_are_those_of_the_records(tmp_path, tiny_scenario, done, copied, how):
    results = copied.results
    if how == "changed":
        content = json.loads(results.read_text())
        content["last"] = 0.999
        results.write_text(json.dumps(content))
    elif how == "truncated":
        results.write_text(results.read_text()[:-100])
    else:
        results.unlink()
    said = Said()
    again = go(tiny_scenario, tmp_path / "runs", progress=said)
    assert again.reused == 2 and again.results == done.results
    assert json.loads(results.read_text()) == done.results
    assert any("written again from" in line for line in said.lines) == (how != "gone")


def test_a_flipped_bit_in_a_delta_is_told_by_every_command(copied):
    flip(copied.delta(0, "warm"))
    with pytest.raises(
        UserError, match=r"001-warm\.safetensors: damaged \(its content does not have the checksum"
    ):
        open_run(copied.root)


WRITTEN = [
    *("config.yaml", "deltas", "state/001-warm", "inside"),
    *("predictions", "tasks", "analysis", "results.json"),
]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS] if LONG else [errno.ENOSPC])
@pytest.mark.parametrize("file", WRITTEN)
def test_a_write_that_fails_leaves_the_run_as_it_was(tmp_path, tiny_scenario, monkeypatch, done, error, file):
    from cl_complora import files

    real, failed = os.replace, []

    def full(source, target):
        if file in str(target) and "zero-shot" not in str(target) and not failed:
            failed.append(target)
            raise OSError(error, os.strerror(error), str(target))
        return real(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match=os.strerror(error)):
        go(tiny_scenario, tmp_path / "parts", save_every=0.0)
    monkeypatch.undo()
    parts = go(tiny_scenario, tmp_path / "parts")
    assert failed and without_timings(parts.results) == without_timings(done.results)
    assert not list(parts.folder.rglob("*.tmp"))


def in_little_space(*words: str) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))
    command_line(*words)


def test_a_full_disk(tmp_path, tiny_scenario, tiny_strategy):
    """A limit on the size of files stands in for it: the command says so, exits with 1 and loses nothing."""
    words = ["run", str(tiny_scenario), "-s", str(tiny_strategy), "--out", str(tmp_path), "--no-analysis"]
    failed = completed(Process(in_little_space, *words))
    assert failed.returncode == 1 and "Traceback" not in failed.stderr
    assert failed.stderr.startswith("error: ") and "File too large" in failed.stderr
    assert ended(*words).returncode == 0


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, tiny_scenario):
    with pytest.raises(UserError) as told:
        go(
            tiny_scenario,
            tmp_path,
            "finetune",
            ["optimiser.lr=1e30", "optimiser.clip_norm=null", "training.steps=8"],
        )
    (message,) = told.value.messages
    assert (
        "task 'warm': training diverged: the loss is not a number at step" in message
        and "of 8, learning rate" in message
    )
    assert "the untouched model" in message and "training.on_nan: skip" in message
    folder = RunDir.of(tmp_path, "tiny", "finetune", 0)
    assert (
        json.loads(folder.results.read_text())["status"] == "running" and not folder.delta(0, "warm").exists()
    )
    assert not list(folder.root.glob("state/inside-*/*")), "a broken state was saved"


def test_a_decomposition_of_what_is_no_number_is_told_as_divergence(tmp_path, tiny_scenario):
    with pytest.raises(UserError, match="task 'warm': training diverged: a decomposition of what it led to"):
        go(tiny_scenario, tmp_path, "lora-pro", ["optimiser.lr=1e30"], evaluate=False)
    assert RunDir.of(tmp_path, "tiny", "lora-pro", 0).failure.exists()


def test_a_step_without_numbers_can_be_left_out(tmp_path, tiny_scenario, monkeypatch):
    real, calls = ClipClassifier.answers, []

    def broken(self, features, *rest):
        logits = real(self, features, *rest)
        if logits.requires_grad:
            calls.append(1)
            if len(calls) == 2:
                return logits * float("nan")
        return logits

    skip = ["training.on_nan=skip"]
    whole = go(tiny_scenario, tmp_path / "whole", "lora", evaluate=False)
    monkeypatch.setattr(ClipClassifier, "answers", broken)
    said = Said()
    left_out = go(tiny_scenario, tmp_path / "skip", "lora", skip, progress=said, evaluate=False)
    assert "1 step was left out: the loss or gradient was no number" in said.lines
    deltas = deltas_of(left_out.folder)
    assert all(bool(torch.isfinite(value).all()) for tensors in deltas.values() for value in tensors.values())
    monkeypatch.undo()
    same = go(tiny_scenario, tmp_path / "none", "lora", skip, evaluate=False)
    assert all(
        torch.equal(value, deltas_of(whole.folder)[file][key])
        for file, tensors in deltas_of(same.folder).items()
        for key, value in tensors.items()
    ), "looking at the numbers must not change them"


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), MemoryError()]
)
def test_too_little_memory_says_what_to_lower(tmp_path, tiny_scenario, monkeypatch, error):
    def refuse(self, features, *rest):
        if torch.is_grad_enabled():
            raise error
        return real(self, features, *rest)

    real = ClipClassifier.answers
    monkeypatch.setattr(ClipClassifier, "answers", refuse)
    with pytest.raises(
        UserError, match=r"does not suffice for a batch of 4; training.chunk: 1 gives the same result"
    ):
        go(tiny_scenario, tmp_path, "lora")
    # The settings are not at fault, and somebody may try them again with more.
    assert not RunDir.of(tmp_path, "tiny", "lora", 0).failure.exists()


@pytest.mark.parametrize(
    ("where", "told"),
    [("image_features", "measuring the untouched model: the memory of cpu"), ("to", "the model: the memory")],
)
def test_too_little_memory_outside_training_is_told_as_well(
    tmp_path, tiny_scenario, monkeypatch, where, told
):
    def refuse(self, *rest):
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)")

    monkeypatch.setattr(ClipClassifier, where, refuse)
    with pytest.raises(UserError, match=told):
        go(tiny_scenario, tmp_path, "lora")
    assert not RunDir.of(tmp_path, "tiny", "lora", 0).failure.exists()


def test_what_failed_for_want_of_memory_lets_go_of_its_tensors():
    held = []

    def fail():
        large = torch.zeros(10)
        held.append(weakref.ref(large))
        raise MemoryError

    with pytest.raises(UserError) as error, told_of_memory("trying", "cpu"):
        fail()
    assert error.value.__suppress_context__ and held[0]() is None


def test_other_errors_stay_what_they_are(tmp_path, tiny_scenario, monkeypatch):
    def refuse(self, images, *rest):
        raise RuntimeError("something else")

    monkeypatch.setattr(ClipClassifier, "head", refuse)
    with pytest.raises(RuntimeError, match="something else"):
        go(tiny_scenario, tmp_path, "lora")


def test_two_processes_on_one_run(tmp_path, tiny_scenario, tiny_strategy):
    """The second is told which process holds the run; the lock of a process that was killed is void."""
    words = ["run", tiny_scenario, "-s", tiny_strategy, "--out", tmp_path, "--no-analysis"]
    long = [*words, "--set", "training.steps=2000"]
    first = start(*long)
    folder = RunDir.of(tmp_path, "tiny", "quick", 0)
    first.wait_for(folder.results.exists)
    second = ended(*long)
    assert second.returncode == 2 and f"in use by process {first.pid}" in second.stderr
    first.kill()
    first.communicate()
    go_on = ended(*words, "--set", "training.steps=2", "--fresh")
    assert go_on.returncode == 0, go_on.stderr


TASKS = 200 if LONG else 8


def test_long_streams(tmp_path, tiny_scenario, class_folders):
    """Bytes a task and memory stay flat, and W_0 + Σ ΔW is the merged model."""
    source = f"{{kind: folder, root: {class_folders}}}"
    second = ("green", "blue")
    entries = [f"{{name: t{i}, source: {source}, classes: [red, {second[i % 2]}]}}" for i in range(TASKS)]
    strategy = load_strategy(
        "complora-plain", ["training.steps=2", "training.batch_size=4", "adapter.rank=2"]
    )
    resident = []

    class Watch(Quiet):
        def evaluated(self, index, row, zero_shot):
            with open("/proc/self/statm") as file:
                resident.append(int(file.read().split()[1]) * resource.getpagesize())

    scenario = load_scenario(
        str(tiny_scenario), [f"tasks=[{', '.join(entries)}]", "zero_shot=[]", "test_limit=4"]
    )
    done = run(scenario, strategy, out=tmp_path, progress=Watch(), analysis=False)
    sizes = [detail["stored_bytes"] for detail in done.results["tasks_detail"]]
    assert max(sizes) - min(sizes) < 0.05 * max(sizes)
    half = len(resident) // 2
    assert max(resident[half:]) - min(resident[half:]) < 60e6, "memory grows with the number of tasks"
    assert len(list((done.folder / "state").glob("*"))) <= 4
    state = open_run(done.folder)
    before = open_run(done.folder, after="0")
    weights = {name: value.double() for name, value in before.loaded.model.state_dict().items()}
    for index, name in enumerate(done.results["tasks"]):
        for parameter, rows, change in load_delta(RunDir(done.folder).delta(index, name)).updates():
            target = weights[parameter] if rows is None else weights[parameter][rows]
            target += change.double()
    for name, value in state.loaded.model.state_dict().items():
        torch.testing.assert_close(value.double(), weights[name], atol=1e-6, rtol=1e-6)
