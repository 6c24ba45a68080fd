"""The page of a run: the numbers of results.json, nothing from outside, nobody's names run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from builders.commands import cli
from builders.pages import HOSTILE, read
from builders.reported import forgetful_run, made_run
from cl_complora import metrics
from cl_complora.clip.matrix_names import place_of
from cl_complora.config import load_scenario, load_strategy
from cl_complora.report.html import try_report, write_report
from cl_complora.report.reproduce import run_command
from cl_complora.report.run.figures import MOST_POINTS
from cl_complora.store.folder import RunDir


@pytest.fixture(scope="module")
def finished(tiny_run, tmp_path_factory) -> Path:
    return forgetful_run(tiny_run.folder, tmp_path_factory.mktemp("runs") / "seed0")


@pytest.fixture(scope="module")
def page_file(finished, tmp_path_factory) -> Path:
    """Its page, for reading only."""
    return write_report(finished, tmp_path_factory.mktemp("page") / "page.html")


def test_every_number_is_that_of_the_results(finished, monkeypatch, capsys, tmp_path):
    code, out, _ = cli(monkeypatch, capsys, "report", finished, "-o", tmp_path / "deep" / "page.html")
    assert code == 0 and out.startswith(str(tmp_path / "deep" / "page.html"))
    page = read(tmp_path / "deep" / "page.html")
    results = json.loads((finished / "results.json").read_text())
    matrix = [
        [*row, sum(row) / len(row), held]
        for row, held in zip(results["accuracy"], results["zero_shot"]["colours"], strict=True)
    ]
    assert page.values("Accuracy matrix") == matrix
    assert [row[0][0] for row in page.tables["Accuracy matrix"]] == [
        "after",
        "untouched model",
        "warm",
        "cold",
    ]
    headlines = [float(a["value"]) for a in page.all("data")][:6]
    assert headlines == [results[key] for key in ("last", "average", "transfer", "forgetting", "bwt")] + [
        results["retention"]["colours"]
    ]
    rows = results["accuracy"]
    lost, moved = metrics.forgetting(rows), metrics.backward_transfer(rows)
    assert page.values("Forgetting per task") == [
        [rows[0][j], rows[j + 1][j], max(r[j] for r in rows[j + 1 :]), rows[-1][j], None, lost[j], moved[j]]
        for j in range(2)
    ]
    low, high = metrics.interval(rows[-1][0], 12)
    assert page.tables["Forgetting per task"][1][5][0] == f"{100 * low:.1f}–{100 * high:.1f}"
    tables = (page.tables["Tasks"][1:], page.tables["What they cost"][1:])
    costs = {row[0][0]: [v for _, v in (*row[1:], *dear[1:])] for row, dear in zip(*tables, strict=True)}
    for detail in results["tasks_detail"]:
        keys = "classes shots train_images test_images steps delta_norm trainable_parameters train_seconds"
        keys = [*keys.split(), "eval_seconds", "peak_memory_bytes", "stored_bytes", "carried_bytes"]
        assert costs[detail["name"]] == [detail[key] for key in keys]
        assert detail["split_sha256"] in page.text
    assert results["model"]["sha256"] in page.text and results["software"]["torch"] in page.text


def test_what_changed_on_the_most_forgotten_task_is_shown(page_file):
    page = read(page_file)
    assert "The most forgotten task is warm, 25.0 points below its best." in page.text
    assert (
        "12 of its 12 images were right; after cold 9 are. 3 that were right are wrong now, 0 that"
        in page.text
    )
    assert [[t for t, _ in row] for row in page.tables["Confusions"][1:]] == [
        ["red", "yellow", "0", "3", "+3"]
    ]
    shown = page.all("img")
    assert len(shown) == 3 and all(i["src"].startswith("data:image/jpeg;base64,") for i in shown)
    assert shown[0]["alt"] == "An image of red that is now taken for yellow"
    told = re.findall(r"(\d+) % sure", page.text)
    assert told == sorted(told, reverse=True) and len(told) == 3
    assert page.values("Pairs of tasks") == [[None, 1.0, 0.5, -0.5, 12.5, 33.25]]
    assert page.values("warm after cold") == [[None, 12.5, 3.5, 2.0, 1.5], [None, 33.25, None, None, -2.5]]
    assert "vision 1 +33.2" in page.text and "The first" not in page.text


def test_the_geometry_of_every_matrix_is_there(finished, page_file):
    page = read(page_file)
    record = json.loads(RunDir(finished).record(0, "warm").read_text())["geometry"]
    head, *rows = page.tables["Every matrix"]
    assert len(rows) == len(record)
    names = [text for text, _ in head]
    by_place = {tuple(text for text, _ in row[:3]): dict(zip(names, row, strict=True)) for row in rows}
    other = json.loads(RunDir(finished).record(1, "cold").read_text())["geometry"]
    for name, values in record.items():
        place = place_of(name)
        mean = (values["delta_norm"] + other[name]["delta_norm"]) / 2
        assert by_place[place.tower, place.layer, place.kind]["‖ΔW‖"][1] == pytest.approx(mean, rel=1e-3)
    maps = [field["value"] for field in page.all("input") if field["type"] == "radio"]
    assert len(page.all("fieldset")) == 2 and "More maps: " in page.text  # three at once, the rest folded
    assert maps and len({value.rpartition("-")[0] for value in maps[:3]}) == 1
    assert maps[3].rpartition("-")[0] != maps[0].rpartition("-")[0]


def test_the_same_run_gives_the_same_bytes(finished, page_file, tmp_path):
    assert write_report(finished, tmp_path / "again.html").read_bytes() == page_file.read_bytes()


def test_a_long_stream_of_a_large_model_stays_small(tmp_path):
    names = [f"a long task name {n}" for n in range(11)]
    folder = made_run(tmp_path / "run", names, [f"class {n}" for n in range(100)], (24, 12), 3000)
    page = read(write_report(folder.root))
    assert len(page.tables["Accuracy matrix"]) == 13 and len(page.tables["Every matrix"]) == 217
    assert (
        len(page.tables["Overlap of the updates"]) == 11
        and len(page.tables["Similarity of the image features"]) == 11
    )
    longest = max(len(drawing["d"].split("L")) for drawing in page.all("path") if "d" in drawing)
    assert longest <= MOST_POINTS + 1


def test_names_of_others_are_shown_and_never_run(tmp_path):
    folder = made_run(tmp_path / "run", HOSTILE, HOSTILE, (2, 1), 5)
    page = read(write_report(folder.root))
    raw = (folder.root / "report.html").read_text(encoding="utf-8")
    for name in HOSTILE[:4]:
        assert name in page.text and name not in raw.replace(str(tmp_path), "")
    assert "<script>alert" not in raw and "49" not in page.tables["Accuracy matrix"][0][3][0]
    assert not set(raw) & set("\x00\x1b\u202e\u2066")
    drawn = " ".join(re.findall(r"<svg.*?</svg>", raw, re.DOTALL))
    assert "&lt;script&gt;" in drawn


def test_a_report_never_fails_a_run(tmp_path, finished, monkeypatch):
    told: list[str] = []
    assert try_report(tmp_path, told.append) is None and "is no run" in told[0]
    monkeypatch.setattr("cl_complora.report.html._page", lambda *words: 1 / 0)
    assert try_report(finished, told.append) is None and "ZeroDivisionError" in told[1]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({}, "is no run (no results.json) and no comparison"),
        ({"results.json": "{"}, "damaged"),
        ({"results.json": "[]"}, "is not what a run writes"),
        (
            {"results.json": '{"tasks": ["a"], "accuracy": [[1, 2]], "scenario": 1, "strategy": 1}'},
            "is not what a run",
        ),
        ({"results.json": '{"tasks": ["a"]}', "config.yaml": "- 1"}, "damaged"),
        ({"comparison.json": "{"}, "the same compare command writes it again"),
        ({"comparison.json": "[]"}, "damaged"),
        ({"comparison.json": '{"methods": {}, "reference": "a", "request": {}}'}, "damaged"),
    ],
)
def test_what_is_no_run_is_told_in_one_line(content, told, tmp_path, monkeypatch, capsys):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    code, out, err = cli(monkeypatch, capsys, "report", tmp_path)
    assert code == 2 and told in err and err.count("\n") == 1 and not out
    assert not (tmp_path / "report.html").exists()


def test_places_that_cannot_be_written_are_told(finished, tmp_path, monkeypatch, capsys):
    code, _, err = cli(monkeypatch, capsys, "report", finished, "-o", tmp_path)
    assert code == 2 and "is a folder; name the file" in err
    code, _, err = cli(monkeypatch, capsys, "report", tmp_path / "nowhere")
    assert code == 2 and "there is no such folder" in err


def test_the_command_leads_back_to_the_recorded_settings(finished, tiny_scenario, tiny_strategy):
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert shlex.split(run_command(config))[-9:-4] == [
        "cl-complora", "run", str(tiny_scenario), "--strategy", str(tiny_strategy)
    ]  # fmt: skip
    config["strategy"]["optimiser"]["lr"] = 0.25
    config["scenario"]["tasks"][1]["prompts"] = ["a 'quoted' {}", "ü {}"]
    words = shlex.split(run_command(config))
    settings = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    assert len(settings) == 3
    changed = load_scenario(str(tiny_scenario), [s for s in settings if s.startswith("scenario.")]).value
    assert changed.tasks[1].prompts == ["a 'quoted' {}", "ü {}"]
    assert (
        load_strategy(
            str(tiny_strategy), [s for s in settings if s.startswith("strategy.")]
        ).value.optimiser.lr
        == 0.25
    )
    del config["strategy"]["training"]["precision"]  # as a version before that setting would have left it
    assert run_command(config) is not None
    for part, key in (("scenario", "unknown"), ("strategy", "unknown")):
        assert run_command(config | {part: config[part] | {key: 1}}) is None
    assert run_command(config | {"files": {"scenario": "/nowhere.yaml", "strategy": "/nowhere.yaml"}}) is None


def test_the_command_aims_at_the_folder_that_the_run_is_in(finished, tmp_path, monkeypatch):
    config = yaml.safe_load((finished / "config.yaml").read_text())
    names = Path(config["scenario"]["name"]) / config["strategy"]["name"]

    def aimed(folder: Path) -> list[str]:
        words = shlex.split(run_command(config, folder))
        assert words[: len(plain)] == plain
        return words[len(plain) :]

    plain = shlex.split(run_command(config))
    monkeypatch.chdir(tmp_path)
    for runs in (Path("runs"), tmp_path / "runs"):
        assert aimed(runs / names / "seed0") == []
        assert aimed(runs / names / "steps-3,lr-1" / "seed0") == ["--variant", "steps-3,lr-1"]
    there = ["--out", "/my runs"]
    assert aimed(Path("/my runs") / names / "seed0") == there
    assert aimed(Path("/my runs") / names / "apart" / "seed0") == ["--variant", "apart", *there]
    # Moved to where no command would make it, or seen from too near.
    for elsewhere in ("/moved/seed0", f"/moved/{names}/a/b/seed0", "seed0", Path(names.name, "seed0")):
        assert aimed(Path(elsewhere)) == []
    beside = tmp_path / "runs" / names / "short"
    beside.mkdir(parents=True)
    monkeypatch.chdir(beside)
    assert aimed(Path("seed0")) == ["--variant", "short", "--out", str(tmp_path / "runs")]
