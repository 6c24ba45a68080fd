"""The ways between the report of a comparison and those of its runs, and what regions.json adds."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

import pytest

from builders.commands import cli
from builders.pages import read
from builders.reported import made_run
from cl_complora.compare.method import METRICS, Method
from cl_complora.compare.study import Comparison, Request
from cl_complora.errors import UserError
from cl_complora.files import write_json
from cl_complora.report.comparison.members import comparison_of
from cl_complora.report.html import write_report
from cl_complora.report.run.audits import places
from cl_complora.store.folder import RunDir
from cl_complora.store.loaded_run import load_run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run's folder."""
    run = made_run(tmp_path_factory.mktemp("made") / "run", ["one"], ["a", "b"], (1, 1), 3).root
    for drawn in ("analysis", "tasks", "predictions"):
        shutil.rmtree(run / drawn)
    return run


@pytest.fixture
def compared(made, tmp_path):
    """A comparison of two methods with one seed, of which one was run with another rate than its file's."""
    folder = tmp_path / "runs" / "tiny"
    methods, last = [Method("plain"), Method("a # b")], RunDir(made).read_results()["last"]
    for method in methods:
        method.figures = {metric: [50.0] for metric in METRICS} | {"last": [100 * last]}
    methods[1].chosen = (("optimiser.lr", 0.005),)
    shutil.copytree(made, folder / "plain" / "seed0")
    request = Request("tiny", tuple(m.name for m in methods), (0,), reference="plain")
    content = Comparison(request, "tiny", "plain", methods).content()
    write_json(folder / "comparison.json", content)
    return folder


def test_a_run_that_ends_elsewhere_than_the_table_is_none_of_it(compared):
    """A published result has no run here, and what lies in its place was made with other settings."""
    content = json.loads((compared / "comparison.json").read_text())
    content["methods"]["plain"]["figures"]["last"] = [12.0]
    write_json(compared / "comparison.json", content)
    assert comparison_of(compared / "plain" / "seed0") is None


def links(page):
    return [a["href"] for a in page.all("a") if a["href"].endswith("report.html")]


def test_both_ways_where_there_is_a_report_and_nowhere_else(compared):
    run = compared / "plain" / "seed0"
    assert links(read(write_report(run))) == []  # the comparison has none yet
    page = read(write_report(compared))
    assert links(page) == ["./plain/seed0/report.html"]
    assert [row[2][0] for row in page.tables["Runs"][1:]] == ["report", "–"]
    back = read(run / "report.html")  # the way back was put in
    assert links(back) == ["./../../report.html"]
    assert "Comparison of tiny, which this run belongs to" in back.text
    before = (run / "report.html").read_text()
    assert write_report(run).read_text() == before
    (run / "report.html").write_text("somebody else's")
    write_report(compared)
    assert (run / "report.html").read_text() == "somebody else's"


def test_a_run_with_settings_of_its_own_leads_one_folder_further_up(made, compared):
    run = RunDir.of(compared.parent, "tiny", "a # b", 0, "optimiser.lr=0.005").root
    shutil.copytree(made, run)
    write_report(run)
    write_report(compared)
    assert links(read(run / "report.html")) == ["./../../../report.html"]
    elsewhere = compared.parent / "else" / "where.html"
    elsewhere.parent.mkdir()
    assert links(read(write_report(run, elsewhere))) == ["./../tiny/report.html"]
    (link,) = links(read(write_report(compared, elsewhere)))
    assert (elsewhere.parent / link.replace("%23", "#")).resolve() == (run / "report.html").resolve()


@pytest.mark.parametrize("place", ["other/seed0", "plain/seed1", "plain/x/seed0", "seed0", "a/b/plain/seed0"])
def test_a_run_that_was_not_compared_belongs_to_none(compared, place):
    assert comparison_of(compared / "plain" / "seed0") == compared
    (compared / place).mkdir(parents=True)
    assert comparison_of(compared / place) is None


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"methods": {"plain": 3}, "request": {}}'])
def test_runs_belong_to_no_damaged_comparison(compared, content):
    (compared / "comparison.json").write_text(content)
    assert comparison_of(compared / "plain" / "seed0") is None


OUTSIDE = "/../../../../victim"


def test_a_seed_that_is_a_path_leads_nowhere(compared, monkeypatch, capsys):
    """Whoever made the folder, nothing outside it is written."""
    run = shutil.copytree(compared / "plain" / "seed0", compared.parents[1] / "victim")
    (compared / "plain" / "seed").mkdir()
    content = json.loads((compared / "comparison.json").read_text())
    content["request"]["seeds"] = [OUTSIDE]
    write_json(compared / "comparison.json", content)
    for words in (["report", "--runs", compared], ["report", compared]):
        code, _, err = cli(monkeypatch, capsys, *words)
        assert code == 2 and "comparison.json: damaged" in err and "request.seeds.0" in err
        assert err.count("\n") == 1 and "writes it again" in err
    assert not (run / "report.html").exists() and not (compared / "report.html").exists()


def test_a_run_that_is_a_link_out_of_the_folder_is_none_of_it(compared, monkeypatch, capsys):
    run, victim = compared / "plain" / "seed0", compared.parents[1] / "victim"
    shutil.move(run, victim)
    run.symlink_to(victim)
    code, out, _ = cli(monkeypatch, capsys, "report", "--runs", compared)
    assert code == 0 and "0 reports of runs written" in out
    assert not (victim / "report.html").exists() and "not found" in read(compared / "report.html").text


@pytest.mark.parametrize(
    "content",
    ["[" * 200_000, '{"scenario": 1e400, "methods": {"a": ' + "9" * 400 + "}}", "pipe"],
    ids=["nested", "large", "pipe"],
)
def test_a_hostile_comparison_is_told_in_one_line(compared, monkeypatch, capsys, content):
    file = compared / "comparison.json"
    file.unlink()
    os.mkfifo(file) if content == "pipe" else file.write_text(content)
    code, _, err = cli(monkeypatch, capsys, "report", compared)
    assert code == 2 and err.count("\n") == 1 and str(compared) in err


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("request", "seeds"), [-1]),
        (("request", "seeds"), [True]),
        (("request", "strategies"), "plain"),
        (("methods", "plain", "name"), ["plain"]),
        (("methods", "plain", "chosen"), {"optimiser.lr": "../.."}),
        (("methods", "plain", "figures", "last"), [10**400]),
        (("methods", "plain", "figures", "last"), ["50"]),
        (("methods", "plain", "per_task"), [3]),
        (("methods",), {}),
    ],
)
def test_a_comparison_of_another_form_is_damaged(compared, path, value):
    content = json.loads((compared / "comparison.json").read_text())
    part = content
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    (compared / "comparison.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"comparison\.json: damaged"):
        write_report(compared)
    assert comparison_of(compared / "plain" / "seed0") is None


def regions(**changes):
    shares = {"class_token": 0.5, "dense": 0.25, "box": 0.3, "crop": 0.4}
    states = [
        {"after": "untouched model", "sets": {"one": shares}},
        {"after": "two", "sets": {"one": shares | {"dense": 0.75, "crop": 0.35}}},
    ]
    return {"box": [0, 0, 1, 1], "images": {"one": 40}, "states": states} | changes


def test_the_command_writes_the_reports_of_all_runs(compared, monkeypatch, capsys):
    code, out, _ = cli(monkeypatch, capsys, "report", "--runs", compared)
    assert code == 0 and "1 reports of runs written" in out
    assert links(read(compared / "report.html")) == ["./plain/seed0/report.html"]
    assert links(read(compared / "plain" / "seed0" / "report.html")) == ["./../../report.html"]
    code, _, err = cli(monkeypatch, capsys, "report", "--runs", compared / "plain" / "seed0")
    assert code == 2 and "is no comparison (no comparison.json)" in err


def test_regions_are_shown(made, tmp_path):
    run = shutil.copytree(made, tmp_path / "run")
    (run / "regions.json").write_text(json.dumps(regions()))
    page = read(write_report(run))
    assert page.values("Accuracy after 'two'") == [[40, 0.5, 0.75, 0.3, 0.35]]
    assert page.values("Change of these accuracies since the untouched model")[0][1:] == pytest.approx(
        [0, 0.5, 0, -0.05]
    )
    assert len(page.tables["Places after every task"]) == 3 and "What it sees where" in page.text


@pytest.mark.parametrize(
    "wrong", [{"states": []}, {"images": {}}, {"states": [{"sets": 3}]}, {"states": None}]
)
def test_regions_of_another_form_are_left_out(made, wrong):
    run = replace(load_run(RunDir(made)), regions=regions(**wrong))
    (notice,) = places(run)
    assert "regions.json is of another form and left out" in notice.sentences[0]
