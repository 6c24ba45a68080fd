"""A run whose project, weights, model config or data were moved goes on in every command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.torch import save_file

from builders.commands import cli
from builders.images import COLOURS, paint
from builders.models import TINY, tiny_clip
from builders.runs import STRATEGY

SCENARIO = """
name: mine
shots: 2
{model}tasks:
  - name: warm
    source: {{kind: folder, root: {data}}}
    classes: [red, yellow]
"""
OPTIONS = ("--model-config", "tiny.json", "--pretrained", "tiny.safetensors")
IN_FILE = "model: {name: tiny, config: tiny.json, pretrained: tiny.safetensors}\n"
RUN = Path("runs/mine/quick/seed0")


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Makes a project with a finished run; each way once."""
    made: dict[tuple, Path] = {}

    def make(monkeypatch, capsys, in_file: bool = False, absolute: bool = False) -> Path:
        if (in_file, absolute) not in made:
            root = tmp_path_factory.mktemp("begun") / "here"
            for number, (name, colour) in enumerate(COLOURS.items()):
                for picture in range(4):
                    paint(root / f"data/{name}/{picture}.png", colour, 10 * number + picture)
            (root / "tiny.json").write_text(json.dumps(TINY))
            save_file(tiny_clip().state_dict(), root / "tiny.safetensors")
            data = root / "data" if absolute else "data"
            text = SCENARIO.format(model=IN_FILE if in_file else "", data=data)
            (root / "mine.yaml").write_text(text)
            (root / "quick.yaml").write_text(STRATEGY.format(name="quick"))
            monkeypatch.chdir(root)
            code, _, said = go(monkeypatch, capsys, *(() if in_file else OPTIONS))
            assert code == 0, said
            made[in_file, absolute] = root
        return made[in_file, absolute]

    return make


def go(monkeypatch, capsys, *options: object):
    words = ("run", "mine.yaml", "-s", "quick.yaml", "--set", "training.steps=2", "--device", "cpu")
    return cli(monkeypatch, capsys, *words, "--no-analysis", *options)


def moved(begun_at: Path, to: Path) -> Path:
    """The project at another place, and gone from where it was."""
    shutil.copytree(begun_at, to)
    for file in to.rglob("*"):
        if file.suffix in (".yaml", ".json") and "runs" in file.parts:
            text = file.read_text()
            gone = str(begun_at.parent / "gone" / "here")
            file.write_text(text.replace(str(begun_at), gone))
    return to


def unfinish(root: Path) -> None:
    """As if the run was ended within its task."""
    for part in ("tasks", "deltas"):
        for file in (root / RUN / part).glob("001-*"):
            file.unlink()


@pytest.mark.parametrize("in_file, absolute", [(False, False), (True, True)])
def test_every_command_goes_on(begun, tmp_path, monkeypatch, capsys, in_file, absolute):
    before = begun(monkeypatch, capsys, in_file, absolute)
    root = moved(before, tmp_path / "there")
    if absolute:
        for file in (root / "mine.yaml",):
            file.write_text(file.read_text().replace(str(before), str(root)))
    monkeypatch.chdir(root)
    results = (root / RUN / "results.json").read_text()
    others = (
        ("predict", RUN, "data/red"),
        ("export", RUN, "-o", f"{tmp_path.name}.safetensors"),
        ("explain", RUN, "--images", "2"),
        ("audit", RUN, "--images", "4"),
        ("curvature", RUN, "--jointly", "--steps", "4", "--images", "2"),
        ("report", RUN),
    )
    # Where model and data are found does not depend on the command.
    for words in (
        ("eval", RUN, "--json"),
        *(() if absolute else others),
        ("eval", RUN, "--json", *OPTIONS),
    ):
        code, _, said = cli(monkeypatch, capsys, *words)
        assert code == 0, (words, said)
    monkeypatch.chdir(tmp_path)
    assert cli(monkeypatch, capsys, "eval", Path("there") / RUN)[0] == 0
    monkeypatch.chdir(root)
    options = () if in_file else OPTIONS
    code, out, said = go(monkeypatch, capsys, *options)
    assert code == 0 and "found finished" in out, said
    assert (root / RUN / "results.json").read_text() == results
    unfinish(root)
    code, out, said = go(monkeypatch, capsys, *options)
    assert code == 0 and "found finished" not in out, said
    assert (
        json.loads((root / RUN / "results.json").read_text())["accuracy"] == json.loads(results)["accuracy"]
    )


def test_without_the_places_that_older_versions_did_not_keep(begun, tmp_path, monkeypatch, capsys):
    root = moved(begun(monkeypatch, capsys), tmp_path / "there")
    config = yaml.safe_load((root / RUN / "config.yaml").read_text())
    assert config["files"]["pretrained_from_run"] == "../../../../tiny.safetensors"
    config["files"] = {kind: config["files"][kind] for kind in ("scenario", "strategy")}
    (root / RUN / "config.yaml").write_text(yaml.safe_dump(config))
    assert cli(monkeypatch, capsys, "eval", root / RUN)[0] == 0


def test_weights_are_known_by_their_hash(begun, tmp_path, monkeypatch, capsys):
    root = moved(begun(monkeypatch, capsys), tmp_path / "there")
    monkeypatch.chdir(root)
    (root / "elsewhere").mkdir()
    (root / "tiny.safetensors").rename(root / "elsewhere/renamed.safetensors")
    (root / "tiny.json").rename(root / "elsewhere/renamed.json")
    code, _, said = cli(monkeypatch, capsys, "eval", RUN)
    assert code == 2 and "the weights that it began with" in said and "--pretrained" in said
    weights = ("--pretrained", "elsewhere/renamed.safetensors")
    code, _, said = cli(monkeypatch, capsys, "predict", RUN, "data/red", *weights)
    assert code == 2 and "the model config that it began with" in said and "--model-config" in said
    given = (*weights, "--model-config", "elsewhere/renamed.json")
    for words in (
        ("predict", RUN, "data/red"),
        ("export", RUN, "-o", f"{tmp_path.name}.safetensors"),
        ("explain", RUN),
    ):
        assert cli(monkeypatch, capsys, *words, *given)[0] == 0
    code, out, said = go(monkeypatch, capsys, *given)
    assert code == 0 and "found finished" in out, said


def test_a_moved_run_is_known_by_its_name(begun, tmp_path, monkeypatch, capsys):
    root = moved(begun(monkeypatch, capsys), tmp_path / "there")
    monkeypatch.chdir(root)
    (root / "tiny.json").rename(root / "renamed.json")
    config = ("--model-config", "renamed.json")
    for name in ("mine/quick", "quick"):
        code, out, said = cli(monkeypatch, capsys, "eval", name, *config)
        assert code == 0 and f"{RUN} after warm" in " ".join(out.split()), said
    code, _, said = cli(monkeypatch, capsys, "eval", "mine/quik", *config)
    assert code == 2 and "mine/quik: neither a run's folder nor a model" in said and str(RUN) in said
    shutil.copytree(root / RUN, root / "runs/other/quick/seed0")
    code, _, said = cli(monkeypatch, capsys, "eval", "quick", *config)
    assert code == 2 and "2 runs are called that" in said
    assert "or, for the model of --model-config, another name" in said
    model = (*config, "--pretrained", "tiny.safetensors", "--data", "data")
    (root / "a file").write_text("")
    for name in ("tiny", "a file"):  # neither is a run's
        code, out, said = cli(monkeypatch, capsys, "eval", name, *model)
        assert code == 0 and f"{name} (tiny.safetensors)" in " ".join(out.split()), said


def test_other_weights_are_refused_with_both_hashes(begun, tmp_path, monkeypatch, capsys):
    root = moved(begun(monkeypatch, capsys), tmp_path / "there")
    monkeypatch.chdir(root)
    right = json.loads((root / RUN / "results.json").read_text())["model"]["sha256"]
    save_file(tiny_clip(seed=9).state_dict(), root / "other.safetensors")
    for words in (
        ("eval", RUN, "--pretrained", "other.safetensors"),
        ("export", RUN, "--pretrained", "other.safetensors"),
        ("run", "mine.yaml", "-s", "quick.yaml", "--set", "training.steps=2", *OPTIONS[:2])
        + ("--pretrained", "other.safetensors"),
    ):
        code, _, said = cli(monkeypatch, capsys, *words)
        assert code == 2 and right in said and said.count("SHA-256") == 1 + (words[0] == "run"), said
    (root / "tiny.safetensors").unlink()
    (root / "other.safetensors").rename(root / "tiny.safetensors")  # of the right name, beside the scenario
    code, _, said = cli(monkeypatch, capsys, "eval", RUN)
    assert code == 2 and right in said and "give the right file with --pretrained" in said


@pytest.mark.parametrize(
    "other",
    [{"quick_gelu": True}, {"vision_cfg": TINY["vision_cfg"] | {"pool_type": "avg"}}],
    ids=["modules", "config"],  # the first shows in the modules, the second only in the config
)
def test_another_architecture_of_the_same_weights_is_refused(begun, tmp_path, monkeypatch, capsys, other):
    root = moved(begun(monkeypatch, capsys), tmp_path / "there")
    (root / "quick.json").write_text(json.dumps(TINY | other))
    code, _, said = cli(monkeypatch, capsys, "eval", root / RUN, "--model-config", root / "quick.json")
    assert code == 2 and "another architecture or preprocessing" in said


def test_data_that_are_gone_are_told(begun, tmp_path, monkeypatch, capsys):
    root = moved(begun(monkeypatch, capsys), tmp_path / "there")
    run = shutil.copytree(root / RUN, tmp_path / "alone")
    for name in ("tiny.json", "tiny.safetensors"):
        shutil.copy(root / name, run)
    code, _, said = cli(monkeypatch, capsys, "eval", run)
    assert code == 2 and "mine.yaml, from whose folder its data are found" in said and "--data" in said
    assert "error: of that scenario: tasks[0].source: " in said and "mine.yaml:" not in said
    assert cli(monkeypatch, capsys, "predict", run, root / "data/red")[0] == 0
    assert cli(monkeypatch, capsys, "eval", run, "--data", root / "data")[0] == 0


def test_other_data_at_another_place_are_not_the_same(begun, tmp_path, monkeypatch, capsys):
    root = shutil.copytree(begun(monkeypatch, capsys), tmp_path / "there")
    monkeypatch.chdir(root)
    shutil.copytree(root / "data", root / "more")
    code, _, said = go(monkeypatch, capsys, *OPTIONS, "--set", "tasks.0.source.root=more")
    assert code == 2 and "tasks[0].source.root = 'data', now it is 'more'" in said


def test_a_run_with_the_embedded_model_takes_no_weights(begun, tmp_path, monkeypatch, capsys):
    root = begun(monkeypatch, capsys)
    monkeypatch.chdir(root)
    assert go(monkeypatch, capsys, "--out", tmp_path)[0] == 0
    code, _, said = cli(monkeypatch, capsys, "eval", tmp_path / "mine/quick/seed0", *OPTIONS[2:])
    assert code == 2 and "began with the model embedded, which has none to give" in said
