"""--model, --model-config and --pretrained: what is left of the scenario's own model, and where they look."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from builders.commands import cli
from builders.configs import SCENARIO, animals, write
from builders.models import TINY
from cl_complora.cli.model_options import model_settings
from cl_complora.clip import model as loading
from cl_complora.config import load_scenario
from cl_complora.config.scenario import Model
from cl_complora.errors import UserError
from cl_complora.run import untouched

OWN = (
    "{name: ViT-B-16-SigLIP, pretrained: webli, image_size: 384, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}"
)


@pytest.fixture
def scenario(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(animals(tmp_path))
    return str(write(tmp_path, "own", f"{SCENARIO}model: {OWN}\n"))


def model_of(scenario: str, *options: str | None) -> Model:
    return load_scenario(scenario, model_settings(*options)).value.model


def test_another_model_is_shown_pictures_in_its_own_way(scenario):
    assert model_of(scenario, None, None, None).image_size == 384
    assert model_of(scenario, "ViT-B-32", None, "openai") == Model(name="ViT-B-32", pretrained="openai")
    assert model_of(scenario, "embedded", None, None) == Model(name="embedded")
    # Weights of one's own for the same model, or its config from elsewhere: all else stays.
    kept = model_of(scenario, None, None, "openai")
    assert (kept.name, kept.image_size, kept.mean) == ("ViT-B-16-SigLIP", 384, [0.5] * 3)
    moved = model_of(scenario, None, "moved.json", None)
    assert (moved.name, moved.config, moved.std) == ("moved", str(Path("moved.json").resolve()), [0.5] * 3)


def test_what_a_model_brings_may_be_set(scenario, monkeypatch, capsys):
    Path("tiny.json").write_text(json.dumps(TINY))
    named = (
        "run",
        scenario,
        "-s",
        "zeroshot",
        "--model",
        "tiny",
        "--model-config",
        "tiny.json",
        "--out",
        "r",
    )
    code, _, err = cli(monkeypatch, capsys, *named, "--set", "model.mean=[0.1, 0.2, 0.3]", "--no-analysis")
    assert code == 0, err
    recorded = yaml.safe_load(next(Path("r").rglob("config.yaml")).read_text())["scenario"]["model"]
    assert (recorded["mean"], recorded["std"], recorded["image_size"]) == ([0.1, 0.2, 0.3], None, None)


def test_a_folder_is_looked_for_where_the_command_is_given(scenario, monkeypatch, capsys):
    folder = Path("exported")
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY}))
    (folder / "model.safetensors").write_bytes(b"")
    found = model_of(scenario, "local-dir:exported", None, None)
    assert found.name == f"local-dir:{folder.resolve()}"
    code, out, err = cli(
        monkeypatch, capsys, "check", "embedded", "--model", "local-dir:exported", "--no-measure"
    )
    assert code == 0 and "is fine" in out, err
    code, _, err = cli(monkeypatch, capsys, "check", "embedded", "--model", "local-dir:none", "--no-measure")
    assert code == 2 and f"there is no folder {Path('none').resolve()}" in err
    code, _, err = cli(
        monkeypatch, capsys, "init", "animals", "--model", "local-dir:exported", "-o", "made.yaml"
    )
    assert code == 0, err
    assert load_scenario("made.yaml").value.model.name == "local-dir:exported"


def test_nothing_is_fetched_from_the_hub_without_being_asked(monkeypatch, capsys):
    monkeypatch.setattr(untouched, "look", lambda *_: pytest.fail("it was measured"))
    address = "hf-hub:timm/ViT-B-16-SigLIP"
    code, out, err = cli(monkeypatch, capsys, "check", "embedded", "--model", address)
    assert code == 0 and "was not measured: --measure fetches" in out, err


def test_what_may_be_fetched_is_told_before_it_is_waited_for(monkeypatch, capsys, tmp_path):
    def far_enough(*_: object) -> None:
        raise UserError("far enough")

    monkeypatch.setattr(loading, "load_clip", far_enough)
    named = ("--model", "ViT-B-32", "--pretrained", "openai", "--out", tmp_path)
    code, out, err = cli(monkeypatch, capsys, "run", "embedded", "-s", "zeroshot", *named)
    assert code == 2 and "far enough" in err
    assert "loading ViT-B-32 openai, which is fetched where this machine does not have it" in out
    code, out, _ = cli(monkeypatch, capsys, "run", "embedded", "-s", "zeroshot", "--out", tmp_path)
    assert code == 2 and "fetched" not in out
