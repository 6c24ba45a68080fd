"""Why did it forget: parts add up to the update, a planted culprit is named first, short cuts change
nothing."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from builders.models import tiny_clip
from builders.places import LONG
from cl_complora.cli import app
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.heads.head_forms import to_tensors
from cl_complora.clip.slots import open_slots
from cl_complora.config import load_scenario, load_strategy
from cl_complora.data.labels import LabelSpace
from cl_complora.errors import UserError
from cl_complora.finished.explain import _Changed, explain
from cl_complora.finished.samples import Samples
from cl_complora.finished.states import find_state, open_run
from cl_complora.finished.update_parts import coarse_parts, directions, finer_parts, pieces
from cl_complora.run.stream import run
from cl_complora.store.deltas import load_delta
from cl_complora.store.folder import RunDir
from cl_complora.store.head_files import load_head
from cl_complora.store.tensors import with_checksum


def go(tiny_scenario, out, strategy, settings=()):
    quick = load_strategy(strategy, ["training.steps=3", "training.batch_size=4"])
    return run(load_scenario(str(tiny_scenario), list(settings)), quick, out=out).folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_scenario):
    out = tmp_path_factory.mktemp("runs")
    return {name: go(tiny_scenario, out, name) for name in ("complora", "finetune", "lora")}


@pytest.mark.parametrize("strategy", ["complora", "finetune", "lora"])
def test_parts_of_a_kind_add_up_to_the_update(runs, strategy):
    folder = RunDir(runs[strategy])
    delta = load_delta(folder.delta(1, "cold"))
    found = pieces(delta)
    for kind in ("tower", "kind", "layer"):
        model = tiny_clip()
        open_slots(model)
        parameters = dict(model.named_parameters())
        before = {name: value.detach().clone() for name, value in parameters.items()}
        with torch.no_grad():
            delta.add_to(parameters)
            for part in (part for part in coarse_parts(found) if part.kind == kind):
                for piece in part.pieces:
                    piece.add_to(parameters, -1.0)
        for name, value in parameters.items():
            torch.testing.assert_close(value, before[name], atol=1e-6, rtol=1e-5)
    layer = next(part for part in coarse_parts(found) if part.kind == "layer" and part.name == "vision 1")
    assert {piece.parameter for part in finer_parts(layer) for piece in part.pieces} == {
        piece.parameter for piece in layer.pieces
    }


def test_directions_are_the_singular_ones(runs):
    found = pieces(load_delta(RunDir(runs["lora"]).delta(0, "warm")))
    layer = next(part for part in coarse_parts(found) if part.kind == "layer")
    matrix = finer_parts(layer)[0]
    terms = [part.pieces[0].change for part in directions(matrix, 100)]
    torch.testing.assert_close(sum(terms), matrix.pieces[0].change, atol=1e-6, rtol=1e-4)
    norms = [float(torch.linalg.matrix_norm(term)) for term in terms]
    assert norms == sorted(norms, reverse=True)
    assert all(int(torch.linalg.matrix_rank(term, rtol=1e-3)) == 1 for term in terms)


def test_what_is_not_computed_again_is_what_would_have_come_out(tokenizer):
    classifier = ClipClassifier(tiny_clip(), tokenizer).eval()
    space = LabelSpace.from_templates(["red", "green", "blue"], ["a photo of a {}."])
    images = torch.randint(
        0, 256, (70, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    sets = {"one": (images, torch.arange(70) % 3, space)}
    samples = Samples(classifier, sets)
    samples.measure(["one"])
    blocks = classifier.clip.visual.transformer.resblocks
    counted = []
    for place, block in enumerate(blocks):
        block.mlp.c_fc.register_forward_hook(lambda *given, place=place: counted.append(place))
    with torch.no_grad():
        blocks[1].mlp.c_fc.weight.add_(0.3)
        quick = samples.measure_changed(["one"], {"vision"}, (1,))["one"]
        assert set(counted) == {1}, "the first block was computed again"
        classifier.clip.token_embedding.weight.mul_(1.5)
        both = samples.measure_changed(["one"], {"vision", "text"}, (1,))["one"]
        fresh = Samples(classifier, sets)
        assert both == fresh.measure(["one"])["one"] and both != quick
        assert all("forward" not in vars(block) for block in blocks)
        counted.clear()
        classifier.clip.token_embedding.weight.mul_(0.5)
        fresh.measure_changed(["one"], {"text"}, ())
        assert not counted, "the image tower was run for a change of the text tower"


def plant(run_folder, layer: str, seed: int) -> None:
    path = RunDir(run_folder).delta(1, "cold")
    tensors = load_file(path)
    parts = coarse_parts(pieces(load_delta(path)))
    at_fault = next(part for part in parts if part.kind == "layer" and part.name == layer)
    names = {piece.parameter for piece in at_fault.pieces}
    generator = torch.Generator().manual_seed(seed)
    for key, value in tensors.items():
        if any(key.startswith((f"{name}[", f"{name}.")) for name in names) and value.ndim == 2:
            # Both factors of a low-rank update are noise, so that their product is large as well.
            tensors[key] = torch.randn(value.shape, generator=generator) * (
                0.5 if key[-2:] in (".A", ".B") else 0.3
            )
    save_file(tensors, path)


def planted(runs, tmp_path, strategy: str, layer: str):
    """A run of which one layer's part of the second update is noise that does harm, and its explanation; by
    chance noise may do none to a dozen images."""
    for seed in range(6):
        folder = tmp_path / f"planted{seed}"
        shutil.copytree(runs[strategy], folder)
        plant(folder, layer, seed)
        found = explain(open_run(folder, after="0"))
        if blamed := [pair for pair in found if (pair.new, pair.old) == ("cold", "warm")]:
            return folder, blamed
    raise AssertionError("no noise did any harm")


@pytest.mark.parametrize(
    ("strategy", "layer"),
    [
        *(("lora", layer) for layer in ("vision 0", "vision 1", "text 1")),
        ("finetune", "vision 1"),
        # How an update is stored does not depend on the layer.
        *((("finetune", "vision 0"), ("finetune", "text 1")) if LONG else ()),
    ],
)
def test_a_planted_culprit_is_named_first(runs, tmp_path, strategy, layer):
    folder, blamed = planted(runs, tmp_path, strategy, layer)
    assert blamed[0].top("layer")[0].name == layer
    assert blamed[0].top("tower")[0].name == layer.split()[0]
    assert blamed[0].top("layer")[0].returned > 0 and blamed[0].lost > 0
    stored = json.loads((folder / "explain.json").read_text())["pairs"][0]
    assert stored["parts"] and {"kind", "name", "returned", "retention", "cost"} <= stored["parts"][0].keys()


def test_weights_come_back_to_the_bit(runs, tmp_path, monkeypatch):
    without, kept = _Changed.without, []

    def watched(self, part):
        before = {name: value.clone() for name, value in self.parameters.items()}
        found = without(self, part)
        kept.append(all(torch.equal(before[name], value) for name, value in self.parameters.items()))
        return found

    monkeypatch.setattr(_Changed, "without", watched)
    planted(runs, tmp_path, "lora", "vision 0")
    assert kept and all(kept)


def test_the_command(runs, tmp_path, monkeypatch):
    copy, _ = planted(runs, tmp_path, "finetune", "vision 1")
    done = CliRunner().invoke(app, ["explain", str(copy), "--images", "200", "--pairs", "1"])
    assert done.exit_code == 0, done.output
    assert "explain.json written" in done.output and "points back" in done.output
    assert json.loads((copy / "explain.json").read_text())["states"] == ["untouched model", "warm", "cold"]
    as_json = CliRunner().invoke(app, ["explain", str(copy), "--json"])
    assert json.loads(as_json.output)["pairs"] == json.loads((copy / "explain.json").read_text())["pairs"]
    missing = CliRunner().invoke(app, ["explain", str(tmp_path)])
    assert "is no run" in str(missing.exception)


def test_where_nothing_fell_the_command_says_how_far_it_looked(runs, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(runs["lora"], copy)
    monkeypatch.setattr("cl_complora.finished.explain.explain", lambda *_: [])
    done = CliRunner().invoke(app, ["explain", str(copy), "--images", "3"])
    assert "at most 3 test images of each set" in " ".join(done.output.split())


def test_independent_tasks_forget_nothing(tmp_path, tiny_scenario):
    folder = go(tiny_scenario, tmp_path, "lora", ["independent=true"])
    with pytest.raises(UserError, match="none can make another forgotten"):
        explain(open_run(folder, after="0"))


@pytest.mark.parametrize("strategy", ["linear-probe", "complora"])
def test_a_head_that_all_tasks_share_is_named_first(tmp_path, tiny_scenario, strategy):
    """With weights that stay as they are, all that an old task loses is the head's."""
    folder = RunDir(go(tiny_scenario, tmp_path, strategy, ["protocol=class-incremental"]))
    latest = folder.head(1, "cold")
    wrong = {name: -part if part.dim() == 2 else part for name, part in to_tensors(load_head(latest)).items()}
    latest.write_bytes(with_checksum(wrong, "head"))
    (pair,) = explain(open_run(folder.root, after="0"))
    assert pair.parts[0].kind == "head" and pair.parts[0].returned > 0
    assert all(part.kind != "head" for part in pair.parts[1:])
    if strategy == "linear-probe":
        assert pair.parts[0].returned == pytest.approx(pair.lost) and len(pair.parts) == 1


def test_a_head_of_ones_own_is_no_part_of_what_was_changed(runs):
    for pair in explain(open_run(runs["complora"], after="0")):
        assert all(part.kind != "head" for part in pair.parts)


def test_the_untouched_model_is_0_whatever_tasks_are_called(tmp_path, tiny_scenario):
    scenario = tmp_path / "named.yaml"
    scenario.write_text(tiny_scenario.read_text().replace("name: warm", 'name: "0"'))
    folder = go(scenario, tmp_path / "runs", "lora")
    assert find_state(folder, after="0").after == []
    assert find_state(folder, after="1").after == ["0"] and find_state(folder, after="cold").after == [
        "0",
        "cold",
    ]
    alone = go(scenario, tmp_path / "alone", "lora", ["independent=true"])
    assert find_state(alone, task="0").after == ["0"] and find_state(alone, after="0").after == []
