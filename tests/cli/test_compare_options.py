"""compare refuses what would have no effect, or would fail once hours of runs are done, before it runs
anything."""

from __future__ import annotations

import errno
import json

import pytest

from builders.commands import cli
from builders.runs import STRATEGY
from cl_complora.compare import publishing
from cl_complora.files import slug


@pytest.fixture
def go(monkeypatch, capsys, tmp_path, tiny_scenario):
    monkeypatch.chdir(tmp_path)
    return lambda *words: cli(monkeypatch, capsys, "compare", tiny_scenario, *words)


@pytest.mark.parametrize(
    "given",
    [
        ("--metric", "average"),
        ("--metric", "last"),
        ("--floor", "0"),
        ("--floor", "-3", "--publish", "results"),
        ("--validation-shots", "4"),
        ("--sweep-seeds", "5", "--list"),
    ],
)
def test_what_a_sweep_is_chosen_by_is_for_a_sweep(go, tmp_path, given):
    code, out, said = go("-s", "zeroshot", *given)
    assert (code, said) == (2, f"error: {given[0]}: is for --sweep or --sweep-from\n") and not out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("more", [(), ("--list",)])
def test_a_floor_is_no_gain(go, tmp_path, more):
    code, out, said = go("-s", "lora", "--sweep", "lr=1e-3,5e-3", "--floor", "10", *more)
    told = "error: --floor 10: must be at most 0; -10 is a loss of at most 10 points\n"
    assert (code, said) == (2, told) and not out and not list(tmp_path.iterdir())


def test_each_that_is_for_a_sweep_is_named(go, tmp_path):
    code, _, said = go("-s", "zeroshot", "--floor", "-3", "--validation-shots", "4")
    assert code == 2 and [line.split(": ")[1] for line in said.splitlines()] == [
        "--floor",
        "--validation-shots",
    ]
    assert not list(tmp_path.iterdir())


def test_a_metric_is_published_of_a_method_that_is_not_swept(go, tmp_path):
    code, out, said = go("-s", "zeroshot", "--seeds", "0", "--metric", "harmonic", "--publish", "results")
    assert code == 0, out + said
    entry = json.loads((tmp_path / "results" / "tiny" / "zeroshot.json").read_text())
    assert entry["asked"]["metric"] == "harmonic" and entry["asked"]["validation_shots"] == 4


def test_a_sweep_that_no_strategy_declares_is_told_as_such(go):
    code, _, said = go("-s", "zeroshot", "--sweep-from", "strategy", "--metric", "average", "--floor", "-3")
    assert code == 2 and "none of zeroshot declares a sweep" in said


@pytest.mark.parametrize("floor", ["nan", "inf", "-inf"])
def test_a_floor_is_finite(go, tmp_path, floor):
    code, _, said = go("-s", "lora", "--sweep", "lr=1e-3", f"--floor={floor}")
    assert (code, said) == (2, f"error: --floor {floor}: must be a finite number\n")
    assert not list(tmp_path.iterdir())


def test_strategies_that_would_share_a_folder_are_refused(go, tmp_path):
    for file, name in (("one", "my lora"), ("other", "my-lora"), ("third", "my_lora")):
        (tmp_path / f"{file}.yaml").write_text(STRATEGY.format(name=name))
    code, _, said = go("-s", "one.yaml,third.yaml,other.yaml", "--list")
    assert code == 2 and "'my lora' and 'my-lora' would share the folder 'my-lora'" in said
    code, out, said = go("-s", "one.yaml,third.yaml", "--list", "--seeds", "0")
    assert code == 0 and len(out.splitlines()) == 2, said


def test_names_of_ascii_have_no_digest_so_that_runs_of_earlier_versions_are_found():
    assert slug("my lora") == slug("my-lora") == "my-lora"
    assert slug("größe") != slug("gr-e") and len({slug("é" * 300), slug("é" * 301), slug("a" * 201)}) == 3


def test_a_place_for_results_where_nothing_can_be_written_is_told_before_anything_is_run(go, tmp_path):
    (tmp_path / "results").write_text("somebody's")
    code, out, said = go("-s", "zeroshot", "--seeds", "0", "--publish", "results/of-mine")
    assert (code, out) == (2, "") and said == (
        "error: --publish results/of-mine: cannot be written: Not a directory\n"
    )
    assert [one.name for one in tmp_path.iterdir()] == ["results"]


def test_what_could_not_be_published_is_on_the_screen_all_the_same(go, tmp_path, monkeypatch):
    def full(*words):
        raise OSError(errno.ENOSPC, "No space left on device", "results/tiny/zeroshot.json")

    monkeypatch.setattr(publishing, "write_text", full)
    code, out, said = go("-s", "zeroshot", "--seeds", "0", "--publish", "results")
    assert code == 1 and "error: results/tiny/zeroshot.json: No space left on device" in said
    assert "zeroshot" in out and (tmp_path / "runs" / "tiny" / "comparison.json").is_file()
