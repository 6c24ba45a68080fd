"""Help at 80 columns, hints for mistakes, runs by name, and plain text in pipes."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console, Group
from rich.table import Table

from builders.commands import cli
from cl_complora.cli.consoles import LogConsole
from cl_complora.cli.shard_options import measured_table
from cl_complora.compare.compare_progress import CompareProgress
from cl_complora.compare.study import Request
from cl_complora.errors import UserError
from cl_complora.finished.asked_sets import Measured
from cl_complora.progress import PlainProgress
from cl_complora.report.comparison.terminal import fitting
from cl_complora.report.run.tables import matrix
from cl_complora.store.named_runs import find_run

COMMANDS = (
    "init check list data run compare tune report leaderboard tensorboard explain audit curvature"
    " eval predict export"
)


@pytest.mark.parametrize("words", ["", *COMMANDS.split(), "data check"])
def test_help_fits_80_columns_and_has_no_types(monkeypatch, capsys, words):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = cli(monkeypatch, capsys, *words.split(), "-h")
    assert code == 0 and out.startswith("Usage: cl-complora")
    out = out.replace("--range", "")  # an option of predict, and no type
    assert (
        not any(noise in out for noise in ("<str>", "range", "INTEGER", "TEXT", "╭", "x>="))
        and "{" not in out.splitlines()[0]
    )
    examples = out.partition("Examples:")[2]
    assert all(len(line) <= 80 or line in examples for line in out.splitlines())
    assert max(map(len, out.splitlines())) <= 90


def test_help_shows_all_commands_and_whole_defaults(monkeypatch, capsys):
    _, out, _ = cli(monkeypatch, capsys, "--help")
    assert [name for name in COMMANDS.split() if f"\n  {name} " not in out] == []
    _, out, _ = cli(monkeypatch, capsys, "compare", "--help")
    assert "nearest-mean" in "".join(out.split()) and "…" not in out.partition("--seeds")[0]
    assert "Examples:" in out
    for words in (("check",), ("data", "check")):
        _, out, _ = cli(monkeypatch, capsys, *words, "--help")
        assert f"cl-complora {' '.join(words)} mine.yaml" in out and ("--measure" in out) == (len(words) == 1)


@pytest.mark.parametrize(
    "words, told",
    [
        (["train"], "there is no command 'train'; did you mean 'run'?"),
        (["exprot"], "did you mean 'export'?"),
        (["xyzzy"], "there is no command 'xyzzy'; there are "),
        (["compare", "embedded", "--strategies", "lora", "tokens"], "--strategies lora,tokens"),
        (["run", "embedded", "--set", "steps=5"], "did you mean 'training.steps'?"),
        (["run", "embedded", "--set", "train.steps=5"], "did you mean 'training.steps'?"),
        (["run", "embedded", "--set", "lr=5"], "did you mean 'optimiser.lr'?"),
        (["run", "pictures"], "cl-complora init pictures writes a scenario"),
        (["run", "./pictures"], "cl-complora init pictures writes a scenario"),
        (["run", "mine"], "did you mean the file mine.yaml?"),
        (["run", "embedded", "--seed", "abc"], "error: --seed abc: must be a whole number"),
        (["run", "embedded", "--seed=-3"], "error: --seed -3: must be at least 0"),
        (["tensorboard", "--port", "99999999"], "error: --port 99999999: must be at most 65535"),
        (["curvature", "x", "--tolerance", "much"], "error: --tolerance much: must be a number"),
    ],
)
def test_mistakes_get_a_hint(monkeypatch, capsys, tmp_path, words, told):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    monkeypatch.chdir(tmp_path)
    code, _, err = cli(monkeypatch, capsys, *words)
    assert code == 2 and told in err and err.startswith("error: ") and len(err.splitlines()) == 1


@pytest.fixture
def runs(tmp_path, monkeypatch):
    for place in (
        "a/lora/seed0",
        "a/complora/seed0",
        "b/lora/seed0",
        "b/lora/lr-1/seed0",
        "b/x/seed0.2026-01-01",
    ):
        (tmp_path / "runs" / place).mkdir(parents=True)
        (tmp_path / "runs" / place / "config.yaml").write_text("{}")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "given, place",
    [
        ("runs/a/lora/seed0", "runs/a/lora/seed0"),
        ("a/lora", "runs/a/lora/seed0"),
        ("a/lora/seed0", "runs/a/lora/seed0"),
        ("complora", "runs/a/complora/seed0"),
        ("lr-1", "runs/b/lora/lr-1/seed0"),
    ],
)
def test_runs_are_found_by_name(runs, given, place):
    assert str(find_run(given)) == place


@pytest.mark.parametrize(
    "given, told",
    [
        ("lora", "3 runs are called that; give one of: runs/a/lora/seed0"),
        ("b", "2 runs are called that"),
        ("nothing", "no run of that name; runs in runs: "),
        ("runs/a", "is no run .*runs in it: runs/a/complora/seed0"),
        ("runs/a/lora/seed0/config.yaml", "is a file"),
    ],
)
def test_what_is_no_run_is_told_with_those_there_are(runs, given, told):
    with pytest.raises(UserError, match=told):
        find_run(given)


def test_exported_weights_are_no_run_and_their_page_is_named(runs):
    Path("small.safetensors").touch()
    with pytest.raises(UserError) as alone:
        find_run("small.safetensors")
    Path("small.md").touch()
    with pytest.raises(UserError, match=r"small\.safetensors: is a file;.* small\.md has the lines of"):
        find_run("small.safetensors")
    assert "small.md" not in alone.value.messages[0]


@pytest.mark.parametrize("command", ["export", "explain", "predict", "eval", "audit", "curvature"])
def test_a_wrong_folder_is_told_before_anything_heavy_is_imported(runs, command):
    words = ["nowhere", "picture.png"] if command == "predict" else ["nowhere"]
    code = (
        "import sys\n"
        "from cl_complora.cli import main\n"
        f"sys.argv = ['cl-complora', '{command}', *{words!r}]\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    assert ended.code == 2\n"
        "assert not {'torch', 'open_clip', 'avalanche'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "error: nowhere: " in done.stderr, done.stderr


def results(tasks: int) -> dict:
    names = [f"a-long-name-of-task-{number}" for number in range(tasks)]
    rows = [[0.5] * tasks] * (tasks + 1)
    return {
        "scenario": "many", "strategy": "x", "seed": 0, "tasks": names, "zero_shot_sets": ["imagenet"],
        "accuracy": rows, "zero_shot": {"imagenet": [0.5] * (tasks + 1)},
    }  # fmt: skip


def drawn(renderable, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=True, color_system=None).print(renderable)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_tasks_are_numbered_where_their_names_do_not_fit():
    narrow = drawn(matrix(results(7), range(1, 8), 80), 80)
    assert narrow[1].split() == ["after", *"1234567", "imagenet"]
    assert narrow[3].split()[:3] == ["1", "a-long-name-of-task-0", "50.0"] and len(narrow) == 10
    wide = drawn(matrix(results(2), range(1, 3), 120), 120)
    assert "a-long-name-of-task-1" in wide[2] + wide[3] and "│" in wide[-2]


@pytest.mark.parametrize("tasks, width", [(0, 80), (1, 20), (1, 80)])
def test_titles_are_in_one_line_above_narrow_tables(tasks, width):
    few = results(tasks) | {"zero_shot_sets": []}
    title = "many · x · seed 0: accuracy in %"
    narrower = drawn(matrix(few, range(1, tasks + 1), width), max(width, len(title)))
    assert [line.strip() for line in narrower if "accuracy" in line or "%" in line] == [title]
    measured = measured_table([Measured("a", 0.5, 8)], "a stream of one small set, all of it: accuracy in %")
    assert "a stream of one small set, all of it: accuracy in %" in drawn(measured, 80)
    out = io.StringIO()
    LogConsole(file=out, width=1000).print(matrix(few, range(1, tasks + 1), 0))
    assert out.getvalue().startswith(f"{title}\nafter")


def test_rows_have_heads_while_a_run_goes_on():
    out = io.StringIO()
    progress = PlainProgress(Console(file=out, width=80))
    progress.begins(["textures", "b"], ["general"])
    progress.evaluated(0, [0.5, 1.0], {"general": 0.9})
    progress.task(0, 2, "textures", 3)
    progress.evaluated(1, [0.75, float("nan")], {"general": 0.905})
    head, untouched, _, row = out.getvalue().splitlines()
    assert head.split() == ["accuracy", "after", "1", "2", "|", "general"]
    assert row.split() == ["1", "textures", "75.0", "–", "|", "90.5"]
    assert head.index("general") + len("general") == len(row) == len(untouched)


def test_files_and_pipes_get_plain_lines():
    out = io.StringIO()
    table = Table(title="a title")
    table.add_column("name")
    table.add_column("value", justify="right")
    table.add_row("x" * 200, "1.0")
    LogConsole(file=out, width=1000).print(Group(table, "end"))
    assert out.getvalue() == f"a title\n{'name'.ljust(200)}  value\n{'x' * 200}    1.0\nend\n"


def test_wide_tables_come_in_parts_that_fit():
    rows = [["method", *("m" * 30 for _ in range(4))], ["lora", *(str(number) for number in range(4))]]
    parts = fitting(rows, 80)
    assert [part[1] for part in parts] == [["lora", "0", "1"], ["lora", "2", "3"]]
    assert fitting(rows, 0) == [rows]


class Told:
    """What CompareProgress reads of a trial and its outcome."""

    def __init__(self, method: str, seed: int, reused: bool = False) -> None:
        self.method, self.seed, self.reused, self.validation = method, seed, reused, False

    def label(self) -> str:
        return f"{self.method} · seed {self.seed}"

    def told(self) -> str:
        return "done"


def test_a_comparison_says_its_plan_what_runs_and_time_left():
    said: list[str] = []
    CompareProgress(Request("mine", ("a", "b"), (0, 1)), None, said.append).plan()
    assert said == ["mine: 4 runs: 2 methods × 2 seeds; finished runs are reused"]
    said.clear()
    progress = CompareProgress(Request("mine", ("a", "b"), (0, 1)), 1, said.append)
    progress.plan()
    progress.begins([])  # all of it is published
    assert "4 runs: 2 methods × 2 seeds" in said[0] and len(said) == 1
    every = [Told(method, seed) for method in "ab" for seed in (0, 1)]
    progress.begins(every)
    assert said[1] == "begins with a · seed 0"
    progress.report(Told("a", 0), Told("a", 0), 1, 4)
    assert "1/4 a · seed 0: done · about 0 s left; now a · seed 1" in said[2]
    for done, (method, seed) in enumerate([("a", 1), ("b", 0), ("b", 1)], start=2):
        progress.report(Told(method, seed), Told(method, seed), done, 4)
    assert "left" not in said[-1]
    progress.begins([every[0], every[3]])  # and of b one is published
    progress.report(every[0], every[0], 1, 2)
    assert said[-1].endswith("now b · seed 1")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("compare", "embedded", "-s", "lora", "--strategies", "zeroshot"),
            "--strategies: is given twice; put commas",
        ),
        (("compare", "embedded", "--seeds", "0", "--seeds=1"), "--seeds: is given twice; put commas"),
        (("run", "--seed", "0", "-s", "lora", "--seed", "1"), "--seed: is given twice, and takes one value"),
        (("data", "check", "embedded", "--seed", "0", "--seed", "1"), "--seed: is given twice"),
    ],
)
def test_an_option_of_one_value_is_not_given_two(monkeypatch, capsys, words, told):
    code, out, err = cli(monkeypatch, capsys, *words)
    assert (code, out) == (2, "") and err.startswith(f"error: {told}")


def test_options_that_may_be_repeated_and_values_that_look_like_options_are_taken(
    monkeypatch, capsys, tmp_path
):
    words = ("check", "embedded", "--model", "--model")
    assert "twice" not in cli(monkeypatch, capsys, *words)[2]
    sets = ("--set", "shots=2", "--set", "seeds=[0]")
    assert (
        cli(monkeypatch, capsys, "compare", "embedded", "-s", "zeroshot", *sets, "--list", "--out", tmp_path)[
            0
        ]
        == 0
    )
