"""Runs with a captions set: R@k before the stream and after every task, and what becomes of it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from builders.captions import TEXTS, json_lines, painted
from builders.commands import cli
from builders.runs import without_timings
from cl_complora.analysis.paired import paired_changes
from cl_complora.config import load_scenario, load_strategy
from cl_complora.errors import UserError
from cl_complora.finished.export import export
from cl_complora.finished.states import open_run
from cl_complora.report.run.page import run_page
from cl_complora.report.run.recall import cards, headlines
from cl_complora.run.stream import run
from cl_complora.store.answers import ranks_of
from cl_complora.store.folder import RunDir
from cl_complora.store.loaded_run import load_run

KS = {"R@1": 1, "R@5": 5, "R@10": 10}


@pytest.fixture(scope="module")
def captioned(tmp_path_factory, tiny_scenario):
    """The tiny scenario with four pictures under which two texts each are written."""
    folder = tmp_path_factory.mktemp("captioned")
    painted(folder)
    json_lines(folder / "captions.jsonl")
    more = "\nretrieval:\n  - {name: told, source: {kind: captions, file: captions.jsonl}}\n"
    (folder / "scenario.yaml").write_text(tiny_scenario.read_text() + more)
    return folder / "scenario.yaml"


@pytest.fixture(scope="module")
def finished(captioned, tiny_strategy, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return run(load_scenario(str(captioned)), load_strategy(str(tiny_strategy)), out=out)


def naive(images: np.ndarray, texts: np.ndarray) -> dict[str, dict[str, float]]:
    """R@k from features by sorting; two texts an image, in order."""
    scores, owners = images @ texts.T, np.arange(len(texts)) // 2
    by_image = [owners[np.argsort(-row, kind="stable")] for row in scores]
    by_text = [np.argsort(-column, kind="stable") for column in scores.T]

    def found(rows, right, n: int) -> float:
        return float(np.mean([place in row[:n] for row, place in zip(rows, right, strict=True)]))

    return {
        "image_to_text": {k: found(by_image, range(len(images)), n) for k, n in KS.items()},
        "text_to_image": {k: found(by_text, owners, n) for k, n in KS.items()},
    }


def exported_features(folder, after: str, file, captioned, tiny_files):
    """Features of the pictures and texts by plain open_clip, of a state that was exported."""
    weights = export(open_run(folder, after), file)[0]
    model = open_clip.model.CLIP(**json.loads(tiny_files[0].read_text()))
    model.load_state_dict(load_file(weights))
    preprocess = open_clip.image_transform(32, is_train=False)
    pictures = torch.stack([preprocess(Image.open(captioned.parent / name)) for name in TEXTS])
    tokens = open_clip.tokenizer.SimpleTokenizer(context_length=16)(
        [t for own in TEXTS.values() for t in own]
    )
    with torch.no_grad():
        model.eval()
        found = model.encode_image(pictures, normalize=True), model.encode_text(tokens, normalize=True)
    return [one.numpy() for one in found]


def test_recall_before_and_after_is_that_of_exported_features(finished, captioned, tiny_files, tmp_path):
    results = finished.results
    assert results["retrieval_queries"] == {"told": {"images": 4, "texts": 8}}
    told = results["retrieval"]["told"]
    for state, after in ((0, "0"), (2, "cold")):
        features = exported_features(
            finished.folder, after, tmp_path / f"{state}.safetensors", captioned, tiny_files
        )
        for direction, shares in naive(*features).items():
            assert {k: told[direction][k][state] for k in KS} == pytest.approx(shares)
    for direction, shares in told.items():
        assert all(len(values) == 3 for values in shares.values())
        points = 100 * (shares["R@1"][-1] - shares["R@1"][0])
        assert results["retrieval_retention"]["told"][direction] == pytest.approx(points)
    assert results["units"]["retrieval"] == "fraction" and results["units"]["retrieval_retention"] == "points"


def test_ranks_are_kept_by_query_and_changes_are_paired(finished):
    folder = RunDir(finished.folder)
    config = folder.read_config()
    shares = finished.results["retrieval"]["told"]
    changes = paired_changes(folder, finished.results).retrieval["told"]
    for direction, queries in (("image_to_text", 4), ("text_to_image", 8)):
        first, last = (ranks_of(folder, config, "told", direction, state) == 1 for state in (0, 2))
        assert len(first) == queries == changes[direction].images
        assert (first.mean(), last.mean()) == (shares[direction]["R@1"][0], shares[direction]["R@1"][2])
        assert changes[direction].lost == (first & ~last).sum()
        assert changes[direction].won == (last & ~first).sum()
    with pytest.raises(UserError, match="without the ranks on 'warm'"):
        ranks_of(folder, config, "warm", "image_to_text", 0)


def test_the_rest_of_the_results_is_as_without_captions(finished, tiny_run):
    both = [without_timings(one.results) for one in (finished, tiny_run)]
    own = ("retrieval", "retrieval_retention", "retrieval_queries", "units")
    less = {key: value for key, value in both[0].items() if key not in own}
    plain = {key: value for key, value in both[1].items() if key != "units"}
    for one in (less, plain):
        for detail in one["tasks_detail"]:
            detail.pop("stored_bytes")
    assert less == plain


def answers_in(folder) -> dict[str, dict[str, list]]:
    """File → tensor → values of all recorded answers."""
    files = sorted((folder / "predictions").iterdir())
    return {file.name: {key: value.tolist() for key, value in load_file(file).items()} for file in files}


def test_a_run_that_was_cut_off_ends_with_the_same(finished, captioned, tiny_strategy, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished.folder.parents[2], out)
    folder = out / finished.folder.relative_to(finished.folder.parents[2])
    kept = answers_in(folder)
    for path in (folder / "tasks" / "002-cold.json", folder / "predictions" / "002-cold.safetensors"):
        path.unlink()
    again = run(load_scenario(str(captioned)), load_strategy(str(tiny_strategy)), out=out)
    assert again.reused == 1 and again.folder == folder
    assert without_timings(again.results) == without_timings(finished.results)
    assert answers_in(folder) == kept
    # A record that lost its retrieval is measured again.
    path = folder / "tasks" / "002-cold.json"
    content = json.loads(path.read_text())
    del content["retrieval"], content["sha256"]
    path.write_text(json.dumps(content))
    again = run(load_scenario(str(captioned)), load_strategy(str(tiny_strategy)), out=out)
    assert again.reused == 1 and without_timings(again.results) == without_timings(finished.results)


def test_heads_of_classes_leave_retrieval_alone(captioned, tmp_path):
    results = run(load_scenario(str(captioned)), load_strategy("nearest-mean"), out=tmp_path).results
    for shares in results["retrieval"]["told"].values():
        assert all(len(set(values)) == 1 for values in shares.values())


def test_views_tell_it(finished, captioned, monkeypatch, capsys, tmp_path, tiny_strategy):
    loaded = load_run(RunDir(finished.folder))
    page = run_page(loaded)
    (section,) = [one for one in page.sections if one.title == "Retrieval"]
    assert len(section.blocks) == 3
    events = EventAccumulator(str(finished.folder / "tensorboard")).Reload()
    tag = "retrieval/told/image_to_text/R1"
    told = finished.results["retrieval"]["told"]["image_to_text"]["R@1"]
    assert [event.value for event in events.Scalars(tag)] == pytest.approx(told)
    assert len(events.Scalars("retrieval_retention/told/text_to_image")) == 3
    code, out, _ = cli(monkeypatch, capsys, "eval", finished.folder, "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    row = rows["told, text to image R@1"]
    assert code == 0 and row["images"] == 8 and row["accuracy"] == row["recorded"]
    out_folder = finished.folder.parents[2]
    code, out, err = cli(
        monkeypatch, capsys, "run", captioned, "--strategy", tiny_strategy, "--out", out_folder
    )
    assert code == 0 and "told, image to text" in (out + err)


def test_other_captions_are_another_run(finished, captioned, tiny_strategy, tmp_path):
    folder = tmp_path / "changed"
    shutil.copytree(captioned.parent, folder)
    json_lines(folder / "captions.jsonl", TEXTS | {"red.png": ("another text",)})
    scenario = load_scenario(str(folder / "scenario.yaml"))
    with pytest.raises(
        UserError, match="the pictures of 'told', or their division, are others than when this run was made"
    ):
        run(scenario, load_strategy(str(tiny_strategy)), out=finished.folder.parents[2])


def test_independent_tasks_and_runs_without_measuring(captioned, tiny_strategy, tmp_path):
    strategy = load_strategy(str(tiny_strategy))
    apart = run(load_scenario(str(captioned), ["independent=true"]), strategy, out=tmp_path / "apart")
    values = apart.results["retrieval"]["told"]["text_to_image"]["R@1"]
    mean = 100 * (np.mean(values[1:]) - values[0])
    assert apart.results["retrieval_retention"]["told"]["text_to_image"] == pytest.approx(mean)
    blind = run(load_scenario(str(captioned)), strategy, out=tmp_path / "blind", evaluate=False)
    assert blind.results["retrieval"]["told"]["text_to_image"]["R@1"] == [None] * 3
    assert blind.results["retrieval_retention"]["told"]["image_to_text"] is None
    for one in (apart, blind):
        folder = RunDir(one.folder)
        paired = paired_changes(folder, one.results)
        assert not paired.retrieval
        assert "Retention told, image to text" in {card.name for card in cards(load_run(folder), paired)}
        assert len(list(headlines(one.results, paired))) == 2
        run_page(load_run(folder))
