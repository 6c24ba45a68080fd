"""Runs with a multi-label set: mAP before the stream and after every task, and what becomes of it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from builders.captions import painted
from builders.commands import cli
from builders.runs import without_timings
from cl_complora.config import load_scenario, load_strategy
from cl_complora.finished.export import export
from cl_complora.finished.states import open_run
from cl_complora.report.run.page import run_page
from cl_complora.report.run.precision import cards, headlines
from cl_complora.run.stream import run
from cl_complora.store.folder import RunDir
from cl_complora.store.forms import PRECISIONS
from cl_complora.store.loaded_run import load_run

LABELS = {"red": ["warm", "red"], "yellow": ["warm"], "green": [], "blue": ["cold"]}
NAMES = ["cold", "red", "warm"]  # sorted, as the file names none


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, tiny_scenario):
    """The tiny scenario with four pictures and their labels."""
    folder = tmp_path_factory.mktemp("labelled")
    painted(folder)
    rows = [{"image": f"{name}.png", "labels": own} for name, own in LABELS.items()]
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = "\nmulti_label:\n  - {name: several, source: {kind: multi-label, file: labels.jsonl}}\n"
    (folder / "scenario.yaml").write_text(tiny_scenario.read_text() + more)
    return folder / "scenario.yaml"


@pytest.fixture(scope="module")
def finished(labelled, tiny_strategy, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return run(load_scenario(str(labelled)), load_strategy(str(tiny_strategy)), out=out)


def naive(images: np.ndarray, texts: np.ndarray) -> tuple[float, float]:
    """mAP of the cosines and of the normalised ones, from features."""
    positive = np.array([[name in own for name in NAMES] for own in LABELS.values()])
    scores = images @ texts.T
    by_image = (scores - scores.mean(1, keepdims=True)) / scores.std(1, ddof=1, keepdims=True)
    by_set = (by_image - by_image.mean(0)) / by_image.std(0, ddof=1)
    found = [
        np.mean([average_precision_score(positive[:, k], s[:, k]) for k in range(3)])
        for s in (scores, by_set)
    ]
    return float(found[0]), float(found[1])


def exported_features(folder, after: str, file, labelled, tiny_files, prompts):
    """Features of pictures and classes by plain open_clip, of a state that was exported."""
    weights = export(open_run(folder, after), file)[0]
    model = open_clip.model.CLIP(**json.loads(tiny_files[0].read_text()))
    model.load_state_dict(load_file(weights))
    preprocess = open_clip.image_transform(32, is_train=False)
    pictures = torch.stack([preprocess(Image.open(labelled.parent / f"{name}.png")) for name in LABELS])
    tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=16)
    tokens = tokenizer([prompt.format(name) for name in NAMES for prompt in prompts])
    with torch.no_grad():
        model.eval()
        images = model.encode_image(pictures, normalize=True)
        texts = model.encode_text(tokens, normalize=True).view(len(NAMES), len(prompts), -1).mean(1)
    return images.double().numpy(), torch.nn.functional.normalize(texts, dim=-1).double().numpy()


def test_precision_before_and_after_is_that_of_exported_features(finished, labelled, tiny_files, tmp_path):
    results = finished.results
    told, prompts = results["multi_label"]["several"], load_scenario(str(labelled)).value.prompts
    sizes = {"images": 4, "classes": 3, "counted": 3, "compound_prompts": 3}
    assert results["multi_label_images"] == {"several": sizes} and set(told) == set(PRECISIONS)
    for state, after in ((0, "0"), (2, "cold")):
        features = exported_features(
            finished.folder, after, tmp_path / f"{state}.safetensors", labelled, tiny_files, prompts
        )
        plain, by_set = naive(*features)
        assert told["mAP"][state] == pytest.approx(plain)
        assert told["mAP_normalised"][state] == pytest.approx(by_set)
    assert all(len(values) == 3 for values in told.values())
    points = 100 * (told["mAP"][-1] - told["mAP"][0])
    assert results["multi_label_retention"]["several"] == pytest.approx(points)
    units = results["units"]
    assert units["multi_label"] == "fraction" and units["multi_label_retention"] == "points"


def test_the_rest_of_the_results_is_as_without_it(finished, tiny_run):
    both = [without_timings(one.results) for one in (finished, tiny_run)]
    own = ("multi_label", "multi_label_retention", "multi_label_images", "units")
    less = {key: value for key, value in both[0].items() if key not in own}
    plain = {key: value for key, value in both[1].items() if key != "units"}
    for one in (less, plain):
        for detail in one["tasks_detail"]:
            detail.pop("stored_bytes")
    assert less == plain


def test_a_run_that_was_cut_off_ends_with_the_same(finished, labelled, tiny_strategy, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished.folder.parents[2], out)
    folder = out / finished.folder.relative_to(finished.folder.parents[2])
    path = folder / "tasks" / "002-cold.json"
    content = json.loads(path.read_text())
    del content["multi_label"], content["sha256"]
    path.write_text(json.dumps(content))  # a record that lost its mAP is measured again
    again = run(load_scenario(str(labelled)), load_strategy(str(tiny_strategy)), out=out)
    assert again.reused == 1 and without_timings(again.results) == without_timings(finished.results)


def test_untouched_towers_keep_it_exactly(labelled, tmp_path):
    results = run(load_scenario(str(labelled)), load_strategy("nearest-mean"), out=tmp_path).results
    assert all(len(set(values)) == 1 for values in results["multi_label"]["several"].values())
    assert results["multi_label_retention"] == {"several": 0.0}


def test_views_tell_it(finished, labelled, monkeypatch, capsys, tiny_strategy):
    loaded = load_run(RunDir(finished.folder))
    (section,) = [one for one in run_page(loaded).sections if one.title == "Several classes at once"]
    assert len(section.blocks[0].rows) == 3 and "TRANSDUCTIVE" in section.blocks[0].note
    told = finished.results["multi_label"]["several"]
    assert [card.name for card in cards(loaded)] == ["Retention several, mAP"]
    events = EventAccumulator(str(finished.folder / "tensorboard")).Reload()
    for key in PRECISIONS:
        found = [event.value for event in events.Scalars(f"multi_label/several/{key}")]
        assert found == pytest.approx(told[key])
    assert len(events.Scalars("multi_label_retention/several")) == 3
    code, out, _ = cli(monkeypatch, capsys, "eval", finished.folder, "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    names = [
        "several, mAP",
        "several, mAP normalised (transductive)",
        "several, mAP SPARC (transductive)",
    ]
    assert code == 0 and all(rows[name]["accuracy"] == rows[name]["recorded"] for name in names)
    code, out, _ = cli(monkeypatch, capsys, "eval", finished.folder)
    (line,) = [line for line in out.splitlines() if "mAP SPARC" in line]
    assert code == 0 and " – " in line  # no binomial interval of what is no share of images
    out_folder = finished.folder.parents[2]
    code, out, err = cli(
        monkeypatch, capsys, "run", labelled, "--strategy", tiny_strategy, "--out", out_folder
    )
    assert code == 0 and "several, mAP" in (out + err)


def test_what_was_not_measured_is_told(finished, labelled, tiny_strategy, tmp_path):
    results = run(
        load_scenario(str(labelled)), load_strategy(str(tiny_strategy)), out=tmp_path, evaluate=False
    ).results
    ((name, points, meaning),) = headlines(json.loads(json.dumps(results).replace("NaN", "null")))
    assert name == "Retention several, mAP" and points is None and "–" in meaning
