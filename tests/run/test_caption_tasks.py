"""Captions as a task of a stream: trained by CLIP's loss, merged, measured by retrieval, resumed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from safetensors.torch import load_file

from builders.caption_tasks import with_captions
from builders.commands import cli
from builders.interruptions import ask_after, same_bits
from builders.measured import on_own_stream
from builders.places import LONG
from builders.runs import deltas_of, without_timings
from cl_complora.clip.text import TextEncoder
from cl_complora.compare.by_image import kept_by
from cl_complora.config import load_scenario, load_strategy
from cl_complora.engine import clip_strategy
from cl_complora.errors import UserError
from cl_complora.finished.states import find_state, open_run
from cl_complora.report.run.page import run_page
from cl_complora.report.run.tables import matrix
from cl_complora.run.signals import Stopped
from cl_complora.run.stream import run
from cl_complora.store.answers import ranks_of
from cl_complora.store.folder import RunDir
from cl_complora.store.loaded_run import load_run


@pytest.fixture(scope="module")
def stream(tmp_path_factory, tiny_scenario):
    return with_captions(tmp_path_factory.mktemp("captions"), tiny_scenario.read_text())


@pytest.fixture(scope="module")
def finished(stream, tiny_strategy, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return run(load_scenario(str(stream)), load_strategy(str(tiny_strategy)), out=out)


def test_the_matrix_holds_the_mean_of_r1_of_both_directions(finished):
    results, folder = finished.results, RunDir(finished.folder)
    assert results["tasks"] == ["warm", "told", "cold"]
    assert results["task_measures"] == {"told": "mean R@1 of both directions"}
    config, column = folder.read_config(), [row[1] for row in results["accuracy"]]
    for state, value in enumerate(column):
        ways = [
            float(np.mean(ranks_of(folder, config, "told", way, state) == 1))
            for way in ("image_to_text", "text_to_image")
        ]
        assert value == pytest.approx(sum(ways) / 2)
        told = results["retrieval"]["told"]
        assert [told[way]["R@1"][state] for way in told] == pytest.approx(ways)
    rows = np.array(results["accuracy"])
    bwt = np.mean([rows[3, task] - rows[task + 1, task] for task in (0, 1)])
    assert results["bwt"] == pytest.approx(bwt)
    # What the task itself learned is no knowledge that was to be retained.
    assert results["retrieval_retention"] == {} and results["retrieval_queries"]["told"]["images"] == 8
    detail = results["tasks_detail"][1]
    assert (detail["classes"], detail["train_images"], detail["texts"], detail["steps"]) == (0, 8, 16, 4)
    shares = [len((one or {}).get("training_accuracy", [])) for one in load_run(folder).records[1:]]
    assert shares == [4, 0, 4]


def test_its_update_is_low_rank_and_merged_like_any_other(finished):
    deltas = deltas_of(finished.folder)
    assert {name: sorted(tensors) for name, tensors in deltas.items()}["002-told.safetensors"] == sorted(
        deltas["001-warm.safetensors"]
    )
    assert finished.results["tasks_detail"][1]["delta_norm"] > 0
    state = open_run(finished.folder)
    for one in on_own_stream(state, True):
        assert one.recorded == pytest.approx(one.accuracy), one.name


@pytest.mark.parametrize("step", [5, 6, 7] if LONG else [6])
def test_a_run_stopped_inside_the_task_ends_with_the_same_bits(
    finished, stream, tiny_strategy, tmp_path, monkeypatch, step
):
    scenario, strategy = load_scenario(str(stream)), load_strategy(str(tiny_strategy))
    with monkeypatch.context() as patch:
        ask_after(patch, step)
        with pytest.raises(Stopped):
            run(scenario, strategy, out=tmp_path, analysis=False)
    again = run(scenario, strategy, out=tmp_path)
    assert again.reused == 1
    assert same_bits(again.folder, finished.folder)
    assert without_timings(again.results)["accuracy"] == without_timings(finished.results)["accuracy"]


@pytest.mark.parametrize(
    "strategy, told",
    [
        ("nearest-mean", "head: nearest-mean is all that learns, from the classes of a task"),
        ("rail", "head: ridge is all that learns"),
        ("replay", "memory: replay keeps images of every class"),
        ("focal", "training.loss: focal weighs the classes"),
        ("balanced-softmax", "training.loss: balanced-softmax weighs the classes"),
        ("codyra", "regularisers: text-to-image compares images with the class texts"),
    ],
)
def test_parts_that_need_classes_are_refused(stream, tmp_path, strategy, told):
    with pytest.raises(UserError) as caught:
        run(load_scenario(str(stream)), load_strategy(strategy), out=tmp_path)
    assert told in str(caught.value) and "task 'told'" in str(caught.value)
    assert not list(tmp_path.rglob("*.json"))


def test_a_head_beside_an_adapter_answers_for_the_tasks_that_have_classes(stream, tmp_path):
    scenario = load_scenario(str(stream))
    quick = load_strategy("complora", ["training.steps=2", "training.batch_size=4"])
    ran = run(scenario, quick, out=tmp_path)
    heads = sorted(path.name for path in (ran.folder / "heads").iterdir())
    assert heads == ["001-warm.safetensors", "003-cold.safetensors"]
    assert sorted(open_run(ran.folder).heads()) == ["cold", "warm"]
    deltas = deltas_of(ran.folder)
    for path in ("tasks/003-cold.json", "deltas/003-cold.safetensors", "results.json"):
        (ran.folder / path).unlink()
    again = run(scenario, quick, out=tmp_path)
    assert again.reused == 2 and without_timings(again.results) == without_timings(ran.results)
    last = deltas_of(again.folder)["003-cold.safetensors"]
    assert all(value.equal(last[key]) for key, value in deltas["003-cold.safetensors"].items())


def test_a_batch_of_one_has_no_pairs(stream, tiny_strategy, tmp_path):
    one = load_strategy(str(tiny_strategy), ["training.batch_size=1"])
    with pytest.raises(UserError, match="batch_size: 1 leaves nothing to tell a pair from"):
        run(load_scenario(str(stream)), one, out=tmp_path)


@pytest.mark.parametrize("stream_of", ["joint", "cumulative"])
def test_tasks_are_trained_together_each_by_its_own_loss(
    stream, tmp_path, stream_of, tiny_strategy, monkeypatch
):
    real, batches = clip_strategy.loss_with_captions, []

    def noting(batch, captioned, of_classes):
        asked = []
        loss = real(batch, captioned, lambda rest: asked.append(set(rest.of.tolist())) or of_classes(rest))
        batches.append((tuple(captioned), set(batch.of.tolist()), set().union(*asked)))
        return loss

    monkeypatch.setattr(clip_strategy, "loss_with_captions", noting)
    settings = [f"training.stream={stream_of}", "training.steps=2"]
    strategy = load_strategy(str(tiny_strategy), settings)
    ran = run(load_scenario(str(stream)), strategy, out=tmp_path, analysis=False)
    # Which of the parts of a training have captions, whenever one of them has.
    all_three = (False, True, False)
    expected = {all_three} if stream_of == "joint" else {(False, True), all_three}
    assert {captioned for captioned, _, _ in batches} == expected
    assert all(of_classes == parts - {1} for _, parts, of_classes in batches)
    assert {part for captioned, parts, _ in batches for part in parts if captioned == all_three} == {0, 1, 2}
    moved = [detail["delta_norm"] > 0 for detail in ran.results["tasks_detail"]]
    assert moved == [True, stream_of == "cumulative", stream_of == "cumulative"]
    assert all(math.isfinite(value) for row in ran.results["accuracy"] for value in row)


@pytest.mark.parametrize("strategy", ["ewc", "lwf", "inflora", "lora-ga"])
def test_parts_that_look_at_a_whole_task_see_its_first_texts(stream, tmp_path, strategy, monkeypatch):
    real, asked = TextEncoder.encode_space, []
    monkeypatch.setattr(
        TextEncoder, "encode_space", lambda self, space: asked.append(space.prompts) or real(self, space)
    )
    quick = load_strategy(strategy, ["training.steps=2", "training.batch_size=4"])
    ran = run(load_scenario(str(stream)), quick, out=tmp_path, analysis=False, evaluate=False)
    rows = RunDir(ran.folder).read_split("told", "texts")
    first = dict.fromkeys(row["texts"][0] for row in rows if row["split"] == "train")
    assert tuple((text,) for text in first) in asked
    assert all(detail["delta_norm"] > 0 for detail in ran.results["tasks_detail"])
    for tensors in deltas_of(ran.folder).values():
        assert all(bool(value.isfinite().all()) for value in tensors.values() if value.is_floating_point())


def test_independent_tasks_and_measuring_on_validation_pictures(tiny_scenario, tiny_strategy, tmp_path):
    more = "    images: 6\n    validation_images: 2\n"
    file = with_captions(tmp_path, tiny_scenario.read_text(), more)
    apart = load_scenario(str(file), ["independent=true"])
    rows = run(apart, load_strategy(str(tiny_strategy)), out=tmp_path / "apart").results["accuracy"]
    assert [math.isnan(x if x is not None else math.nan) for x in rows[1]] == [False, True, True]
    assert [x is not None and math.isfinite(x) for x in rows[2]] == [False, True, False]
    chosen = load_scenario(str(file), ["measure=validation", "validation_shots=1"])
    ran = run(chosen, load_strategy(str(tiny_strategy)), out=tmp_path / "chosen")
    assert ran.results["retrieval_queries"] == {"told": {"images": 2, "texts": 4}}


def test_finished_commands_work_on_it_or_say_why_not(finished, stream, tmp_path, monkeypatch, capsys):
    folder = str(finished.folder)
    for command, told in (
        (("audit", folder), "losses over the classes"),
        (("explain", folder), "answers among classes"),
        (("curvature", folder, "--task", "told"), "how they are drawn into batches"),
        (("predict", folder, stream.parent, "--task", "told"), "no classes to tell apart"),
    ):
        code, _, output = cli(monkeypatch, capsys, *command)
        assert code == 2 and told in " ".join(output.split()), output
    code, _, output = cli(monkeypatch, capsys, "export", folder, "-o", tmp_path / "w.safetensors")
    assert code == 0 and "told**: pictures with captions" in (tmp_path / "w.md").read_text()
    code, output, _ = cli(monkeypatch, capsys, "eval", folder)
    assert code == 0 and "told, image to text R@1" in " ".join(output.split())
    code, _, output = cli(
        monkeypatch, capsys, "curvature", folder, "--task", "cold", "--jointly", "--images", "4"
    )
    assert code == 0, output


def test_the_report_shows_its_recall_and_no_retention_of_it(finished):
    page = run_page(load_run(RunDir(finished.folder)))
    shown = repr(page)
    assert "told, image to text" in shown and "Retention told" not in shown
    assert "told (R@1)" in shown and "it is the mean R@1 of both directions" in shown
    columns = [column.header for column in matrix(finished.results, [1, 2, 3]).columns]
    assert columns == ["after", "warm", "told\n(mean R@1)", "cold", "colours\n(zero-shot)"]
    assert kept_by(RunDir(finished.folder), finished.results).keys() == {"retention"}


def test_the_manifest_has_texts_and_classes_json_only_classes(finished):
    folder = RunDir(finished.folder)
    assert "told" not in folder.read_labels()
    rows = folder.read_split("told", "texts")
    assert {row["split"] for row in rows} == {"train", "test"} and len(rows) == 16
    state = find_state(finished.folder, "0")
    assert state.captioned == ["told"] and "told" not in state.spaces()
    answers = load_file(folder.predictions(1, "told"))
    assert {key for key in answers if key.startswith("told/")} == {"told/image_rank", "told/text_rank"}
