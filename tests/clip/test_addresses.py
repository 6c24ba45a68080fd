"""Models by address: ``local-dir:`` and ``hf-hub:``, SigLIP with its own tokeniser, from files alone."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from open_clip import create_model
from safetensors.torch import save_file

import cl_complora
from builders.commands import cli
from builders.models import TINY
from cl_complora.clip.model import load_clip
from cl_complora.config import load_scenario
from cl_complora.config.model_names import check_model, image_size
from cl_complora.config.repositories import architecture_name
from cl_complora.config.scenario import Model
from cl_complora.errors import UserError

with_transformers = pytest.mark.skipif(
    find_spec("transformers") is None, reason="transformers is not installed"
)
PREPROCESS = {"size": [32, 32], "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic"}
# SigLIP's way: no causal mask, a bias of the logits, the last token pooled, a tokeniser of transformers.
SIGLIP = {
    "embed_dim": 16,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": TINY["vision_cfg"],
    "text_cfg": {
        "context_length": 16,
        "vocab_size": 40,
        "hf_tokenizer_name": "nobody/tiny-siglip",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": 16,
        "heads": 2,
        "layers": 2,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
    },
}


def publish(folder: Path, config: dict, weights: str = "open_clip_model.safetensors") -> Path:
    """A folder as open_clip pushes it to a hub."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {"model_cfg": config, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(told))
    import open_clip

    own = folder / "tiny-to-publish.json"
    own.write_text(json.dumps(config))
    open_clip.add_model_config(own)
    own.unlink()
    torch.manual_seed(3)
    state = create_model("tiny-to-publish").state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, folder / weights)
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return publish(tmp_path_factory.mktemp("published") / "tiny clip", TINY)


def scenario_of(base: Path, name: str, folder: Path) -> Path:
    """The tiny scenario with the model of an address."""
    lines = base.read_text().splitlines()
    told = [f"model: {{name: '{name}'}}" if line.startswith("model") else line for line in lines]
    (folder / "s.yaml").write_text("\n".join(told))
    return folder / "s.yaml"


def hub(home: Path, folder: Path, owner: str, name: str) -> None:
    """The same in the cache of the hub's client, as after a download."""
    place = home / f"models--{owner}--{name}"
    shutil.copytree(folder, place / "snapshots" / "abc")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_folder_is_a_model_with_its_weights_and_normalisation(published):
    loaded = load_clip(Model(name="local-dir:tiny clip"), published.parent)
    files = {"config": str(published / "open_clip_config.json")}
    files["pretrained"] = str(published / "open_clip_model.safetensors")
    assert loaded.sha256 == load_clip(Model(name="x", **files)).sha256
    assert (loaded.name, loaded.mean, loaded.std) == ("tiny-clip", (0.5,) * 3, (0.25,) * 3)
    assert not loaded.assumed and loaded.pretrained == "open_clip_model.safetensors"


def test_weights_of_ones_own_may_stand_in_for_those_of_the_folder(published, tiny_files):
    loaded = load_clip(Model(name=f"local-dir:{published}", pretrained=str(tiny_files[1])))
    assert loaded.sha256 != load_clip(Model(name=f"local-dir:{published}")).sha256


def test_an_address_on_the_hub_is_read_from_its_cache(published, offline):
    hub(offline, published, "somebody", "tiny")
    loaded = load_clip(Model(name="hf-hub:somebody/tiny"))
    assert loaded.name == "somebody--tiny"
    assert loaded.sha256 == load_clip(Model(name=f"local-dir:{published}")).sha256


def test_a_hub_out_of_reach_says_what_to_do(offline):
    with pytest.raises(UserError, match="hf-hub:no/where cannot be fetched .* local-dir:FOLDER"):
        load_clip(Model(name="hf-hub:no/where"))


@pytest.mark.parametrize(
    "name, told",
    [
        ("hf-hub:alone", "must be hf-hub:owner/name"),
        ("hf-hub:a/b/c", "must be hf-hub:owner/name"),
        ("local-dir:nowhere", "there is no folder"),
        ("local-dir:", "there is no folder"),
        ("local-dir:empty", "holds no open_clip_config.json"),
        ("local-dir:hollow", "holds no weights"),
    ],
)
def test_wrong_addresses_are_told_without_torch(tmp_path, tiny_scenario, name, told):
    (tmp_path / "empty").mkdir()
    (tmp_path / "hollow").mkdir()
    (tmp_path / "hollow" / "open_clip_config.json").write_text("{}")
    file = scenario_of(tiny_scenario, name, tmp_path)
    (fault,) = check_model(load_scenario(str(file)))
    assert told in fault and "model.name" in fault
    with pytest.raises(UserError, match="model.name"):
        load_clip(Model(name=name), tmp_path)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("hf-hub:timm/ViT-B-16-SigLIP", "timm--ViT-B-16-SigLIP"),
        ("local-dir:../models/My Clip/", "My-Clip"),
        ("local-dir:.", "model"),
    ],
)
def test_what_an_architecture_is_called(name, expected):
    assert architecture_name(name) == expected


def test_a_run_begins_and_is_evaluated_with_an_address(
    published, tiny_scenario, tiny_strategy, tmp_path, monkeypatch, capsys
):
    file = scenario_of(tiny_scenario, f"local-dir:{published}", tmp_path)
    assert image_size(load_scenario(str(file))) == (32, 32)
    made = cl_complora.run(file, tiny_strategy, out=tmp_path, settings={"training.steps": 1})
    code, out, err = cli(monkeypatch, capsys, "eval", made.folder)
    assert code == 0 and "colours" in out, err
    code, _, err = cli(monkeypatch, capsys, "export", made.folder, "-o", tmp_path / "m.safetensors")
    assert code == 0, err


def test_without_transformers_the_message_says_what_to_install(tmp_path, monkeypatch):
    folder = publish(tmp_path / "tiny-siglip", SIGLIP)
    monkeypatch.setattr("cl_complora.clip.tokenizers.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package transformers: pip install 'cl_complora\[transf"):
        load_clip(Model(name=f"local-dir:{folder}"))


@with_transformers
def test_siglip_goes_from_local_files_to_an_export(
    tmp_path, tiny_scenario, tiny_strategy, monkeypatch, capsys
):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = publish(tmp_path / "tiny-siglip", SIGLIP)
    words = ["<pad>", "<unk>", "a", "photo", "of", "paint", "red", "yellow", "green", "blue"]
    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>").save_pretrained(
        folder
    )
    loaded = load_clip(Model(name=f"local-dir:{folder}"))
    tokens = loaded.tokenizer(["A photo of red."])
    assert tokens.tolist() == [[2, 3, 4, 6] + [0] * 12]
    file = scenario_of(tiny_scenario, f"local-dir:{folder}", tmp_path)
    made = cl_complora.run(file, tiny_strategy, out=tmp_path, settings={"training.steps": 2})
    assert made.results["status"] == "done"
    code, _, err = cli(monkeypatch, capsys, "export", made.folder, "-o", tmp_path / "m.safetensors")
    assert code == 0, err
    picture = next(Path(tiny_scenario.parent).parent.rglob("*.png"))
    code, out, err = cli(monkeypatch, capsys, "predict", made.folder, picture, "--classes", "red,blue")
    assert code == 0 and "red" in out, err
