"""The HTML report: the numbers of results.json, nothing from outside, nobody's names run, whatever is
missing."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from builders.commands import cli
from cl_complora import metrics
from cl_complora.analysis.mistakes import changes, label_space, pictures
from cl_complora.clip.matrix_names import place_of
from cl_complora.compare.statistics import difference
from cl_complora.compare.study import METRICS, Comparison, Method, Request
from cl_complora.config import load_scenario, load_strategy
from cl_complora.errors import UserError
from cl_complora.report.comparison.saving import save
from cl_complora.report.comparison.tables import front
from cl_complora.report.elements import TEMPLATES, number
from cl_complora.report.heat_map import shaded
from cl_complora.report.html import try_report, write_report
from cl_complora.report.reproduce import compare_command, run_command
from cl_complora.report.run.figures import MOST_POINTS, thinned
from cl_complora.report.svg import plain
from cl_complora.run.stream import run
from cl_complora.store.folder import RunDir

MOST_BYTES = 3_000_000
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "$\\frac{$ & {{ 7 * 7 }}",
    "</svg></style></title><!--",
    "a\x00b\x1bc\u202e ü\u2066 漢",
]


class Reader(HTMLParser):
    """Elements, ids and tables of a page.

    Attributes:
        elements: (tag, attributes) in order.
        tables: caption → rows of (text, value or None), the head first.
        text: all text outside scripts and styles.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[tuple[str, float | None]]]] = {}
        self.text = ""
        self._open: list[str] = []
        self._rows: list[list[tuple[str, float | None]]] = []
        self._caption, self._value = "", None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append(("", None))
        elif tag == "data":
            self._set(value=float(dict(attrs)["value"]))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if {"script", "style"} & set(self._open):
            return
        self.text += data
        if "caption" in self._open:
            self._caption += data
        elif {"td", "th"} & set(self._open) and "table" in self._open:
            self._set(text=data)

    def _set(self, text: str = "", value: float | None = None) -> None:
        if self._rows and "table" in self._open:
            before, old = self._rows[-1][-1]
            self._rows[-1][-1] = (before + text, old if value is None else value)

    def values(self, caption: str) -> list[list[float | None]]:
        """Numbers of a table without its head and the first column."""
        return [[value for _, value in row[1:]] for row in self.tables[caption][1:]]

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read(path: Path) -> Reader:
    page = path.read_text(encoding="utf-8")
    reader = Reader(page)
    check_alone(reader, page)
    check_accessible(reader)
    return reader


def check_alone(reader: Reader, page: str) -> None:
    """Small, and nothing in it leads out or runs but the page's own script."""
    assert len(page.encode()) < MOST_BYTES
    for tag, attributes in reader.elements:
        for name in ("src", "href", "xlink:href", "action", "srcset", "data", "poster"):
            address = attributes.get(name)
            assert address is None or address.startswith(("#", "./", "data:image/")), (tag, address)
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
    assert not {tag for tag, _ in reader.elements} & {"link", "iframe", "object", "embed", "base", "form"}
    assert len(reader.all("script")) == 1 and page.count("<style") == 1
    assert "url(" not in re.sub(r"url\(#", "", page) and "@import" not in page
    assert "default-src 'none'" in page


def check_accessible(reader: Reader) -> None:
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids)), sorted(i for i in ids if ids.count(i) > 1)
    for tag, attributes in reader.elements:
        for name in (attributes.get("aria-labelledby") or "").split():
            assert name in ids, (tag, name)
        if (attributes.get("href") or "").startswith("#"):
            assert attributes["href"][1:] in ids
        for target in re.findall(r"url\(#([^)]+)\)", " ".join(v or "" for v in attributes.values())):
            assert target in ids
    assert all(image["alt"] for image in reader.all("img"))
    for drawing in reader.all("svg"):
        assert drawing["role"] == "img" and len(drawing["aria-labelledby"].split()) == 2
    assert all(head.get("scope") in ("row", "col") for head in reader.all("th"))
    assert reader.all("html")[0]["lang"] == "en" and reader.all("a")[0]["href"] == "#content"
    assert len(reader.tables) == len(reader.all("caption")) == len(reader.all("table"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_scenario, tiny_strategy):
    """A run whose first task is forgotten, so that there is something to explain."""
    out = tmp_path_factory.mktemp("runs")
    folder = run(load_scenario(str(tiny_scenario)), load_strategy(str(tiny_strategy)), out=out).folder
    forget_the_first_task(RunDir(folder))
    explained = {
        "new": "cold", "old": "warm", "images": 12, "accuracy_before": 1.0, "accuracy_after": 0.5,
        "zero_shot": {"colours": [0.5, 0.25]},
        "parts": [
            {"kind": "tower", "name": "text", "returned": 12.5, "probability": 3.5, "cost": 2.0,
             "retention": {"colours": 1.5}},
            {"kind": "layer", "name": "vision 1", "returned": 33.25, "retention": {"colours": -2.5}},
        ],
    }  # fmt: skip
    (folder / "explain.json").write_text(json.dumps({"pairs": [explained], "created_with": {}}))
    return folder


def forget_the_first_task(folder: RunDir) -> None:
    """Right after its training all images of ``warm`` were right; now half of those of one class are not."""
    results = json.loads(folder.results.read_text())
    right = np.repeat([0, 1], 6).astype(np.int32)
    now = right.copy()
    now[[1, 2, 4]] = 1
    for index, name, labels in ((0, "warm", right), (1, "cold", now)):
        answers = load_file(folder.predictions(index, name))
        shares = np.linspace(0.55, 0.95, 12).astype(np.float32)
        save_file(answers | {"warm/label": labels, "warm/share": shares}, folder.predictions(index, name))
        results["accuracy"][index + 1][0] = float((labels == right).mean())
    results |= metrics.summarize(results["accuracy"])
    folder.results.write_text(json.dumps(results))


@pytest.fixture
def copied(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "seed0"))


def test_every_number_is_that_of_the_results(finished, monkeypatch, capsys, tmp_path):
    code, out, _ = cli(monkeypatch, capsys, "report", finished, "-o", tmp_path / "deep" / "page.html")
    assert code == 0 and out.startswith(str(tmp_path / "deep" / "page.html"))
    page = read(tmp_path / "deep" / "page.html")
    results = json.loads((finished / "results.json").read_text())
    matrix = [
        [*row, held] for row, held in zip(results["accuracy"], results["zero_shot"]["colours"], strict=True)
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
    costs = {row[0][0]: [v for _, v in row[1:]] for row in page.tables["Tasks"][1:]}
    for detail in results["tasks_detail"]:
        keys = ("classes", "shots", "train_images", "test_images", "steps", "trainable_parameters", "train_seconds",
                "eval_seconds", "peak_memory_bytes", "stored_bytes", "carried_bytes", "delta_norm")  # fmt: skip
        assert costs[detail["name"]] == [detail[key] for key in keys]
        assert detail["split_sha256"] in page.text
    assert results["model"]["sha256"] in page.text and results["software"]["torch"] in page.text


def test_what_changed_on_the_most_forgotten_task_is_shown(finished, tmp_path):
    page = read(write_report(finished, tmp_path / "page.html"))
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


def test_the_geometry_of_every_matrix_is_there(finished, tmp_path):
    page = read(write_report(finished, tmp_path / "page.html"))
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
    assert len(page.all("fieldset")) == 1 and page.all("input")[0]["type"] == "radio"


def test_the_same_run_gives_the_same_bytes(finished, tmp_path):
    one, other = (write_report(finished, tmp_path / f"{n}.html").read_bytes() for n in "ab")
    assert one == other


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("predictions", "Single answers cannot be shown"),
        ("classes.json", "Single answers cannot be shown"),
        ("splits", "Single answers cannot be shown"),
        ("tasks", "The records of zero-shot, warm, cold are missing"),
        ("config.yaml", "config.yaml is missing"),
        ("analysis", ""),
        ("explain.json", ""),
    ],
)
def test_a_file_that_is_missing_leaves_its_part_out(gone, told, copied):
    place = copied / gone
    if place.exists():
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    page = read(write_report(copied))
    assert told in page.text and "Accuracy matrix" in page.tables


@pytest.mark.parametrize("broken", ["tasks/001-warm.json", "explain.json", "analysis/001-warm.json"])
def test_a_damaged_file_is_named_and_left_out(broken, copied):
    (copied / broken).parent.mkdir(exist_ok=True)
    (copied / broken).write_text('{"row": [')
    assert f"{broken} is damaged and left out" in read(write_report(copied)).text


@pytest.mark.parametrize("content", ['{"pairs": [{"new": 1}]}', '{"pairs": 3}', '{"pairs": [null]}', "[]"])
def test_an_explanation_of_another_form_is_left_out(content, copied):
    (copied / "explain.json").write_text(content)
    assert "left out" in read(write_report(copied)).text


def test_damaged_answers_are_left_out(copied):
    path = RunDir(copied).predictions(1, "cold")
    answers = load_file(path)
    for wrong in (
        {"warm/label": answers["warm/label"][:5], "warm/share": answers["warm/share"][:5]},
        {"warm/label": answers["warm/label"] + 7, "warm/share": answers["warm/share"]},
        {"warm/label": answers["warm/label"] - 7, "warm/share": answers["warm/share"]},
        {"cold/label": answers["cold/label"]},
    ):
        save_file(wrong, path)
        assert "Single answers cannot be shown" in read(write_report(copied)).text
    path.write_bytes(b"\xff" * 40)
    assert "Single answers cannot be shown" in read(write_report(copied)).text


def test_pictures_that_are_gone_or_others_are_not_shown(copied, finished):
    config = yaml.safe_load((copied / "config.yaml").read_text())
    with pytest.raises(UserError, match="other pictures now"):
        pictures(RunDir(copied), {**config, "splits": {"warm": "0" * 64}}, "warm", [0], 32)
    config["scenario"]["tasks"][0]["source"]["root"] = "/nowhere"
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    page = read(write_report(copied))
    assert "The pictures themselves cannot be shown" in page.text and not page.all("img")
    assert page.tables["Confusions"]


def test_a_run_that_goes_on_is_reported_as_far_as_it_is(copied):
    results = json.loads((copied / "results.json").read_text())
    rows = results["accuracy"][:2]
    results |= {"status": "running", "accuracy": rows, "tasks_detail": results["tasks_detail"][:1]}
    results |= {"zero_shot": {"colours": results["zero_shot"]["colours"][:2]}, **metrics.so_far(rows)}
    (copied / "results.json").write_text(json.dumps({k: None if v != v else v for k, v in results.items()}))
    page = read(write_report(copied))
    assert "This run is still going on: 1 of 2 tasks are done." in page.text
    assert "not defined: it needs two tasks" in page.text and len(page.tables["Accuracy matrix"]) == 3
    results |= {
        "accuracy": rows[:1],
        "tasks_detail": [],
        "zero_shot": {"colours": [0.5]},
        **metrics.so_far(rows[:1]),
    }
    (copied / "results.json").write_text(json.dumps({k: None if v != v else v for k, v in results.items()}))
    assert "not defined: no task is finished yet" in read(write_report(copied)).text
    (copied / "results.json").unlink()
    assert "Nothing has been measured yet" in read(write_report(copied)).text


def test_what_is_not_defined_says_why(copied):
    results = json.loads((copied / "results.json").read_text())
    none = dict.fromkeys(("transfer", "average", "last", "forgetting", "bwt"))
    unmeasured = results | none | {"accuracy": [[None] * 2] * 3, "zero_shot": {"colours": [None] * 3}}
    (copied / "results.json").write_text(json.dumps(unmeasured | {"retention": {"colours": None}}))
    page = read(write_report(copied))
    assert page.text.count("not defined: nothing was measured") == 6
    alone = [[0.5, 0.5], [0.75, None], [None, 0.875]]
    (copied / "results.json").write_text(json.dumps(results | none | {"accuracy": alone, "last": 0.8125} | {
        "independent": True}))  # fmt: skip
    page = read(write_report(copied))
    assert page.text.count("every task has a model of its own") == 4
    assert page.values("What every model learned") == [[0.5, 0.75, None, 0.25], [0.5, 0.875, None, 0.375]]
    without = results | {"zero_shot_sets": [], "zero_shot": {}, "retention": {}}
    (copied / "results.json").write_text(json.dumps(without))
    assert "the scenario has no zero-shot set" in read(write_report(copied)).text


def made_run(
    folder: Path, names: list[str], classes: list[str], layers: tuple[int, int], steps: int
) -> RunDir:
    """A run's folder of any size, with everything that a report can read."""
    rng, found = np.random.default_rng(0), RunDir(folder)
    tasks = len(names)
    sets = ["a set", names[0]]
    accuracy = rng.uniform(0.2, 0.9, (tasks + 1, tasks))
    accuracy[1:, 0] = np.linspace(1, 0.5, tasks)
    zero_shot = {name: rng.uniform(0.5, 0.6, tasks + 1).tolist() for name in sets}
    split = [{"split": "test", "class": c, "key": f"{c}/{n}.png"} for c in classes for n in range(8)]
    results = {
        "schema": 1, "scenario": classes[0], "strategy": classes[-1], "seed": 0, "status": "done", "tasks": names,
        "model": {"name": classes[0], "pretrained": "x", "sha256": "0" * 64}, "zero_shot_sets": sets,
        "zero_shot_images": dict.fromkeys(sets, 900), "accuracy": accuracy.tolist(), "zero_shot": zero_shot,
        **metrics.summarize(accuracy), "retention": {s: metrics.retention(v) for s, v in zero_shot.items()},
        "tasks_detail": [{"name": n, "classes": 100, "shots": 16, "train_images": 1600, "test_images": 800,
                          "split_sha256": "0" * 64, "steps": steps, "train_seconds": 9.5} for n in names],
        "software": {"torch": classes[0]}, "device": classes[0],
    }  # fmt: skip
    scenario = {"name": "made", "protocol": "task-incremental", "tasks": [{"name": n} for n in names]}
    config = {
        "scenario": scenario,
        "strategy": {"name": classes[0]},
        "seed": 0,
        "model": results["model"],
        "splits": dict.fromkeys(names, "0" * 64),
    }
    for place in (found.record(0, "x"), found.analysis(0, "x"), found.predictions(0, "x"), found.split("x")):
        place.parent.mkdir(parents=True, exist_ok=True)
    found.results.write_text(json.dumps(results))
    found.config.write_text(yaml.safe_dump(config, allow_unicode=True))
    found.classes.write_text(
        json.dumps({n: {"classes": classes, "prompts": ["{}"]} for n in [*names, *sets]})
    )
    matrices = [
        f"{tower}transformer.resblocks.{layer}.{part}"
        for tower, depth in zip(("visual.", ""), layers, strict=True)
        for layer in range(depth)
        for part in ("attn.q", "attn.k", "attn.v", "attn.out_proj.o", "mlp.c_fc.fc", "mlp.c_proj.proj")
    ]
    measures = ("delta_norm", "relative_norm", "principal_overlap", "drift", "principal_rank", "update_rank")
    for index, name in enumerate(["zero-shot", *names]):
        if name != "zero-shot":
            found.split(name).write_text("".join(json.dumps(row) + "\n" for row in split))
        labels = np.repeat(np.arange(len(classes)), 8).astype(np.int32)
        labels[: 4 * (index > 1)] = len(classes) - 1
        answers = {f"{n}/label": labels for n in names} | {
            f"{n}/share": labels.astype(np.float32) for n in names
        }
        save_file(answers, found.predictions(index - 1, name))
        if index:
            geometry = {m: {"k": 100, "delta_norm": 1.0, "protected_overlap": 1e-8} for m in matrices}
            record = {"geometry": geometry, "curve": rng.uniform(0, 3, steps).tolist()}
            found.record(index - 1, name).write_text(json.dumps(record))
            earlier = names[: index - 1]
            values = {m: {k: float(rng.uniform()) for k in measures} for m in matrices}
            values = {m: v | {"overlap_with": {n: 0.25 for n in earlier}} for m, v in values.items()}
            cka = {n: 0.75 for n in earlier}
            found.analysis(index - 1, name).write_text(json.dumps({"matrices": values, "cka": cka}))
    parts = [
        {"kind": "matrix", "name": m, "returned": 1.0, "retention": {s: 0.5 for s in sets}} for m in matrices
    ]
    pairs = [
        {"new": new, "old": old, "images": 8, "accuracy_before": 0.9, "accuracy_after": 0.8, "parts": parts}
        for place, new in enumerate(names)
        for old in names[:place]
    ]
    (folder / "explain.json").write_text(json.dumps({"pairs": pairs}))
    return found


def test_a_long_stream_of_a_large_model_stays_small(tmp_path):
    names = [f"a long task name {n}" for n in range(11)]
    folder = made_run(tmp_path / "run", names, [f"class {n}" for n in range(100)], (24, 12), 3000)
    page = read(write_report(folder.root))
    assert len(page.tables["Accuracy matrix"]) == 13 and len(page.tables["Every matrix"]) == 217
    assert (
        len(page.tables["Overlap of the updates"]) == 11
        and len(page.tables["Drift of the image features"]) == 11
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


def test_changes_count_what_the_run_measured(finished):
    config, results = (
        yaml.safe_load((finished / name).read_text()) for name in ("config.yaml", "results.json")
    )
    folder = RunDir(finished)
    for column, name in enumerate(["warm", "cold"]):
        for state in (1, 2):
            found = changes(folder, config, name, 0, state)
            assert found.right_now / found.images == pytest.approx(results["accuracy"][state][column])
    held = changes(folder, config, "colours", 0, 2)
    assert held.right_now / held.images == pytest.approx(results["zero_shot"]["colours"][2])
    before, now = (sum(getattr(c, key) for c in held.confusions) for key in ("earlier", "now"))
    assert (held.images - before, held.images - now) == (held.right_earlier, held.right_now)


def test_label_spaces_are_those_of_the_protocol(finished):
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert label_space(RunDir(finished), config, "cold") == ["green", "blue"]
    config["scenario"]["protocol"] = "class-incremental"
    assert label_space(RunDir(finished), config, "cold") == ["red", "yellow", "green", "blue"]
    assert label_space(RunDir(finished), config, "colours") == ["blue", "green", "red", "yellow"]


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


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The folder of a comparison of three methods, of which two were swept; its runs are results alone."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    rng = np.random.default_rng(0)
    methods = [Method(name) for name in ("quick", "slow", "zeroshot")]
    values = {m.name: {metric: rng.uniform(30, 60, (2, 4)) for metric in METRICS} for m in methods}
    for m in methods:
        m.figures = {metric: v.mean(1).tolist() for metric, v in values[m.name].items()}
        if m.name != "slow":
            m.differences = {key: difference(v, values["slow"][key]) for key, v in values[m.name].items()}
        sizes = dict.fromkeys(("stored_bytes", "carried_bytes", "peak_memory_bytes"), 1e6)
        m.budget = {"steps": 8.0, "trainable_parameters": 2e4, "train_seconds": 3.0, **sizes}
        m.updates = {"norm": 0.5, "matrix_norm": 0.25, "principal": 0.1, "earlier": None, "cosine": None}
        if m.name != "zeroshot":
            points = [(1e-3, 40.0, -1.0), (5e-3, 50.0, -3.0)]
            m.curve = [
                {"settings": {"optimiser.lr": lr}, "told": f"lr={lr:g}", "error": None, "last": last, "average": last,
                 "retention": retention, "score": last}
                for lr, last, retention in points
            ]  # fmt: skip
            m.chosen = (("optimiser.lr", 5e-3),)
        for seed in (0, 1):
            variant = (
                "optimiser.lr-0.005" if m.name == "slow" else ""
            )  # the others' files say what was chosen
            place = folder / m.name / variant / f"seed{seed}"
            place.mkdir(parents=True)
            (place / "results.json").write_text("{}")
    request = Request(
        "tiny", tuple(m.name for m in methods), (0, 1), sweep={}, validation_shots=2, reference="slow"
    )
    save(Comparison(request, "tiny", "slow", methods).content(), folder)
    return folder


def test_a_comparison_shows_its_numbers_and_leads_to_its_runs(compared):
    page = read(write_report(compared))
    found = json.loads((compared / "comparison.json").read_text())
    names = ("learned", "last", "forgetting", "average", "transfer", "retention")
    for row, method in zip(page.values("Accuracy"), found["methods"].values(), strict=True):
        assert row[1:] == pytest.approx([np.mean(method["figures"][metric]) for metric in names])
    paired = {row[0][0]: [v for _, v in row[1:]] for row in page.tables["Paired differences"][1:]}
    for name in ("quick", "zeroshot"):
        assert paired[name] == [found["methods"][name]["differences"][metric]["mean"] for metric in names]
    assert len(page.tables["Sweep"]) == 5 and len(page.tables["Budget"]) == 4
    assert sum(row[-1][0] == "chosen" for row in page.tables["Sweep"]) == 2
    links = [a["href"] for a in page.all("a") if a["href"].startswith("./")]
    assert len(links) == 6 and all((compared / link / "results.json").is_file() for link in links)
    assert compare_command(found["request"]) in page.text
    assert "Settings chosen by last on validation shots (seed 0)." in page.text


def test_a_comparison_elsewhere_still_leads_to_its_runs(compared, tmp_path):
    page = read(write_report(compared, tmp_path / "a" / "b.html"))
    links = [a["href"] for a in page.all("a") if a["href"].startswith("./")]
    assert len(links) == 6 and all((tmp_path / "a" / link / "results.json").is_file() for link in links)


def test_many_strange_methods_stay_small_and_are_not_run(compared, tmp_path):
    found = json.loads((compared / "comparison.json").read_text())
    one = found["methods"]["quick"]
    names = [*HOSTILE, *(f"a method of a long name {n}" for n in range(30))]
    one["curve"] = [one["curve"][0] | {"last": 9.0 + n, "retention": -n / 3} for n in range(12)]
    found["methods"] |= {name: one | {"name": name} for name in names}
    found["methods"]["broken"] = one | {
        "name": "broken", "figures": {}, "budget": {}, "differences": {}, "updates": {}, "per_task": [],
        "failed": ["seed 0: <b>diverged</b>"],
    }  # fmt: skip
    found["methods"]["quick"]["figures"]["transfer"] = [None, None]
    (tmp_path / "comparison.json").write_text(json.dumps(found))
    page = read(write_report(tmp_path))
    assert "Failed: broken, seed 0: <b>diverged</b>" in page.text and not page.all("b")
    assert len(page.tables["Accuracy"]) == 40 and all(name in page.text for name in HOSTILE[:4])


def test_the_command_of_a_comparison_says_what_was_asked():
    request = {
        "scenario": "embedded", "strategies": ["a", "b c"], "seeds": [0, 1], "sweep": {"optimiser.lr": [1e-4, 3]},
        "sweep_seeds": [5], "metric": "harmonic", "floor": -5.0, "reference": "a", "validation_shots": 4,
        "scenario_settings": ["shots=4"], "strategy_settings": ["strategy.name=x"],
    }  # fmt: skip
    assert (
        compare_command(request)
        == "cl-complora compare embedded --strategies 'a,b c' --seeds 0,1 --sweep optimiser.lr=0.0001,3"
        " --sweep-seeds 5 --metric harmonic --validation-shots 4 --floor -5 --reference a --set"
        " scenario.shots=4 --set strategy.name=x"
    )
    assert "--sweep-from strategy" in compare_command(request | {"sweep": {}})
    assert "--sweep" not in compare_command(request | {"sweep": None})


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("visual.transformer.resblocks.3.attn.in_proj_weight[0:64]", ("vision", "3", "q")),
        ("visual.transformer.resblocks.3.attn.in_proj_weight[128:192]", ("vision", "3", "v")),
        ("visual.transformer.resblocks.3.attn.in_proj_weight", ("vision", "3", "qkv")),
        ("visual.transformer.resblocks.3.attn.q", ("vision", "3", "q")),
        ("visual.transformer.resblocks.11.attn.out_proj.weight", ("vision", "11", "o")),
        ("transformer.resblocks.0.attn.out_proj.o", ("text", "0", "o")),
        ("transformer.resblocks.0.mlp.c_fc.weight[0:256]", ("text", "0", "fc")),
        ("text.transformer.resblocks.0.mlp.c_proj.proj", ("text", "0", "proj")),
        ("visual.trunk.stages.2.blocks.14.mlp.fc1.weight", ("vision", "2.14", "fc")),
        ("visual.trunk.blocks.5.attn.qkv.weight[384:768]", ("vision", "5", "k")),
        ("visual.trunk.blocks.5.attn.proj.weight", ("vision", "5", "o")),
        ("visual.trunk.stages.1.downsample.1.weight", ("vision", "1", "downsample.1")),
        ("token_embedding.weight", ("text", "–", "token_embedding")),
        ("visual.head.proj.other", ("vision", "–", "proj")),
        ("visual.proj", ("vision", "–", "proj")),
        ("text_projection", ("text", "–", "text_projection")),
        ("", ("text", "–", "")),
    ],
)
def test_names_of_matrices_are_read_as_places(name, place):
    found = place_of(name)
    assert (found.tower, found.layer, found.kind) == place


def test_long_curves_are_averaged_and_keep_their_mean():
    values = np.random.default_rng(0).uniform(size=4000)
    steps, means = thinned(values)
    assert len(means) == MOST_POINTS and means.mean() == pytest.approx(values.mean())
    assert steps[0] == 5.5 and thinned(values[:7])[1].tolist() == values[:7].tolist()


def test_numbers_are_told_plainly():
    assert [number(v, 1, True).text for v in (1.26, -0.04, 0.0, -3.0, None, float("nan"))] == [
        "+1.3", "0.0", "0.0", "−3.0", "–", "–"
    ]  # fmt: skip
    assert plain("a\x00b" + "c" * 30, 8) == "abccccc…"
    assert front([(0, 1), (1, 0), (0, 0)]) == [(0, 1), (1, 0)]


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        colour = "#" + "".join(2 * c for c in colour[1:]) if len(colour) == 4 else colour
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return float(np.dot(parts, (0.2126, 0.7152, 0.0722)))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_told_apart_and_read():
    style = (TEMPLATES / "page.css").read_text()
    themes = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(themes) == 3
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): (#\w+)", theme))
        for paper in ("paper", "raised"):
            assert all(contrast(colours[name], colours[paper]) >= 4.5 for name in ("ink", "muted", "accent"))
        assert all(
            contrast(colours[name], colours["paper"]) >= 3
            for name in ("blue", "red", "green", "purple", "sky")
        )
    cells = [shaded(number(share), share) for share in np.linspace(0, 1, 101)]
    assert all(contrast(cell.ink, cell.shade) >= 4.5 for cell in cells)
