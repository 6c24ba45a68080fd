"""Membership inference: the authors' figures, ties, what is no number, and what a run gives away."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from builders.golden import FORMS, golden
from cl_complora.cli import app
from cl_complora.config import load_scenario, load_strategy
from cl_complora.finished.evaluation import plans_of
from cl_complora.finished.membership import FLOOR, _balanced, _groups, audit, difference, ratio
from cl_complora.finished.roc import separation
from cl_complora.finished.states import open_run
from cl_complora.run.stream import run

RULES = {"loss_difference": difference, "loss_ratio": ratio}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_scenario):
    quick = load_strategy("lora", ["training.steps=8", "training.batch_size=4", "optimiser.lr=0.01"])
    return run(load_scenario(str(tiny_scenario)), quick, out=tmp_path_factory.mktemp("runs")).folder


def check(scores, expected, tolerance):
    found = separation(*scores, resamples=0)
    assert found.auc.value == pytest.approx(expected["auc"], abs=tolerance)
    for fpr, tpr in expected["tpr_at_fpr"].items():
        told = separation(*scores, fpr=float(fpr), resamples=0).tpr.value
        assert told == pytest.approx(tpr, abs=tolerance), fpr


@pytest.mark.parametrize("form", FORMS)
def test_the_authors_figures(form):
    for case in golden("membership", form)["cases"]:
        inputs, outputs = case["inputs"], case["outputs"]
        if "auc" in outputs:  # ties, and a score that is no number
            scores = (np.array(inputs[key], dtype=float) for key in ("score_member", "score_nonmember"))
            check(tuple(scores), outputs, 1e-9)
            continue
        pairs = [
            (np.array(inputs[f"{group}_finetuned"]), np.array(inputs[f"{group}_base"]))
            for group in ("member", "nonmember")
        ]
        for name, rule in RULES.items():
            check(tuple(rule(*pair) for pair in pairs), outputs[name], 1e-9)


def test_ties_count_half_and_no_point_is_dropped():
    same = separation([1.0, 1.0], [1.0, 1.0, 1.0])
    assert (same.auc.value, same.tpr.value) == (0.5, 0.0)
    # Collinear points: an FPR of 1/4 is on the straight line from 0 to 1/2, and must be found.
    members, others = [1.0, 2.0, 9.0, 9.0], [1.0, 2.0, 9.0, 9.0]
    assert separation(members, others, fpr=0.25).tpr.value == 0.25


def test_with_few_non_members_no_false_alarm_is_allowed():
    found = separation([0.0, 0.1, 0.9], [0.5, 1.0], fpr=0.01)
    assert found.tpr.value == pytest.approx(2 / 3)
    assert found.non_members == 2


def test_intervals_hold_the_figure_and_repeat():
    generator = np.random.default_rng(0)
    scores = generator.normal(-0.5, 1, 40), generator.normal(0, 1, 120)
    found = separation(*scores)
    assert found.auc.low < found.auc.value < found.auc.high
    assert found == separation(*scores) != separation(*scores, seed=1)


def test_nothing_to_tell_apart_is_no_number():
    found = separation([np.nan], [0.1])
    assert (found.auc.value, found.members, found.non_members) == (None, 0, 1)


def test_a_base_loss_near_zero_does_not_blow_up():
    assert ratio(np.array([0.5]), np.array([0.0]))[0] == 0.5 / FLOOR
    assert np.isnan(ratio(np.array([0.5]), np.array([np.nan]))[0])


def test_members_are_the_shots_and_others_are_used_by_no_task(folder):
    state = open_run(folder, after="0")
    plans = plans_of(state)
    trained = {item.key for task in plans.tasks for item in task.train}
    for group in _groups(state, state.results["tasks"], 1000):
        plan = group.task.plan
        assert len(group.task.train) == len(next(p for p in plans.tasks if p.name == plan.name).train)
        keys = [item.key for item in plan.test]
        assert len(set(keys)) == len(keys) == group.from_training + group.from_test > 0
        assert not trained & set(keys)
        assert set(group.task.test.labels.tolist()) == set(group.task.train.labels.tolist())


def test_images_that_settings_were_chosen_by_are_on_neither_side(tmp_path, tiny_scenario):
    """Nor are those that regularisers may train on; what is left of the training part are non-members."""
    quick = load_strategy("lora", ["training.steps=1", "training.batch_size=4"])
    scenario = load_scenario(str(tiny_scenario), ["validation_shots=2"])
    done = run(scenario, quick, out=tmp_path, evaluate=False, analysis=False)
    state = open_run(done.folder, after="0")
    plans = plans_of(state)
    chosen_by = {item.key for task in plans.tasks for item in task.validation}
    reference = {item.key for item in plans.reference.test}
    assert len(chosen_by) == 2 * 4 and reference
    for group, task in zip(_groups(state, ["warm", "cold"], 1000), plans.tasks, strict=True):
        members = [item.key for item in group.task.plan.train]
        others = [item.key for item in group.task.plan.test]
        assert members == [item.key for item in task.train] and len(group.task.train) == 2 * 3
        assert not chosen_by & {*members, *others} and not reference & set(others)
        assert len(group.task.validation) == 0
        names = task.source.class_names
        own = {item.key for item in task.source.items("train") if names[item.label] in task.class_names}
        assert set(others[: group.from_training]) == own - {*members} - chosen_by - reference != set()


def test_what_another_kind_of_source_lists_for_another_task_is_no_non_member(
    tmp_path, tiny_scenario, class_folders
):
    """Class folders, and a table of the same files: what one task trains on is no image that none did."""
    shots = [f"train/{name}/{number}.png,{name},train" for name in ("red", "blue") for number in range(4)]
    tested = [f"test/{name}/{number}.png,{name},test" for name in ("red", "blue") for number in range(2)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *shots, *tested]) + "\n")
    source = f"{{kind: manifest, file: {tmp_path / 'list.csv'}, root: {class_folders}}}"
    settings = [
        "tasks.0.classes=[red, blue]",
        f"tasks.1.source={source}",
        "tasks.1.classes=[red, blue]",
        "reference=null",
    ]
    quick = load_strategy("lora", ["training.steps=1", "training.batch_size=4"])
    scenario = load_scenario(str(tiny_scenario), settings)
    state = open_run(run(scenario, quick, out=tmp_path, evaluate=False, analysis=False).folder, after="0")
    plans = plans_of(state).tasks
    trained = {image for one in plans for image in one.source.identities(one.train)}
    for group in _groups(state, ["warm", "cold"], 1000):
        one = group.task.plan
        assert one.test and not trained & set(one.source.identities(one.test)), one.name


def test_of_many_members_so_many_are_asked(folder):
    for group in _groups(open_run(folder, after="0"), ["warm", "cold"], 2):
        assert sorted(item.label for item in group.task.plan.train) == [0, 1]


def test_classes_share_what_is_asked_for(folder):
    plan = plans_of(open_run(folder, after="0")).tasks[0]
    items = [*plan.test, *(replace(item, key=f"{item.key}x") for item in plan.test if item.label == 0)]
    chosen = _balanced(items, 4)
    assert sorted(item.label for item in chosen) == [0, 0, 1, 1]
    assert len(_balanced(items, 10**6)) == len(items) and _balanced(items, 0) == []


def test_an_audit_of_a_run(folder):
    found = audit(open_run(folder, after="0"))
    assert found == json.loads((folder / "membership.json").read_text())
    assert found["states"] == ["untouched model", "warm", "cold"]
    warm, cold = found["tasks"]
    curve = warm["untouched"]["loss-difference"]
    assert [row["state"] for row in curve] == [0, 1, 2]
    # The same model twice: no difference, so nothing but chance.
    assert curve[0]["auc"]["value"] == 0.5
    assert [row["state"] for row in cold["before"]["loss-ratio"]] == [2]
    assert cold["null"]["state"] == 1 and warm["null"]["loss-difference"]["auc"]["value"] == 0.5
    assert 0 <= cold["null"]["loss"]["auc"]["value"] <= 1


def test_independent_tasks_know_their_own_images_only(tmp_path, tiny_scenario):
    quick = load_strategy("lora", ["training.steps=2", "training.batch_size=4"])
    scenario = load_scenario(str(tiny_scenario), ["independent=true"])
    found = audit(open_run(run(scenario, quick, out=tmp_path).folder, after="0"))
    cold = found["tasks"][1]
    assert [row["state"] for row in cold["untouched"]["loss-difference"]] == [0, 2]
    assert cold["null"]["state"] == 0


def test_of_a_joint_run_every_task_is_trained_in_the_first_state(tmp_path, tiny_scenario):
    quick = load_strategy("joint", ["training.steps=2", "training.batch_size=4"])
    copy = run(load_scenario(str(tiny_scenario)), quick, out=tmp_path, analysis=False).folder
    found = audit(open_run(copy, after="0"))
    for task in found["tasks"]:
        assert task["trained_in_state"] == 1 and task["null"]["state"] == 0
        assert task["null"]["loss-difference"]["auc"]["value"] == 0.5
        assert [row["state"] for row in task["untouched"]["loss-difference"]] == [0, 1, 2]
        assert [row["state"] for row in task["before"]["loss-difference"]] == [1, 2]
        assert task["before"]["loss-ratio"] == task["untouched"]["loss-ratio"][1:]


def test_the_command_and_the_report(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    done = CliRunner().invoke(app, ["audit", str(copy), "--images", "5"])
    assert done.exit_code == 0, done.output
    assert "allows no false alarm" in " ".join(done.output.split())
    assert CliRunner().invoke(app, ["report", str(copy)]).exit_code == 0
    assert "What it gives away" in (copy / "report.html").read_text(encoding="utf-8")
    (copy / "membership.json").write_text('{"states": 3}')
    assert CliRunner().invoke(app, ["report", str(copy)]).exit_code == 0
    assert "membership.json is of another form" in (copy / "report.html").read_text(encoding="utf-8")
    assert "is no run" in str(CliRunner().invoke(app, ["audit", str(tmp_path)]).exception)
