"""check, run and --help in processes of their own: every fault at once, nothing written, nothing heavy
imported."""

from __future__ import annotations

import io
import json
import re
import resource
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from builders.broken_yaml import BAD
from builders.commands import cli as command
from builders.configs import SCENARIO, TEXTS, animals, write
from builders.images import paint
from cl_complora.cli.check import check_scenario, check_strategy, kind_of_file
from cl_complora.errors import UserError
from cl_complora.run import untouched


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What the valid files name; every broken file is written here."""
    return animals(tmp_path_factory.mktemp("config"))


def test_check_recognises_a_strategy_whose_sections_are_misspelt(folder):
    path = write(folder, "misspelt", "name: x\nadaptor: {kind: none}\noptimizer: {lr: 1e-3}\n")
    with pytest.raises(UserError) as caught:
        lines_of(path)
    assert "did you mean 'adapter'?" in caught.value.messages[0]


def test_a_plugin_is_named_as_not_looked_at(folder):
    text = f"{TEXTS['strategy']}\nplugin: nowhere:Nothing\n"
    fine, note = lines_of(write(folder, "plugged", text))
    assert fine.endswith("strategy 'mine' is fine (lowrank adapter)")
    assert note.startswith("  note: plugin nowhere:Nothing was not looked at")
    assert note.endswith("run wants --allow-plugins")


def lines_of(path: Path) -> list[str]:
    checks = {"scenario": check_scenario, "strategy": check_strategy}
    with redirect_stdout(io.StringIO()) as said:
        checks[kind_of_file(str(path))](str(path))
    return said.getvalue().splitlines()


def test_what_looks_like_a_mistake_is_a_note(folder):
    source = 'source: {kind: folder, root: animals, exclude: ["*.pmg"]}'
    text = SCENARIO.replace("source: {kind: folder, root: animals}", f"{source}\n    classes: [cat]")
    first, *notes = lines_of(
        write(folder, "notes", text.replace("class_range: [0, 2]", "class_range: [1, 2]"))
    )
    assert first.endswith("is fine (2 tasks, 4 training images)")
    assert [note[:8] for note in notes] == ["  note: "] * len(notes)
    assert notes[0].endswith("animals: exclude: no file or folder that is looked at fits '*.pmg'")
    assert "'a': has one class, 'cat': every answer is right, and 100 % mean nothing" in notes[1]
    alone = text[: text.index("  - name: b")] + "zero_shot: []\n"
    assert lines_of(write(folder, "one", alone.replace("*.pmg", "*.gif")))[0].endswith(
        "(1 task, 2 training images)"
    )


def test_a_pattern_that_leaves_something_out_is_no_mistake(folder):
    source = 'source: {kind: folder, root: animals, exclude: ["0.*", "cat"]}'
    text = SCENARIO.replace("source: {kind: folder, root: animals}", source)
    assert not any("exclude" in line for line in lines_of(write(folder, "excluding", text)))


@pytest.mark.parametrize(
    ("places", "told"),
    [
        (("pets/cat", "pets/dog", "farm/cow", "farm/pig"), True),
        (("pets/cat", "pets/dog", "farm"), False),
        (("pets/cat", "pets/dog", "pets", "farm/cow", "farm/pig"), False),
        (("cat/train", "cat/test", "dog/train", "dog/test"), False),
        (("train/cat", "train/dog", "test/cat", "test/dog"), False),
    ],
)
def test_a_root_one_folder_too_high_is_noted(tmp_path, places, told):
    for number, place in enumerate(places):
        for picture in range(6):
            paint(tmp_path / "all" / place / f"{picture}.png", (9, 99, 9), 10 * number + picture, 8)
    stream = "name: s\nshots: 2\ntasks:\n  - {name: t, source: {kind: folder, root: all}}\n"
    lines = lines_of(write(tmp_path, "s", stream))
    note = "all: the pictures of every class lie in folders within its own"
    assert any(note in line for line in lines) is told


@pytest.mark.parametrize("missing", [1, 23])
def test_missing_pictures_of_a_table_are_told_by_row(folder, missing):
    there = sorted(path.relative_to(folder) for path in (folder / "animals").rglob("*.png"))
    rows = [f"{path},{path.parent.name},train" for path in there]
    rows += [f"x{number}.png,cat,train" for number in range(missing)]
    (folder / "m.csv").write_text("\n".join(["path,label,split", *rows]))
    source = "{kind: manifest, file: m.csv}"
    scenario = write(folder, "table", SCENARIO.replace("{kind: folder, root: animals}", source))
    with pytest.raises(UserError) as caught:
        lines_of(scenario)
    lines, source = caught.value.messages[:20], f"{scenario}:9: tasks[0].source"
    assert lines == tuple(
        f"{source}: {folder}/m.csv:{len(there) + 2 + n}: {folder}/x{n}.png: No such file or directory"
        for n in range(min(missing, 20))
    )
    more = f"{source}: {folder}, train part: 3 more faults, these are 20 of them"
    assert caught.value.messages[20:] == ((more,) if missing == 23 else ())


RUN_AND_LIST = """
import atexit, json, sys
path = sys.argv.pop()
atexit.register(lambda: open(path, "w").write(json.dumps(sorted({"torch", "open_clip"} & set(sys.modules)))))
from cl_complora.cli import main
main()
"""


def cli(folder: Path, *arguments: str) -> tuple[subprocess.CompletedProcess, float, list[str]]:
    """The command line in a process of its own; also its CPU seconds and which heavy modules it imported."""
    modules = folder.parent / f"{folder.name}-modules.json"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", RUN_AND_LIST, *arguments, str(modules)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done, seconds, json.loads(modules.read_text())


def test_settings_go_to_the_files_of_their_kind(folder, monkeypatch, capsys):
    scenario, strategy = write(folder, "both", SCENARIO), write(folder, "ours", TEXTS["strategy"])

    def check(*words: object) -> tuple[int, str, str]:
        return command(monkeypatch, capsys, "check", *words)

    code, out, _ = check(scenario, strategy, "--set", "shots=1", "--set", "optimiser.lr=1e-3")
    assert code == 0 and "both.yaml: scenario" in out and "ours.yaml: strategy" in out
    counts = [re.search(r"(\d+) training images", said).group(1) for said in (out, check(scenario)[1])]
    assert int(counts[0]) < int(counts[1])
    for key, file in (("shots=-1", scenario), ("optimiser.lr=-1", strategy)):
        code, _, err = check(scenario, strategy, "--set", key)
        assert code == 2 and key in err and str(file) not in check(file)[2]
    for words, told in (
        ([strategy, "--set", "shots=1"], "no scenario is checked: --model, "),
        ([strategy, "--measure"], "no scenario is checked: --model, "),
        (
            [scenario, "--set", "optimiser.lr=1e-3"],
            "no strategy is checked: --set of a strategy's keys is for",
        ),
    ):
        code, out, err = check(*words)
        assert code == 2 and told in err and not out


def test_a_strategy_may_stand_beside_a_scenario_that_is_measured(folder, monkeypatch, capsys):
    scenario, strategy = write(folder, "both", SCENARIO), write(folder, "ours", TEXTS["strategy"])
    monkeypatch.setattr(untouched, "look", lambda located, plans: (None, ["measured"], []))
    code, out, _ = command(monkeypatch, capsys, "check", strategy, scenario, "--measure")
    assert code == 0 and out.count("measured") == 1 and "strategy 'mine' is fine" in out


def test_a_model_that_is_measured_is_asked_whether_a_strategy_fits_it(folder, monkeypatch, capsys):
    scenario = write(folder, "stream", SCENARIO)
    lines = "name: {}\nadapter: {{kind: lowrank, rank: {}, layers: {}}}\noptimiser: {{lr: 1e-4}}\n"
    deep = write(folder, "deep", lines.format("deep", 4, [9]))
    wide = write(folder, "wide", lines.format("wide", 500, [0]))
    code, out, err = command(monkeypatch, capsys, "check", scenario, deep, wide, "--measure")
    refused = f"{deep}:2: strategy 'deep': adapter: layers=[9]: no tower has 9; blocks: text 3, vision 5"
    assert code == 2 and refused in " ".join(err.split())
    assert "note: 'wide' on 'mine': adapter.rank: 500 is more than any of the adapted matrices" in out
    # Without the model nothing is known of its blocks.
    assert command(monkeypatch, capsys, "check", scenario, deep)[0] == 0


FULL = "name: mine\nadapter: {kind: full}\noptimiser: {lr: 1e-4}\n"


@pytest.mark.parametrize(
    ("strategy", "options", "told"),
    [
        ("regularisers: [{kind: reference}]", [], "scenario 'mine' has no reference set, which strategy"),
        (
            "training: {steps: 4, loss: {kind: ldam}, classes: seen}",
            ["--set", "protocol=class-incremental"],
            "training.loss: ldam asks how many training images every class has, and with training.classes:",
        ),
        (
            "training: {stream: joint}",
            ["--set", "independent=true"],
            "training.stream: joint trains tasks",
        ),
    ],
)
def test_a_pair_that_run_would_refuse_is_refused(folder, monkeypatch, capsys, strategy, options, told):
    mine = write(folder, "pair", f"{FULL}{strategy}\n")
    stream = write(folder, "stream", SCENARIO)
    code, out, err = command(monkeypatch, capsys, "check", stream, mine, *options)
    assert code == 2 and told in err and out.count(" is fine ") == 2
    assert command(monkeypatch, capsys, "check", mine)[0] == 0


def test_what_does_nothing_on_a_stream_is_noted_of_a_pair(folder, monkeypatch, capsys):
    mine = write(folder, "pair", f"{FULL}training: {{classes: seen}}\n")
    code, out, _ = command(monkeypatch, capsys, "check", mine, write(folder, "stream", SCENARIO))
    note = "note: 'mine' on 'mine': training.classes: seen has no effect on a task-incremental stream"
    assert code == 0 and note in out


def test_check_tells_all_files_faults_writes_nothing_and_imports_no_torch(folder):
    bad = [bad for bad in BAD if bad.name in CLI_CASES]
    for one in bad:
        write(folder, one.name, one.content)
    names = [f"{one.name}.yaml" for one in bad]
    for kind, text in TEXTS.items():
        write(folder, kind, text)
    before = sorted(folder.rglob("*"))
    done, seconds, modules = cli(folder, "check", "scenario.yaml", *names, "strategy.yaml")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    # All of its pictures are one, which is told in several ways.
    one = re.compile(r"is (train|test)/cat/|are the same picture")
    assert [line for line in done.stdout.splitlines() if not one.search(line)] == [
        "strategy.yaml: strategy 'mine' is fine (lowrank adapter)",
        "scenario.yaml: scenario 'mine' is fine (2 tasks, 10 training images)",
        "  note: 'b': 8 of 8 test pictures are those of 'a' too",
    ]
    told = done.stderr.splitlines()
    assert len(told) == sum(len(one.faults) for one in bad)
    expected = [(name, fault) for name, one in zip(names, bad, strict=True) for fault in one.faults]
    for line, (name, (number, _, parts)) in zip(told, expected, strict=True):
        assert line.startswith(f"error: {name}:{number}: ")
        assert all(part in line for part in parts)
    assert sorted(folder.rglob("*")) == before
    assert modules == [] and seconds < 3


CLI_CASES = {
    "key-top",
    "key-keep",
    "matrix",
    "sweep-value",
    "tab",
    "python-tag",
    "too-many-shots",
    "domain",
    "latin-1",
}


@pytest.mark.parametrize("arguments, told", [
    (("run", "key-top.yaml"), "error: key-top.yaml:4: shotz: unknown key"),
    (
        ("run", "scenario.yaml", "--set", "optimiser.lr=-1"),
        "error: --set optimiser.lr=-1: must be greater than 0",
    ),
    (
        ("run", "strategy.yaml"),
        "error: strategy.yaml:3: adapter: this is a strategy, a scenario is expected here",
    ),
    (("run", "scenario.yaml", "--set", "shots=5"), "error: --set shots=5: 5 shots a class"),
])  # fmt: skip
def test_run_refuses_before_anything_heavy_or_written(arguments, told, folder):
    for kind, text in TEXTS.items():
        write(folder, kind, text)
    write(folder, "key-top", SCENARIO.replace("shots: 2", "shotz: 2"))
    before = sorted(folder.rglob("*"))
    done, seconds, modules = cli(folder, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(told) and all(
        line.startswith("error: ") for line in done.stderr.splitlines()
    )
    assert sorted(folder.rglob("*")) == before
    assert modules == [] and seconds < 3


def test_help_is_quick(tmp_path):
    done, seconds, modules = cli(tmp_path, "--help")
    assert done.returncode == 0 and "check" in done.stdout
    assert modules == [] and seconds < 3
