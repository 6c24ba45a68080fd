"""Figures of a run's page that a wrong sign, state or limit would change, of runs whose numbers are known."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cl_complora.analysis.mistakes import ClassAnswers
from cl_complora.analysis.paired import PairedChanges
from cl_complora.metrics import paired_change
from cl_complora.report.comparison.tables import floor_table
from cl_complora.report.run import causes, classes, facts
from cl_complora.report.run.forgetting import forgetting
from cl_complora.report.run.head_drift_table import head_drift_table
from cl_complora.report.run.precision import headlines as precision_headlines
from cl_complora.report.run.precision import multi_label
from cl_complora.report.run.recall import cards
from cl_complora.report.run.summary import summary
from cl_complora.store.folder import RunDir
from cl_complora.store.loaded_run import LoadedRun


@pytest.fixture
def made(tmp_path):
    """A run of three tasks, two of which are done; what is given replaces its results."""

    def of(status: str = "running", **figures) -> LoadedRun:
        rows = [[0.25, 0.25, 0.25], [0.75, 0.5, 0.25], [0.5, 1.0, 0.25]]
        results = {
            "scenario": "s",
            "strategy": "m",
            "seed": 0,
            "status": status,
            "tasks": ["a", "b", "c"],
            "zero_shot_sets": [],
            "zero_shot": {},
            "retention": {},
            "accuracy": rows,
            "bwt": -0.25,
            "tasks_detail": [],
        }
        return LoadedRun(RunDir(tmp_path), results | figures, {"scenario": {}, "strategy": {}})

    return of


def told(table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def test_drift_of_a_head_is_negative_where_it_answers_fewer_images_now(made):
    drift = {"a": {"fitted": 0.875, "now": 0.75}, "b": {"fitted": 0.5, "now": None}}
    (table,) = head_drift_table(made(head_drift=drift))
    assert told(table) == [["a", "87.5", "75.0", "−12.5"], ["b", "50.0", "–", "–"]]


def test_map_changes_since_the_untouched_model(made):
    curves = {"mAP": [0.5, 0.75, 0.25], "mAP_normalised": [0.5] * 3, "mAP_sparc": [None] * 3}
    figures = {"multi_label": {"set": curves}, "multi_label_retention": {"set": -25.0}}
    (table,) = multi_label(made(**figures))
    assert [row[-1] for row in told(table)] == ["–", "+25.0", "−25.0"]
    ((_, points, meaning),) = precision_headlines(made(**figures).results)
    assert points == -25 and meaning == "mAP 50.0 % before, 25.0 % now"


def test_recall_is_told_before_and_now(made):
    shares = {"R@1": [0.5, 0.75, 0.25], "R@5": [1.0] * 3, "R@10": [1.0] * 3}
    figures = {
        "retrieval": {"set": {"image_to_text": shares, "text_to_image": shares}},
        "retrieval_retention": {"set": {"image_to_text": -25.0, "text_to_image": -25.0}},
    }
    shown = cards(made(**figures), PairedChanges())
    assert [card.meaning for card in shown] == ["R@1 50.0 % before, 25.0 % now"] * 2
    assert [card.cell.text for card in shown] == ["−25.0"] * 2


def test_a_class_changed_since_its_task_was_just_trained(made, monkeypatch):
    asked = {}

    def answers(folder, config, task, states):
        asked[task] = states
        return [ClassAnswers(f"{task}1", 4, (0, 2, 3)), ClassAnswers(f"{task}2", 4, (1, 4, 1))]

    monkeypatch.setattr(classes, "answers_by_class", answers)
    (fold,) = classes.every_class(made())
    assert asked == {"a": (0, 1, 2), "b": (0, 2, 2)}
    (table,) = fold.blocks
    # The class that lost most stands first.
    assert told(table)[:2] == [
        ["a2", "a", "4", "25.0", "100.0", "25.0", "−75.0"],
        ["a1", "a", "4", "0.0", "50.0", "75.0", "+25.0"],
    ]


def test_answers_are_compared_with_the_state_that_was_best(made, monkeypatch):
    asked = []

    def answers(folder, config, name, earlier, now):
        asked.append((name, earlier, now))
        return SimpleNamespace(name=name, images=4, right_earlier=4, right_now=2, mistakes=[], confusions=[])

    monkeypatch.setattr(causes, "changes", answers)
    monkeypatch.setattr(causes, "_confusions", lambda found: [])
    rows = [[0.25] * 3, [0.5, 0.25, 0.25], [0.75, 1.0, 0.25], [0.25, 1.0, 0.25]]
    blocks = causes.changed_answers(made("done", accuracy=rows))
    assert asked == [("a", 2, 3)] and "Right after b, when it was best" in repr(blocks[0])


@pytest.mark.parametrize(("known", "shown"), [(["a"], True), ([], False), (["a", "b"], False)])
def test_the_interval_of_bwt_stands_where_all_earlier_tasks_are_known(made, known, shown):
    paired = PairedChanges({name: paired_change(2, 1, 4) for name in known})
    (bwt,) = [card for card in summary(made(), paired)[-1].cards if card.name.startswith("BWT")]
    assert ("95 % interval" in bwt.meaning) == shown


def test_the_sentence_on_a_zero_shot_set_names_no_change_that_rounds_to_none(made):
    for points, sentence in (
        (-1.3, "lost 1.3 points"),
        (0.04, "is what it was"),
        (2.0, "gained 2.0 points"),
    ):
        curve = {"held": [0.5, 0.5, 0.5 + points / 100]}
        run = made(zero_shot_sets=["held"], zero_shot=curve, retention={"held": points})
        assert f"Zero-shot accuracy on held {sentence}." in repr(summary(run, PairedChanges()))


def test_a_point_that_loses_just_as_much_as_the_floor_is_above_it():
    def point(last: float, lost: float) -> dict:
        return {"error": None, "last": last, "retention": -lost}

    method = {"name": "m", "error": None, "curve": [point(90, 5.0), point(80, 2.0), point(70, 1.01)]}
    ((_, *cells),) = floor_table({"methods": {"m": method}})[1]
    assert [cell.text for cell in cells] == ["–", "80.0", "90.0", "90.0", "90.0", "90.0"]


def test_a_stream_of_one_task_is_told_so(made):
    one = made(tasks=["a"], accuracy=[[0.5]], device="cpu", model={"name": "m"})
    assert facts.facts(one)["Stream"].startswith("1 task, ")


def test_shots_are_told_of_the_tasks_that_have_classes():
    def told(*given: tuple) -> str | None:
        return facts.shots([{"shots": count, "classes": classes} for count, classes in given])

    assert told((8, 2), (None, 0)) == "8" and told((None, 2), (None, 3)) == "all images"
    assert told(([2, 16], 2), (8, 2)) == "2–16" and told((8, 2), (None, 3)) == "8 or all images"
    assert told((None, 0)) is None and facts.shots([]) is None


def test_tasks_that_are_trained_together_are_all_learned_in_the_first_state(made, monkeypatch):
    """Also while the run goes on, whose matrix has one row of them."""
    monkeypatch.setattr(
        classes, "answers_by_class", lambda folder, config, task, states: [ClassAnswers(task, 4, (1, 3))]
    )
    run = made(accuracy=[[0.25] * 3, [0.75, 0.5, 1.0]], bwt=None)
    run.config["strategy"] = {"training": {"stream": "joint"}}
    assert run.trained == 1 and run.learned == 3 and run.final.tolist() == [0.75, 0.5, 1.0]
    assert run.learned_in == [1, 1, 1] and run.most_forgotten() is None
    assert "the 3 tasks learned went from 25.0 % (untouched model) to 75.0 %" in repr(
        summary(run, PairedChanges())
    )
    gains, fold = forgetting(run, PairedChanges())
    assert [row[-1] for row in told(gains)] == ["+50.0", "+25.0", "+75.0"]
    (table,) = fold.blocks
    assert table.head[-3:] == ["untouched %", "trained %", "gain"] and "lost" not in table.note
    assert told(table) == [[name, name, "4", "25.0", "75.0", "+50.0"] for name in "abc"]


def test_a_run_that_failed_says_why(made):
    run = made()
    run.folder.failure.parent.mkdir(parents=True, exist_ok=True)
    run.folder.failure.write_text('{"error": "training diverged"}')
    assert "2 of 3 tasks are done. It failed: training diverged." in repr(summary(run, PairedChanges()))
