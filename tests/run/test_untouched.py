"""Wrong settings are noticed before training: by the untouched model's answers, and by what is not stated."""

from __future__ import annotations

import json
import shlex
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from builders.commands import cli
from builders.models import TINY
from cl_complora.clip.evaluate import share_right_by_chance
from cl_complora.config import load_scenario
from cl_complora.config.normalisation import CLIP, USUAL, assumed
from cl_complora.config.scenario import Model
from cl_complora.data.checks.plausibility import is_code
from cl_complora.data.images.pixels import Pixels
from cl_complora.data.labels import LabelSpace
from cl_complora.data.tasks import Images, StreamData
from cl_complora.run.untouched import Better, Standing, cautions

NAMES = ("cat", "dog", "owl", "elk")


class Knows(nn.Module):
    """Answers by the first pixel where pixels are normalised as it was trained, and else always the same."""

    batch_size = 256

    def __init__(self, mean: float, trained: float) -> None:
        super().__init__()
        self.weight, self.trained = nn.Parameter(torch.zeros(1)), trained
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 255.0 * mean))
        self.register_buffer("std", torch.ones(1, 3, 1, 1))
        self.text = SimpleNamespace(unchanging=nullcontext)

    def image_features(self, images: torch.Tensor) -> torch.Tensor:
        right = bool((self.mean == 255.0 * self.trained).all())
        return torch.eye(4)[
            images[:, 0, 0, 0].long() if right else torch.zeros(len(images), dtype=torch.long)
        ]

    def head(self, features: torch.Tensor, space: LabelSpace) -> torch.Tensor:
        return features


class Loaded:
    """What is told of a model."""

    name, pretrained, activation, pixels = "ViT-B-16", "openai.pt", "GELU", Pixels((32, 32))
    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

    def __init__(self, assumed: bool = False, ships: bool = False) -> None:
        self.assumed = assumed
        if ships:
            self.name = self.pretrained = "embedded"


def standing(right: float, images: int = 100, chance: float = 0.25, names=NAMES) -> Standing:
    return Standing("pets", right, chance, images, names)


def stream(per_class: int = 20) -> StreamData:
    labels = torch.arange(4).repeat(per_class)
    pixels = labels.to(torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2).clone()
    return StreamData([], {"pets": (Images(pixels, labels), LabelSpace.from_templates(NAMES, ["{}"]))})


def told(standings, mean: float = 0.5, trained: float = 0.5, **loaded: bool) -> list[str]:
    model = Knows(mean, trained)
    before = model.mean.clone()
    lines = cautions(standings, Loaded(**loaded), model, stream())
    assert torch.equal(model.mean, before) and torch.equal(model.std, torch.ones(1, 3, 1, 1))
    return lines


def test_a_model_at_chance_everywhere_is_told_with_causes_and_what_was_used():
    first, used, *causes = told([standing(0.25), standing(0.18)])
    assert first.startswith("warning: the untouched model is at chance on every task and zero-shot set: pets")
    for part in ("ViT-B-16", "openai.pt", "32 px", "mean [0.5, 0.5, 0.5] and std [0.5, 0.5, 0.5]", "GELU"):
        assert part in used
    text = "\n".join(causes)
    for cause in ("normalisation", "QuickGELU", "wrong weights", "class names"):
        assert f"- {cause}" in text
    assert "none of the usual others surely does better on a few" in text and "--set" not in text


def test_a_set_too_small_to_tell_is_none_of_every():
    first, *_ = told([standing(0.25), standing(0.5, images=4)])
    assert "on every task and zero-shot set with enough pictures to tell: pets 25.0 %" in first
    assert first.count("pets") == 1


def test_the_normalisation_that_does_better_is_named():
    text = "\n".join(told([standing(0.25)], mean=0.5, trained=0.0))
    assert "with mean [0, 0, 0] and std [1, 1, 1] (none, pixels in 0..1) it gets 100 % of 80 pictures" in text
    # Not at chance, but nothing said which normalisation is right, and another one is.
    line, *settings = told([standing(0.4)], mean=0.5, trained=0.0, assumed=True)
    assert line.startswith("warning: the normalisation (") and "100 % of 80" in line
    assert settings == [f"  {one}" for one in WITHOUT]
    assert all(f"\n    {one}\n" in text for one in WITHOUT)


WITHOUT = (
    'to run with it: --set "model.mean=[0,0,0]" --set "model.std=[1,1,1]"',
    "or in the scenario: model: {…, mean: [0,0,0], std: [1,1,1]}",
)


@pytest.mark.parametrize("name", USUAL)
def test_what_is_to_be_pasted_is_that_normalisation_to_the_last_digit(name, tiny_scenario):
    command, scenario = Better("", *USUAL[name]).settings
    settings = [word for word in shlex.split(command) if word.startswith("model.")]
    model = load_scenario(str(tiny_scenario), settings).value.model
    assert (tuple(model.mean), tuple(model.std)) == USUAL[name]
    written = yaml.safe_load(scenario.partition("scenario: ")[2].replace("…", "name: x"))["model"]
    assert (tuple(written["mean"]), tuple(written["std"])) == USUAL[name]


def test_of_the_shipped_model_is_told_what_it_knows_and_not_what_cannot_be_wrong():
    _, used, line = told([standing(0.25)], trained=0.0, ships=True)
    assert (
        "model embedded, weights embedded" in used and "knows only pictures that this package draws" in line
    )
    assert "--model ViT-B-16 --pretrained openai" in line and "--model-config" in line
    assert told([standing(0.25), standing(0.5)], trained=0.0, ships=True) == []


@pytest.mark.parametrize(
    "standings",
    [
        [standing(0.9)],
        [standing(0.25), standing(0.5)],  # one task is known
        [standing(1.0, images=4)],  # few pictures, and surely above chance all the same
        [standing(0.25), standing(0.95, images=8)],
        [standing(0.5, images=4)],  # too few pictures to tell
        [standing(1.0, chance=1.0, names=("cat",))],
        [standing(0.3, images=1000, chance=0.001)],
        [],
    ],
)
def test_nothing_is_told_where_nothing_is_wrong(standings):
    assert told(standings) == []


def test_chance_that_is_not_one_in_so_many_classes_says_of_what_it_is():
    assert str(standing(0.5)) == "pets 50.0 % (95 % interval 40 to 60, chance 25.0)"
    assert str(standing(0.5, chance=0.09)).endswith(", chance of these answers 9.0)")


def test_chance_is_that_of_the_answers_given():
    labels = torch.tensor([0, 0, 0, 1])
    assert share_right_by_chance(torch.zeros(4, dtype=torch.long), labels, 2) == 0.75
    assert share_right_by_chance(torch.arange(4), torch.arange(4), 4) == 0.25


@pytest.mark.parametrize(
    ("name", "code"),
    [("7", True), ("n01440764", True), ("class 3", True), ("c-12", True), ("x 1a", True)]
    + [
        ("cat", False),
        ("Boeing 717", False),
        ("B", False),
        ("no", False),
        ("route 66", False),
        ("犬1", False),
    ],
)
def test_names_that_are_codes(name, code):
    assert is_code(name) == code


def test_what_is_assumed_of_a_model_that_does_not_say():
    clip, half = USUAL[CLIP], ((0.5,) * 3,) * 2
    own = Model(name="mine", config="mine.json")
    assert "the model's config does not say" in assumed(own, {}, set())
    assert assumed(own, {"mean": [0, 0, 0], "std": [1, 1, 1]}, set()) == ""
    assert "CLIP's std [" in assumed(own, {"mean": [0, 0, 0]}, set())
    assert assumed(own.model_copy(update={"mean": [0, 0, 0], "std": [1, 1, 1]}), {}, set()) == ""
    known = Model(name="ViT-B-16", pretrained="w.pt")
    assert assumed(known, {}, {clip}) == ""
    line = assumed(known, {}, {half})
    assert (
        "weight file of ViT-B-16" in line and "published weights of this architecture use mean [0.5" in line
    )


@pytest.fixture
def noise(tmp_path, monkeypatch):
    """Folders of noise that nobody can tell apart, with codes for names, and a scenario of the tiny model."""
    rng = np.random.default_rng(0)
    for name in ("c0", "c1", "c2", "c3"):
        for number in range(30):
            place = tmp_path / "noise" / name / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(place)
    (tmp_path / "s.yaml").write_text(
        "name: s\nshots: 2\ntasks:\n  - {name: t, source: {kind: folder, root: noise}}\n"
    )
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    monkeypatch.chdir(tmp_path)


def test_run_and_check_tell_it_first(noise, monkeypatch, capsys):
    code, out, err = cli(monkeypatch, capsys, "run", "s.yaml", "-s", "zeroshot", "--no-analysis")
    assert code == 0, err
    assert (
        "warning: the untouched model is at chance" in out
        and "measuring the untouched model on 1 task\n" in out
    )
    assert "model embedded, weights embedded" in out
    assert "knows only pictures that this package draws" in out and "QuickGELU" not in out
    assert out.index("warning:") < out.index("task 1/1")
    code, out, _ = cli(monkeypatch, capsys, "check", "s.yaml", "--measure")
    assert code == 0 and "is fine" in out and "\nwarning: the untouched model is at chance" in out
    own = ("check", "s.yaml", "--model-config", "tiny.json")
    # A model of one's own on the command line is measured without being asked, for its files are here.
    code, out, _ = cli(monkeypatch, capsys, *own)
    assert code == 0 and "random weights" in out and "(assumed: neither its config" in out
    assert "codes, as in 't' ('c0' …)" in out and "QuickGELU" in out
    assert out.count("does not say how pixels are normalised") == 1
    code, out, _ = cli(monkeypatch, capsys, *own, "--no-measure")
    assert "measured" not in out and out.count("does not say how pixels are normalised") == 1
    code, out, _ = cli(
        monkeypatch, capsys, "check", "s.yaml", "--model", "ViT-B-16", "--pretrained", "openai"
    )
    assert code == 0 and "was not measured: --measure fetches" in out
