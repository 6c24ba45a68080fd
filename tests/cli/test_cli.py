"""The command line as a new user meets it."""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys

import pytest

from builders.processes import Process, command_line, ended


def cli(*arguments: str, cwd=None) -> subprocess.CompletedProcess:
    """The command as a shell starts it; :func:`ended` leaves out its imports."""
    command = [sys.executable, "-m", "cl_complora", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


def test_help_is_fast_and_names_the_commands():
    began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = cli("--help")
    # Seconds of the processor, not of the clock: other tests may be running beside this one.
    assert done.returncode == 0 and resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - began < 5
    for command in ("run", "check", "list"):
        assert command in done.stdout


def test_version():
    assert cli("--version").stdout.startswith("cl-complora 0.")


def test_a_run_prints_its_table_and_its_folder(tmp_path, tiny_scenario, tiny_strategy):
    words = ("run", tiny_scenario, "--strategy", tiny_strategy, "--no-analysis")
    done = ended(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in (
        "warm",
        "cold",
        "colours",
        "Transfer",
        "Average",
        "Last",
        "Forgetting",
        "BWT",
        "Retention",
        "(zero-shot)",
    ):
        assert word in done.stdout
    folder = tmp_path / "runs" / "tiny" / "quick" / "seed0"
    assert "runs/tiny/quick/seed0" in done.stdout and (folder / "results.json").exists()
    assert "Traceback" not in done.stderr and not done.stderr.strip()
    again = ended(*words, cwd=tmp_path)
    assert again.returncode == 0 and "found finished" in again.stdout


def test_settings_models_and_seeds_from_the_command_line(tmp_path, tiny_scenario, tiny_strategy, tiny_files):
    config, weights = tiny_files
    done = ended(
        "run", tiny_scenario, "-s", tiny_strategy, "--seed", 3, "--set", "training.steps=2",
        "--set", "shots=2", "--no-analysis",
        "--model-config", config, "--pretrained", weights, "--out", "here", "--device", "cpu", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "here" / "tiny" / "quick" / "seed3" / "results.json").read_text())
    assert results["seed"] == 3 and results["model"]["pretrained"] == "tiny_clip.safetensors"
    assert all(detail["steps"] == 2 and detail["shots"] == 2 for detail in results["tasks_detail"])


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (("run", "nowhere"), ("no scenario named 'nowhere'", "embedded")),
        (("run", "--strategy", "compl0ra"), ("no strategy named 'compl0ra'", "did you mean 'complora'")),
        (("run", "missing.yaml"), ("missing.yaml", "no such file")),
        (("run", "--device", "tpu"), ("--device tpu", "auto, cpu, cuda")),
        (("run", "--set", "optimiser.lr=-1"), ("optimiser.lr", "greater than 0")),
        (("run", "--set", "nonsense=1"), ("nonsense", "unknown key")),
        (("run", "--model", "ViT-Z-99"), ("ViT-Z-99", "not an open_clip model")),
        (("list", "planets"), ("planets", "scenarios, strategies, models, datasets")),
        (("check", "complora", "nowhere"), ("nowhere",)),
        (("run", "embedded", "--save-every", "nan"), ("--save-every nan", "at least 0")),
    ],
)
def test_mistakes_get_one_line_and_exit_code_two(tmp_path, arguments, fragments):
    done = ended(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    assert all(fragment in lines[0] for fragment in fragments), lines[0]
    assert not list(tmp_path.iterdir())


def test_a_strategy_that_does_not_fit_the_model_writes_nothing(tmp_path, tiny_scenario, tiny_strategy):
    done = ended("run", tiny_scenario, "-s", tiny_strategy, "--set", "adapter.layers=[17]", cwd=tmp_path)
    assert done.returncode == 2 and "layers=[17]: no tower has 17; blocks: text 2, vision 2" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["scenarios", "strategies", "datasets", "models"])
def test_lists(what):
    done = ended("list", what)
    assert done.returncode == 0 and len(done.stdout.splitlines()) >= 3
    assert {"scenarios": "embedded", "strategies": "complora", "datasets": "general", "models": "ViT-B-16"}[
        what
    ] in done.stdout


def test_check_tells_what_it_found(tiny_scenario, tiny_strategy):
    done = ended("check", tiny_scenario, tiny_strategy, "lora")
    assert done.returncode == 0 and done.stdout.count("is fine") == 3


def on_a_terminal(name: str, *words: str) -> None:
    for number in (1, 2):
        os.dup2(os.open(name, os.O_WRONLY | os.O_NOCTTY), number)
    command_line(*words)


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_on_a_terminal_it_draws_progress(tmp_path, tiny_scenario, tiny_strategy, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = os.openpty()
    words = ("run", str(tiny_scenario), "-s", str(tiny_strategy), "--out", str(tmp_path), "--no-analysis")
    process = Process(on_a_terminal, os.ttyname(theirs), *words)
    shown = b""
    while process.poll() is None:
        while select.select([ours], [], [], 0.05)[0]:
            shown += os.read(ours, 65536)
    assert process.poll() == 0 and b"\x1b[" in shown and b"Retention" in shown
    os.close(ours)
    os.close(theirs)
