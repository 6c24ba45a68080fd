"""Strategies with a head: what they leave alone, what they store, and what is done with it afterwards."""

from __future__ import annotations

import functools
import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, load_file

from builders.commands import cli
from builders.heads import quick_head
from builders.interruptions import Said
from builders.measured import on_own_stream
from builders.places import LONG
from builders.runs import without_timings
from cl_complora.clip.evaluate import image_features
from cl_complora.clip.heads.head import ClosedHead
from cl_complora.config import load_scenario, load_strategy
from cl_complora.config.catalog import shipped
from cl_complora.config.heads import IN_WEIGHTS
from cl_complora.engine.fitting.fitting import class_means
from cl_complora.errors import UserError
from cl_complora.finished.explain import explain
from cl_complora.finished.export import export
from cl_complora.finished.predict import answering, label_space, predict
from cl_complora.finished.states import open_run
from cl_complora.report.html import write_report
from cl_complora.run.head_drift import head_drift
from cl_complora.run.stream import run
from cl_complora.store.answers import load_answers
from cl_complora.store.folder import RunDir
from cl_complora.store.records import Record

# Those that leave the towers alone and a head for every task.
HEADS = [
    name
    for name in shipped("strategy")
    if (chosen := load_strategy(name).value).head is not None
    and chosen.adapter.kind == "none"
    and chosen.head.kind not in IN_WEIGHTS
]


def finish(scenario, strategy: str, out, scenario_settings=(), settings=(), **options):
    head = load_strategy(strategy).value.head
    chosen = load_strategy(strategy, [*quick_head(head), *settings])
    return run(load_scenario(str(scenario), list(scenario_settings)), chosen, out=out, **options)


@pytest.fixture(scope="module")
def probed(tmp_path_factory, tiny_scenario):
    return finish(tiny_scenario, "linear-probe", tmp_path_factory.mktemp("probed"), analysis=False)


@pytest.fixture(scope="module")
def run_of(tmp_path_factory, tiny_scenario):
    """A finished run of a head on a protocol, for reading only."""

    @functools.cache
    def finished(strategy: str, protocol: str):
        out = tmp_path_factory.mktemp(strategy)
        return finish(tiny_scenario, strategy, out, [f"protocol={protocol}"], analysis=False)

    return finished


@pytest.mark.parametrize("strategy", HEADS)
def test_untouched_towers_keep_transfer_and_retention_at_zero_shot_exactly(strategy, run_of):
    found = run_of(strategy, "task-incremental")
    rows = np.array(found.results["accuracy"])
    assert rows[1, 1] == rows[0, 1]  # not learned yet
    assert rows[2, 0] == rows[1, 0]  # learned before
    assert found.results["transfer"] == rows[0, 1] and found.results["forgetting"] == 0
    assert found.results["zero_shot"]["colours"] == 3 * [found.results["zero_shot"]["colours"][0]]
    assert found.results["retention"] == {"colours": 0.0}
    states = [(-1, "zero-shot"), (0, "warm"), (1, "cold")]
    answers = [load_answers(RunDir(found.folder).predictions(*state)) for state in states]
    same = [("colours", 0, 1), ("colours", 1, 2), ("cold", 0, 1), ("warm", 1, 2)]
    for name, one, other in same:
        assert all(torch.equal(a, b) for a, b in zip(answers[one][name], answers[other][name], strict=True))
    assert not all(torch.equal(answers[0]["warm"][k], answers[1]["warm"][k]) for k in (0, 1))
    details = found.results["tasks_detail"]
    kind = load_strategy(strategy).value.head.kind
    assert [d["head"]["kind"] for d in details] == [kind, kind] and all(d["steps"] == 0 for d in details)
    assert all(d["trainable_parameters"] > 0 and d["delta_norm"] == 0 for d in details)


@pytest.mark.parametrize("strategy", HEADS)
def test_in_one_label_space_images_of_unlearned_classes_are_answered_as_before(strategy, run_of):
    """Where the texts take an image for a class that no head knows, the head has no say."""
    found = run_of(strategy, "class-incremental")
    folder = RunDir(found.folder)
    states = (-1, "zero-shot"), (0, "warm")
    before, after = (load_answers(folder.predictions(*state))["cold"][0] for state in states)
    unlearned = before >= 2
    if isinstance(open_run(found.folder, "warm").heads()["cold"], ClosedHead):
        assert torch.equal(before[unlearned], after[unlearned])
    assert found.results["retention"] == {"colours": 0.0}
    # One head for all tasks, which knows all classes so far.
    state = open_run(found.folder)
    assert len(set(map(id, state.heads().values()))) == 1
    assert set(state.heads()["warm"].classes) == {"red", "yellow", "green", "blue"}
    assert set(open_run(found.folder, "warm").heads()["cold"].classes) == {"red", "yellow"}


def test_a_damaged_head_is_named_and_fitted_again(probed, tiny_scenario, tmp_path):
    out, made = tmp_path / "runs", probed.folder.parents[2]
    folder = RunDir(shutil.copytree(made, out) / probed.folder.relative_to(made))
    head = folder.head(0, "warm")
    content = head.read_bytes()
    for damage in (content[:-1] + bytes([content[-1] ^ 1]), None):
        os.remove(head) if damage is None else head.write_bytes(damage)
        said = Said()
        again = finish(tiny_scenario, "linear-probe", out, progress=said, analysis=False)
        assert any(str(head) in line and "going on from before it" in line for line in said.lines)
        assert all(torch.equal(load_file(head)[k], v) for k, v in load(content).items()) and again.reused == 0
        assert without_timings(again.results) == without_timings(probed.results)


def test_eval_measures_what_the_run_recorded(probed):
    for after in ("0", "warm", "cold"):
        measured = on_own_stream(open_run(probed.folder, after), True)
        assert all(one.accuracy == one.recorded for one in measured)
    without = {one.name: one for one in on_own_stream(open_run(probed.folder, scale={"warm": 0.0}), False)}
    assert without["warm"].accuracy == probed.results["accuracy"][0][0]


def test_a_head_goes_with_the_features_of_the_merged_model(tiny_scenario, tmp_path):
    text = (
        "name: both\nadapter: {kind: lowrank, rank: 2}\noptimiser: {lr: 1e-2}\n"
        "training: {steps: 3}\nhead: {kind: nearest-mean}\n"
    )
    (tmp_path / "both.yaml").write_text(text)
    found = run(load_scenario(str(tiny_scenario)), load_strategy(str(tmp_path / "both.yaml")), out=tmp_path)
    for task, after in (("warm", "1"), ("cold", "2")):
        state = open_run(found.folder, after)
        classifier, head = state.classifier(), state.heads()[task]
        rows = [json.loads(line) for line in RunDir(found.folder).split(task).read_text().splitlines()]
        shots = [row for row in rows if row["split"] == "train"]
        root = load_scenario(str(tiny_scenario)).value.tasks[0].source.root
        pixels = torch.stack([state.loaded.pixels.read(f"{root}/{row['key']}") for row in shots])
        labels = torch.tensor([head.classes.index(row["class"]) for row in shots])
        means = class_means(image_features(classifier, pixels), labels, 2)
        assert torch.allclose(head.weight, means, atol=1e-6)
        untouched = class_means(image_features(open_run(found.folder, "0").classifier(), pixels), labels, 2)
        assert not torch.allclose(head.weight, untouched, atol=1e-4)
    assert all(one.accuracy == one.recorded for one in on_own_stream(open_run(found.folder), True))
    assert found.results["tasks_detail"][0]["delta_norm"] > 0
    explain(open_run(found.folder, "0"))  # its accuracies are those of the heads
    stored = json.loads((found.folder / "explain.json").read_text())
    assert stored is not None


def test_predict_asks_the_head(probed, class_folders, monkeypatch, capsys):
    state = open_run(probed.folder)
    images = sorted((class_folders / "test").glob("*/*.png"))
    space, head = label_space(state, task="warm"), answering(state, task="warm")
    found = list(predict(state, images, space, head=head))
    folder = RunDir(probed.folder)
    tested = [row["key"] for row in folder.read_split("warm") if row["split"] == "test"]
    recorded = zip(*load_answers(folder.predictions(1, "cold"))["warm"], strict=True)
    by_run = {class_folders / key: answer for key, answer in zip(tested, recorded, strict=True)}
    by_head = {one.path: one.classes[0] for one in found if one.path in by_run}
    assert len(by_head) == len(by_run) == 12
    for path, (label, share) in by_run.items():
        assert by_head[path] == (space.class_names[label], pytest.approx(float(share), abs=1e-3))

    def shares(*words) -> list[dict]:
        code, out, _ = cli(monkeypatch, capsys, "predict", probed.folder, images[0], "--json", *words)
        assert code == 0
        return [{c["class"]: c["probability"] for c in one["classes"]} for one in json.loads(out)]

    own = shares("--task", "warm")[0]
    expected = dict(next(one.classes for one in found if one.path == images[0]))
    assert own == pytest.approx(expected)
    texts = {name: value for name, value in shares("--classes", "red,yellow")[0].items()}
    assert own != pytest.approx(texts, abs=1e-6)  # names of the user's own are answered by texts
    joint = shares()[0]
    assert set(joint) == {"red", "yellow", "green", "blue"} and sum(joint.values()) == pytest.approx(1)
    warm = joint["red"] + joint["yellow"]
    assert joint["red"] / warm == pytest.approx(own["red"], abs=1e-4)  # within its task the head decides


# In one label space, in short, one of each: a head of weights, one of means, one that reads texts too.
@pytest.mark.parametrize(
    ("strategy", "protocol"),
    [(name, "task-incremental") for name in HEADS]
    + [(name, "class-incremental") for name in (HEADS if LONG else ("linear-probe", "rail", "nearest-mean"))],
)
def test_an_exported_head_answers_as_the_run_did(
    strategy, protocol, run_of, tmp_path, monkeypatch, capsys, class_folders
):
    found = run_of(strategy, protocol)
    # Of a name that no other test of this process has made known to open_clip.
    out = tmp_path / f"mine-{strategy}-{protocol}.safetensors"
    code, said, _ = cli(monkeypatch, capsys, "export", found.folder, "-o", out)
    assert code == 0 and "classifier.safetensors" in said and "cannot hold the heads" in said
    key = "warm" if protocol == "task-incremental" else "all"
    with safe_open(tmp_path / "classifier.safetensors", "pt") as file:
        about = json.loads(file.metadata()["heads"])
    assert set(about) == ({"warm", "cold"} if key == "warm" else {"all"})
    state = open_run(found.folder)
    head = state.heads()["warm"]
    tensors = load_file(tmp_path / "classifier.safetensors")
    stored = head.tensors()
    assert all(torch.equal(tensors[f"{key}/{name}"], value) for name, value in stored.items())

    # The lines on the page, as a stranger would run them.
    page = out.with_suffix(".md").read_text()
    lines = [part.split("```")[0] for part in page.split("```python\n")[1:]]
    picture = next((class_folders / "test" / "yellow").glob("*.png"))
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for part in lines[:2]:
        exec(part.replace("picture.jpg", str(picture)), names)
    printed = capsys.readouterr().out
    assert str(list(head.classes)) in printed
    space = label_space(state, list(head.classes)) if key == "all" else label_space(state, task="warm")
    told = next(iter(predict(state, [picture], space, head=head)))
    mine = names["logits"].softmax(-1)[0]
    assert head.classes[int(mine.argmax())] == told.classes[0][0]
    if key == "warm":
        assert dict(told.classes) == pytest.approx(
            dict(zip(head.classes, mine.tolist(), strict=True)), abs=1e-4
        )


def test_the_head_of_another_model_is_not_written_over(probed, tmp_path):
    state = open_run(probed.folder)
    export(state, tmp_path / "one.safetensors")
    with pytest.raises(UserError, match="classifier.safetensors: belongs to 'one'"):
        export(state, tmp_path / "two.safetensors")
    assert not (tmp_path / "two.safetensors").exists()


def test_a_head_does_not_go_with_streams_that_train_tasks_together():
    for stream in ("joint", "cumulative"):
        with pytest.raises(UserError, match="head: works with training.stream: sequential"):
            load_strategy("linear-probe", [f"training.stream={stream}"])
    with pytest.raises(UserError, match="head.kind"):
        load_strategy("linear-probe", ["head.kind=magic"])


def test_the_drift_of_heads_is_what_later_updates_of_the_towers_do_to_them(tiny_scenario, tmp_path, probed):
    """Heads that stay on towers that stay lose nothing; on towers that move it is told task by task."""
    still = probed.results["head_drift"]
    assert list(still) == ["warm", "cold"] and all(one["fitted"] == one["now"] for one in still.values())
    found = finish(
        tiny_scenario,
        "lora+text-head",
        tmp_path,
        settings=["training.steps=6", "optimiser.lr=0.05", "optimiser.rates={}"],
        analysis=False,
    )
    rows, drift = found.results["accuracy"], found.results["head_drift"]
    assert drift["warm"] == {"fitted": rows[1][0], "now": rows[2][0]}
    assert drift["cold"] == {"fitted": rows[2][1], "now": rows[2][1]}
    states = [load_answers(RunDir(found.folder).predictions(*one)) for one in ((0, "warm"), (1, "cold"))]
    assert not torch.equal(*(answered["warm"][1] for answered in states))  # the towers moved under it
    assert found.results["units"]["head_drift"] == "fraction"
    assert "Drift of the heads" in write_report(found.folder).read_text()
    shared = finish(tiny_scenario, "nearest-mean", tmp_path, ["protocol=class-incremental"], analysis=False)
    assert "head_drift" not in shared.results  # one head for all tasks, fitted anew after each


def test_the_drift_of_a_head_is_told_on_the_images_of_its_own_task():
    rows = [[0.5, 0.4, 0.3], [0.9, 0.4, 0.3], [0.8, 0.7, 0.3]]
    records = [Record(row, {}) for row in rows]
    tasks = [SimpleNamespace(name=name, captioned=False) for name in "abc"]

    def drift(kind: str, **scenario) -> dict | None:
        told = {"independent": False, "shares_labels": False} | scenario
        run = SimpleNamespace(
            strategy=SimpleNamespace(head=SimpleNamespace(kind=kind)),
            scenario=SimpleNamespace(**told),
            plans=SimpleNamespace(tasks=tasks),
        )
        return head_drift(run, records)

    assert drift("linear") == {"a": {"fitted": 0.9, "now": 0.8}, "b": {"fitted": 0.7, "now": 0.7}}
    assert drift("lfa") is None and drift("linear", independent=True) is None
