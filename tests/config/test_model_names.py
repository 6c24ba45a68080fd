"""Names and tags of models are checked without torch; a tower of which nothing is adapted is told."""

from __future__ import annotations

import json
import subprocess
import sys

import open_clip
import pytest

from builders.commands import cli
from builders.models import TINY, tiny_clip
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.config import load_scenario, load_strategy
from cl_complora.config.model_names import architectures, check_model, tags_of
from cl_complora.engine.build import build_adapter, build_plugins, check_fits, check_regularisers
from cl_complora.errors import UserError


def faults(*overrides: str) -> list[str]:
    return check_model(load_scenario("embedded", overrides))


def test_names_and_tags_are_open_clips_own():
    builtin = [name for name in open_clip.list_models() if name in architectures()]
    assert len(builtin) == len(architectures()) > 100
    for name in builtin:
        # As in loading, ViT-B-16 stands for ViT-B-16-quickgelu as well where the weights need it.
        assert set(open_clip.list_pretrained_tags_by_model(name)) <= set(tags_of(name)), name


@pytest.mark.parametrize("model, tag", open_clip.list_pretrained()[::7])
def test_published_weights_are_fine(model, tag):
    assert faults(f"model.name={model}", f"model.pretrained={tag}") == []


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["model.name=ViT-B-99"], "is not an open_clip model; did you mean ViT-B-32 or ViT-B-16"),
        (["model.name=vit-b-32"], "did you mean ViT-B-32"),
        (["model.name=embeded"], "did you mean embedded"),
        (["model.name=ViT-B-32", "model.pretrained=openia"], "did you mean openai; tags: openai, laion400m"),
        (["model.name=ViT-B-32", "model.pretrained=nowhere.pt"], "there is no file"),
        (["model.name=own", "model.config=nowhere.json"], "there is no file"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(overrides, words):
    (line,) = faults(*overrides)
    assert words in line


def test_check_takes_a_model_and_imports_nothing_heavy(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "name: mine\nmodel:\n  name: ViT-B-99\ntasks:\n  - {name: a, source: {kind: world, domain: greek}}\n"
    )
    code = (
        "import sys\n"
        "from cl_complora.cli import app\n"
        "from typer.testing import CliRunner\n"
        "done = CliRunner().invoke(app, sys.argv[1:])\n"
        "assert not {'torch', 'open_clip'} & set(sys.modules)\n"
        "print(done.exception)\n"
    )
    for arguments, words in (
        (["check", "embedded", "--model", "ViT-B-99"], "did you mean ViT-B-32"),
        (["run", "embedded", "--model", "ViT-B-99"], "did you mean ViT-B-32"),
        (["check", str(tmp_path / "mine.yaml")], "mine.yaml:3: model.name: 'ViT-B-99' is not"),
    ):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert done.returncode == 0 and words in done.stdout, done.stdout + done.stderr


RESNET = {**TINY, "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}}


@pytest.fixture(scope="module")
def resnet():
    return ClipClassifier(
        open_clip.model.CLIP(**json.loads(json.dumps(RESNET))), open_clip.get_tokenizer("RN50")
    )


def fit(model, tmp_path, adapter: str, rates: str = "{}") -> list[str]:
    file = tmp_path / "s.yaml"
    file.write_text(f"name: s\nadapter: {adapter}\noptimiser: {{name: adamw, lr: 1e-3, rates: {rates}}}\n")
    strategy = load_strategy(str(file)).value
    return check_fits(strategy, build_adapter(strategy.adapter, 0), model)


def test_a_tower_of_which_nothing_is_adapted_is_told(resnet, tmp_path):
    (line,) = fit(resnet, tmp_path, "{kind: lowrank, rank: 2}")
    assert "of this model's image tower (vision) nothing can be adapted" in line and "[text]" in line
    (line,) = fit(resnet, tmp_path, "{kind: lowrank, rank: 2, merge: {kind: image-tower}}")
    assert line.endswith("merge: {kind: image-tower} keeps nothing of what that one learns")
    (line,) = fit(resnet, tmp_path, "{kind: lowrank, rank: 2, matrices: [q, v]}")
    assert "with matrices: [q, v]; only" in line
    with pytest.raises(UserError, match=r"image tower \(vision\) nothing can be adapted"):
        fit(resnet, tmp_path, "{kind: lowrank, rank: 2, towers: [vision, text]}")
    with pytest.raises(UserError, match="no matrix of this model"):
        fit(resnet, tmp_path, "{kind: lowrank, rank: 2, towers: [vision]}")
    assert fit(resnet, tmp_path, "{kind: lowrank, rank: 2, towers: [text]}") == []
    assert fit(resnet, tmp_path, "{kind: full}") == []
    with pytest.raises(
        UserError, match="optimiser.rates.vision: has no effect: of this model's vision tower"
    ):
        fit(resnet, tmp_path, "{kind: lowrank, rank: 2}", "{vision: 1e-4}")
    (line,) = fit(resnet, tmp_path, "{kind: full, whole: [tokens]}")
    assert "image tower" in line and "whole: [tokens]" in line


def test_distillation_of_an_image_tower_that_stays_is_told_or_refused(resnet):
    def checked(*settings: str) -> list[str]:
        strategy = load_strategy("complora+linear-probe+lwf", settings).value
        adapter = build_adapter(strategy.adapter, 0)
        return check_regularisers(strategy, build_plugins(strategy, adapter, 0), resnet, adapter)

    (line,) = checked()  # as the default, which a user of such a model did not choose
    assert "lwf has no effect where nothing of the image tower is trained" in line
    with pytest.raises(UserError, match="texts_of: student reads its texts"):
        checked("adapter.towers=[text]")
    assert checked("adapter.towers=[text]", "regularisers.0.texts_of=student") == []


def test_an_untouched_tower_beside_one_that_stays_is_told(resnet):
    """The default, on a model whose image tower low-rank updates find nothing in: the same features twice."""
    strategy = load_strategy("complora").value
    adapter = build_adapter(strategy.adapter, 0)
    told = "head.with_untouched has no effect where nothing of the image tower is trained"
    assert told in check_fits(strategy, adapter, resnet)
    one = load_strategy("complora+linear-probe+lwf").value
    assert told not in check_fits(one, build_adapter(one.adapter, 0), resnet)


def test_two_transformers_have_nothing_to_tell(tmp_path, tokenizer):
    assert fit(ClipClassifier(tiny_clip(), tokenizer), tmp_path, "{kind: lowrank, rank: 2}") == []


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (["--model", "ViT-B-99"], "error: --model ViT-B-99: 'ViT-B-99' is not an open_clip model"),
        (["--model", "ViT-B-32", "--pretrained", "opnai"], "error: --pretrained opnai: ViT-B-32 has no"),
        (["--model-config", "none.json"], "error: --model-config none.json: there is no file"),
        (["--pretrained", "w.pt"], "error: --pretrained w.pt: the embedded model brings its own"),
    ],
)
def test_faults_name_the_option_that_was_written(monkeypatch, capsys, words, start):
    for command in ("check", "run"):
        code, _, said = cli(monkeypatch, capsys, command, "embedded", *words)
        assert code == 2 and said.startswith(start)
