"""compare --list: the missing runs as commands, after which compare only reads."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from builders.commands import cli
from builders.runs import STRATEGY


@pytest.fixture
def go(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("quick", "a slow"):
        text = STRATEGY.format(name=name) + "sweep: {optimiser.lr: [1e-3, 5e-3]}\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    return lambda *words: cli(monkeypatch, capsys, *words)


def test_the_lines_run_and_compare_only_reads(go, tmp_path, tiny_scenario):
    words = ["compare", tiny_scenario, "--strategies", "quick.yaml,a slow.yaml,zeroshot", "--seeds", "1"]
    words += ["--sweep-from", "strategy", "--validation-shots", "2", "--out", "my runs", "--device", "cpu"]
    words += ["--set", "training.steps=2"]
    told = []
    for stage, count in (("of the sweep", 4), ("when all are done, compare", 3)):
        code, out, said = go(*words, "--list")
        lines = out.splitlines()
        assert code == 0 and len(lines) == count and stage in said, said
        assert all(line.startswith("cl-complora run ") for line in lines)
        told += lines
        code, out, _ = go(*shlex.split(lines[0])[1:])
        assert code == 0
        assert go(*words, "--list")[1].splitlines() == lines[1:]
        for line in lines[1:]:
            assert go(*shlex.split(line)[1:])[0] == 0, line
    assert len(set(told)) == 7
    code, out, said = go(*words, "--list")
    assert code == 0 and out == "" and "nothing is missing" in said
    code, out, said = go(*words, "--jobs", "2")
    assert code == 0 and out.count("found finished") == 7, out + said
    folders = {path.relative_to(tmp_path / "my runs/tiny").parts[0] for path in tmp_path.rglob("seed1")}
    assert folders == {"quick", "a-slow", "zeroshot"}
    assert json.loads((tmp_path / "my runs/tiny/comparison.json").read_text())["methods"]["quick"]["curve"]


def test_what_failed_is_told_and_not_listed_again(go, tiny_scenario):
    words = ["compare", tiny_scenario, "--strategies", "quick.yaml", "--seeds", "0", "--device", "cpu"]
    words += ["--sweep", "lr=1e30,5e-3", "--validation-shots", "2"]
    wild, tame = go(*words, "--list")[1].splitlines()
    assert go(*shlex.split(wild)[1:])[0] == 2 and go(*shlex.split(tame)[1:])[0] == 0
    code, out, _ = go(*words, "--list")
    assert code == 0 and len(out.splitlines()) == 1 and "optimiser.lr=0.005" in out
    alone = [*words[:-4], "--sweep", "lr=1e30", *words[-2:]]
    code, out, said = go(*alone, "--list")
    assert code == 2 and not out and "no swept value could be trained" in said and "diverged" in said


def test_a_test_that_failed_is_told(go, tiny_scenario):
    words = ["compare", tiny_scenario, "--strategies", "quick.yaml", "--seeds", "0"]
    words += ["--set", "optimiser.lr=1e30", "--device", "cpu"]
    (line,) = go(*words, "--list")[1].splitlines()
    assert go(*shlex.split(line)[1:])[0] == 2
    code, out, said = go(*words, "--list")
    assert code == 0 and out == "" and "not listed: quick.yaml · seed 0: task 'warm'" in said


def test_runs_of_another_stream_are_refused_as_compare_refuses_them(go, tiny_scenario):
    words = ["compare", tiny_scenario, "--strategies", "quick.yaml", "--seeds", "0", "--device", "cpu"]
    words += ["--sweep-from", "strategy", "--validation-shots", "2", "--list"]
    listed = go(*words)[1].splitlines()
    for line in listed:
        assert go(*shlex.split(line)[1:])[0] == 0
    assert len(listed) == 2
    code, out, said = go(*words, "--set", "shots=2")
    assert code == 2 and out == "" and said.count("scenario.shots = 3, now it is 2; give another --out") == 2
    assert "error: runs/tiny/quick/validation/seed0: this run was" in said and "--fresh" not in said


def test_what_is_begun_of_another_stream_is_refused_too(go, tiny_scenario):
    words = [
        "compare",
        tiny_scenario,
        "--strategies",
        "zeroshot",
        "--seeds",
        "0",
        "--device",
        "cpu",
        "--list",
    ]
    (line,) = go(*words)[1].splitlines()
    assert go(*shlex.split(line)[1:])[0] == 0
    Path("runs/tiny/zeroshot/seed0/results.json").unlink()
    assert go(*words)[1].splitlines() == [line]
    code, out, said = go(*words, "--set", "shots=2")
    assert code == 2 and out == "" and "runs/tiny/zeroshot/seed0: this run was made with" in said


@pytest.mark.parametrize(
    "option", [("--jobs", "2"), ("--cluster", "auto"), ("--gpus-per-run", "1"), ("--threads", "1")]
)
def test_what_is_for_running_is_not_for_listing(go, tiny_scenario, option):
    code, out, said = go("compare", tiny_scenario, "-s", "zeroshot", "--list", *option)
    assert code == 2 and f"{option[0]}: is for running" in said and not out


def test_what_cannot_learn_the_stream_is_told_and_not_listed(go, tmp_path, tiny_scenario):
    unfit = (
        "name: unfit\nadapter: {kind: full}\noptimiser: {lr: 1e-4}\ntraining: {loss: ldam, classes: seen}\n"
    )
    (tmp_path / "unfit.yaml").write_text(f"{unfit}sweep: {{optimiser.lr: [1e-4, 2e-4]}}\n")
    words = ["compare", tiny_scenario, "--strategies", "zeroshot,unfit.yaml", "--seeds", "0", "--list"]
    words += ["--set", "protocol=class-incremental"]
    for swept in ([], ["--sweep-from", "strategy", "--validation-shots", "2"]):
        code, out, said = go(*words, *swept)
        assert code == 0 and out.count("cl-complora run") == 1 and "--strategy zeroshot" in out
        assert (
            "not listed: unfit.yaml · seed 0" in said and "unfit.yaml:4: strategy 'unfit': training." in said
        )


def test_what_a_run_refuses_is_not_in_the_line(go, tiny_scenario):
    words = ["compare", tiny_scenario, "--strategies", "quick.yaml", "--sweep-from", "strategy"]
    words += ["--set", "seeds=[1]", "--set", "strategy.sweep={optimiser.lr: [1e-3]}"]
    words += ["--set", "training.steps=1", "--validation-shots", "1"]
    (line,) = go(*words, "--list")[1].splitlines()
    assert go(*shlex.split(line)[1:])[0] == 0


def test_a_setting_that_stands_twice_is_once_in_the_line(go, tiny_scenario):
    words = ["compare", tiny_scenario, "--strategies", "quick.yaml", "--seeds", "0", "--sweep", "lr=2e-3"]
    words += ["--set", "validation_shots=2", "--set", "training.steps=1"]
    (line,) = go(*words, "--list")[1].splitlines()
    assert line.count("--set validation_shots") == 1
    assert go(*shlex.split(line)[1:])[0] == 0
