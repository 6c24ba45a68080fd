"""Accuracy of dense features and crops beside the class token's, of every state of a run."""

from __future__ import annotations

import json

import pytest
import torch

from builders.commands import cli
from cl_complora.data.tasks import Images
from cl_complora.errors import UserError
from cl_complora.finished.evaluation import sets_of
from cl_complora.finished.region_accuracy import FILE, region_accuracy, regions
from cl_complora.finished.states import open_run


def test_every_state_by_four_features(tiny_run, tmp_path):
    found = regions(open_run(tiny_run.folder, after="0"))
    assert [state["after"] for state in found["states"]] == ["untouched model", "warm", "cold"]
    results = tiny_run.results
    for place, state in enumerate(found["states"]):
        assert set(state["sets"]) == {"warm", "cold", "colours"}
        by_token = [state["sets"][name]["class_token"] for name in results["tasks"]]
        assert by_token == pytest.approx(results["accuracy"][place])
        assert state["sets"]["colours"]["class_token"] == pytest.approx(
            results["zero_shot"]["colours"][place]
        )
    written = json.loads((tiny_run.folder / FILE).read_text())
    assert written["states"] == found["states"]


def test_a_box_of_a_picture_of_one_colour_is_as_the_whole(tiny_run):
    state = open_run(tiny_run.folder, after="0")
    (one, *_) = sets_of(state)
    flat = one.images.pixels[:, :, :1, :1].expand_as(one.images.pixels).clone()
    found = region_accuracy(state.classifier(), Images(flat, one.images.labels), one.space)
    assert found.crop == found.class_token


def test_towers_without_patches_are_refused(tiny_run, monkeypatch):
    state = open_run(tiny_run.folder, after="0")
    state.loaded.model.visual = torch.nn.Sequential()
    with pytest.raises(UserError, match="dense features of .* are not known: its image tower is Sequential"):
        regions(state)


def test_the_command_shows_before_and_after(tiny_run, monkeypatch, capsys):
    code, output, _ = cli(monkeypatch, capsys, "regions", tiny_run.folder, "--images", "4")
    assert code == 0 and "class token" in output and "→" in output
    code, output, _ = cli(monkeypatch, capsys, "regions", tiny_run.folder, "--images", "4", "--json")
    assert code == 0 and json.loads(output)["images"]["warm"] == 4
