"""Going on inside a task: stopped at any step, by signal or by kill, a run ends with the same bits.

That it does so with every strategy stands in ``test_strategies``."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from builders.interruptions import Said, ask_after, same_bits
from builders.places import LONG
from builders.processes import ended, start
from builders.runs import without_timings
from cl_complora.config import load_scenario, load_strategy
from cl_complora.engine.checkpoint import CheckpointPlugin
from cl_complora.engine.constraints import Subspaces
from cl_complora.engine.updates.complora import CompLoRAPlugin
from cl_complora.lowrank import Side
from cl_complora.run.signals import Stopped
from cl_complora.run.stream import run
from cl_complora.store.folder import RunDir


def go(tiny_scenario, out, settings=(), **options):
    quick = load_strategy("lora", ["training.steps=6", "training.batch_size=4", *settings])
    return run(load_scenario(str(tiny_scenario)), quick, out=out, analysis=False, **options)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_scenario):
    return go(tiny_scenario, tmp_path_factory.mktemp("undisturbed"))


CONFINED = ["adapter.subspace={select: complement}"]


@pytest.fixture(scope="module")
def confined(tmp_path_factory, tiny_scenario):
    return go(tiny_scenario, tmp_path_factory.mktemp("confined"), CONFINED, evaluate=False)


def test_what_is_merged_is_the_average_of_a_schedule_free_optimiser(tmp_path, tiny_scenario, monkeypatch):
    modes = []
    real = CompLoRAPlugin.after_training_exp

    def noted(self, strategy, **kwargs):
        modes.append({group["train_mode"] for group in strategy.optimizer.param_groups})
        return real(self, strategy, **kwargs)

    monkeypatch.setattr(CompLoRAPlugin, "after_training_exp", noted)
    go(tiny_scenario, tmp_path, ["optimiser.name=schedule-free"], evaluate=False)
    assert modes == [{False}, {False}]


RATES = "optimiser.rates={vision: 5e-3, tokens: 1e-2}"


# Each optimiser in one of the precisions: what a precision keeps (the scale of fp16) lies beside its state.
# In short without Adam, whose state is AdamW's (``test_optimisers`` goes on with both).
@pytest.mark.parametrize(
    ("precision", "optimiser"),
    [
        ("bf16", ("sgd",)),
        *([("fp16", ("adam",))] if LONG else []),
        ("fp16", ("adamw", "optimiser.relative=true", RATES)),
        ("bf16", ("muon", RATES)),
        ("fp16", ("prodigy", "optimiser.rates={vision: 50, tokens: 1}", "optimiser.lr=100")),
        ("bf16", ("schedule-free", RATES, "optimiser.clip_norm=1e-2")),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_every_optimiser_and_precision_too(tmp_path, tiny_scenario, monkeypatch, optimiser, precision):
    name, *more = optimiser
    settings = [f"optimiser.name={name}", f"training.precision={precision}", "adapter.dropout=0.2"]
    settings += ["adapter.whole=[tokens]", *more] if more else []
    whole = go(tiny_scenario, tmp_path / "whole", settings, evaluate=False)
    for steps in (2, 3):
        ask_after(monkeypatch, steps)
        with pytest.raises(Stopped):
            go(tiny_scenario, tmp_path / "parts", settings, evaluate=False)
        monkeypatch.undo()
    parts = go(tiny_scenario, tmp_path / "parts", settings, evaluate=False)
    assert same_bits(parts.folder, whole.folder)


def test_stopped_after_the_last_step(undisturbed, tmp_path, tiny_scenario, monkeypatch):
    ask_after(monkeypatch, 6)
    with pytest.raises(Stopped):
        go(tiny_scenario, tmp_path / "parts")
    monkeypatch.undo()
    parts = go(tiny_scenario, tmp_path / "parts")
    assert without_timings(parts.results) == without_timings(undisturbed.results)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "pickle", "pipe"])
def test_a_damaged_state_is_named_and_the_one_before_is_used(
    undisturbed, tmp_path, tiny_scenario, monkeypatch, damage
):
    ask_after(monkeypatch, 4)
    with pytest.raises(Stopped):
        go(tiny_scenario, tmp_path / "parts", save_every=0.0)
    monkeypatch.undo()
    folder = RunDir.of(tmp_path / "parts", "tiny", "lora", 0)
    kept = sorted(folder.checkpoint(0, "warm").iterdir())
    assert len(kept) == 2 and kept[-1].name.startswith("00000004-")
    content = kept[-1].read_bytes()
    middle = len(content) // 2
    if damage == "pipe":  # reading it would wait for whoever writes
        kept[-1].unlink()
        os.mkfifo(kept[-1])
    else:
        damaged = {
            "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "truncated": content[:middle],
            "empty": b"",
            "pickle": b"\x80\x04cos\nsystem\n(S'touch hacked'\ntR.",
        }
        kept[-1].write_bytes(damaged[damage])
    said = Said()
    parts = go(tiny_scenario, tmp_path / "parts", progress=said)
    assert any("damaged, and passed over" in line and kept[-1].name in line for line in said.lines)
    assert same_bits(parts.folder, undisturbed.folder)


@pytest.mark.parametrize("turned", [False, True])
def test_a_state_in_other_directions_is_not_gone_on_from(
    confined, tmp_path, tiny_scenario, monkeypatch, turned
):
    """A machine that finds a basis mirrored would read the coordinates of a state wrongly."""
    ask_after(monkeypatch, 4)
    with pytest.raises(Stopped):
        go(tiny_scenario, tmp_path / "parts", CONFINED, evaluate=False)
    monkeypatch.undo()
    real = Subspaces._sides_of

    def mirrored(self, slot, task):
        output, input = real(self, slot, task)
        sign = torch.ones(input.basis.shape[1])
        sign[1] = -1.0
        return output, Side(input.basis * sign)

    if turned:
        monkeypatch.setattr(Subspaces, "_sides_of", mirrored)
    said = Said()
    parts = go(tiny_scenario, tmp_path / "parts", CONFINED, progress=said, evaluate=False)
    assert any("the task begins again" in line for line in said.lines) == turned
    assert same_bits(parts.folder, confined.folder) != turned
    if turned:
        begun_so = go(tiny_scenario, tmp_path / "turned", CONFINED, evaluate=False)
        assert same_bits(parts.folder, begun_so.folder)


def test_a_state_of_a_version_that_did_not_look_at_directions_is_gone_on_from(
    undisturbed, tmp_path, tiny_scenario, monkeypatch
):
    real = CheckpointPlugin._state

    def without(self, strategy):
        return {key: value for key, value in real(self, strategy).items() if key != "frame"}

    monkeypatch.setattr(CheckpointPlugin, "_state", without)
    ask_after(monkeypatch, 4)
    with pytest.raises(Stopped):
        go(tiny_scenario, tmp_path)
    monkeypatch.undo()
    said = Said()
    parts = go(tiny_scenario, tmp_path, progress=said)
    assert "going on inside the task" in said.lines and same_bits(parts.folder, undisturbed.folder)
    assert not any("begins again" in line for line in said.lines)


def test_states_are_few_and_written_now_and_then(tmp_path, tiny_scenario, monkeypatch):
    ask_after(monkeypatch, 5)
    with pytest.raises(Stopped):
        go(tiny_scenario, tmp_path, save_every=3600.0)
    folder = RunDir.of(tmp_path, "tiny", "lora", 0)
    assert [path.name[:8] for path in folder.checkpoint(0, "warm").iterdir()] == ["00000005"]
    (state,) = [load_file(path) for path in folder.checkpoint(0, "warm").iterdir()]
    assert int(state["part/batches/done"]) == 5 and float(state["seconds"]) > 0


def command(tiny_scenario, tiny_strategy, out, steps: int = 400):
    words = ["run", tiny_scenario, "-s", tiny_strategy, "--out", out]
    # In short without what ``test_resumed_analysis`` is about.
    words += [] if LONG else ["--no-analysis"]
    return [*words, "--set", f"training.steps={steps}", "--save-every", "0.01"]


@pytest.mark.parametrize(
    "number, fresh, same",
    [
        (signal.SIGTERM, [], "the same command"),
        (signal.SIGINT, [], "the same command"),
        (signal.SIGINT, ["--fresh"], "the same command without --fresh"),
    ],
)
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(
    tmp_path, tiny_scenario, tiny_strategy, number, fresh, same
):
    process = start(*command(tiny_scenario, tiny_strategy, tmp_path), *fresh)
    folder = RunDir.of(tmp_path, "tiny", "quick", 0)
    process.wait_for(lambda: any(folder.checkpoint(0, "warm").glob("*")))
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == 128 + number
    assert err.strip().splitlines()[-1] == f"interrupted; {same} goes on where this one stopped"
    assert "Traceback" not in err and list(folder.checkpoint(0, "warm").iterdir())


# So many kills, of runs of so many steps a task.
KILLS, STEPS = (50, 400) if LONG else (2, 40)


def names_below(root: Path) -> set[str]:
    """Names of all files and folders; ``rglob`` fails at a folder that the run takes away meanwhile."""
    return {name for _, folders, files in os.walk(root) for name in (*folders, *files)}


def killed_until_done(words: list, root: Path, rng: random.Random, most: int) -> int:
    """Go on with a run until it ends, killing it up to ``most`` times whenever it wrote something; how
    often."""
    kills = 0
    while True:
        before = names_below(root)
        process = start(*words)
        end = time.monotonic() + 120
        # Killed while it works, not while it begins: after something new was written, and a moment more.
        while kills < most and process.poll() is None and time.monotonic() < end:
            if names_below(root) - before:
                time.sleep(rng.uniform(0, 0.4))
                process.kill()
                break
            time.sleep(0.005)
        _, err = process.communicate()
        if process.returncode == 0:
            return kills
        assert process.returncode == -signal.SIGKILL, err
        kills += 1


def test_killed_at_random_moments(tmp_path, tiny_scenario, tiny_strategy):
    """SIGKILL whenever it comes, writes of states and records included; every run ends like an undisturbed
    one."""
    done = ended(*command(tiny_scenario, tiny_strategy, tmp_path / "whole", STEPS))
    assert done.returncode == 0, done.stderr
    whole = RunDir.of(tmp_path / "whole", "tiny", "quick", 0)
    rng, kills, runs = random.Random(0), 0, 0
    while kills < KILLS:
        assert runs <= KILLS, "runs end before they are killed"
        out = tmp_path / f"parts{runs}"
        folder = RunDir.of(out, "tiny", "quick", 0)
        kills += killed_until_done(
            command(tiny_scenario, tiny_strategy, out, STEPS), folder.root, rng, KILLS - kills
        )
        runs += 1
        assert without_timings(folder.read_json(folder.results)) == without_timings(
            whole.read_json(whole.results)
        )
        assert same_bits(folder.root, whole.root)
        assert not list(folder.root.rglob("*.tmp"))
    print(f"{kills} kills in {runs} runs")
