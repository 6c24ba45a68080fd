"""Checkpoints in the wrappings that they come in: each is read, or told by what it is."""

from __future__ import annotations

import argparse
import functools
import gzip
import json
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from builders.models import TINY, tiny_clip
from cl_complora.clip.checkpoint_files import read_weights
from cl_complora.clip.file_kinds import kind_of_file
from cl_complora.clip.model import LoadedClip, fingerprint, load_clip
from cl_complora.config.scenario import Model
from cl_complora.errors import UserError, reason

MODEL = tiny_clip(seed=3)
STATE = {name: value.clone() for name, value in MODEL.state_dict().items()}
SHA = fingerprint(MODEL)
NUMBERS = {"input_resolution": 32, "context_length": 16, "vocab_size": 49408}


@pytest.fixture(scope="module", autouse=True)
def one_vocabulary():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("open_clip.factory.SimpleTokenizer", functools.cache(open_clip.SimpleTokenizer))
        yield


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    return tmp_path


def load(folder: Path, name: str) -> LoadedClip:
    return load_clip(Model(name="tiny", config="tiny.json", pretrained=name), folder)


def told(folder: Path, name: str) -> str:
    with pytest.raises(UserError) as caught:
        load(folder, name)
    (message,) = caught.value.messages
    assert str(folder / name) in message and "tiny" in message and "\n" not in message
    return message


def named(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in STATE.items()}


def in_transformers_names() -> dict[str, torch.Tensor]:
    """As CLIPModel.state_dict() has them."""
    found = {"text_model.embeddings.position_ids": torch.arange(16)[None]}
    parts = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    names = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    }
    norms = {"ln_final": "text_model.final_layer_norm"}
    norms |= {"visual.ln_pre": "vision_model.pre_layrnorm", "visual.ln_post": "vision_model.post_layernorm"}
    for name, value in STATE.items():
        tower, inside, rest = name.rpartition("transformer.resblocks.")
        module, _, leaf = name.rpartition(".")
        if inside:
            layer, _, inner = rest.partition(".")
            start = f"{'vision' if tower else 'text'}_model.encoder.layers.{layer}."
            if "in_proj" in inner:
                for letter, share in zip("qkv", value.chunk(3), strict=True):
                    found[f"{start}self_attn.{letter}_proj.{inner.rpartition('_')[2]}"] = share
            elif "out_proj" in inner:
                found[start + inner.replace("attn", "self_attn")] = value
            else:
                part = inner.rpartition(".")[0]
                found[start + inner.replace(part, parts[part])] = value
        elif name in ("visual.proj", "text_projection"):
            found[f"{'visual' if 'visual' in name else 'text'}_projection.weight"] = value.T
        elif module in norms:
            found[f"{norms[module]}.{leaf}"] = value
        else:
            found[names.get(name, name)] = value
    return {name: value.contiguous() for name, value in found.items()}


WRAPPED = {
    "ddp": {"epoch": 1, "name": "run", "state_dict": named("module."), "optimizer": {}},
    "numpy scalars": {"state_dict": STATE, "loss": np.float64(0.1), "history": np.arange(3.0)},
    "arguments": {"state_dict": STATE, "args": argparse.Namespace(out=Path("x"), lr=0.1)},
    "compiled": {"state_dict": named("_orig_mod.")},
    "ddp of compiled": {"state_dict": named("module._orig_mod.")},
    "compiled tower": {name.replace("visual.", "visual._orig_mod."): value for name, value in STATE.items()},
    "lightning": {"state_dict": named("model."), "pytorch-lightning_version": "2.4", "loops": {}},
    "lightning net": {"state_dict": named("net.") | {"metric.total": torch.zeros(1)}, "global_step": 3},
    "own wrapper": {"state_dict": named("backbone.clip_model.")},
    "model": {"model": STATE, "epoch": 1},
    "model_state_dict": {"model_state_dict": STATE, "optimizer_state_dict": {"state": {}}},
    "nested": {"model": {"state_dict": STATE}},
    "ema beside": {"model": STATE, "ema": {name: value + 1 for name, value in STATE.items()}},
    "ema alone": {"ema": STATE},
    "other name": {"weights": STATE, "epoch": 1},
    "ordered": OrderedDict(STATE),
    "openai numbers": STATE | {name: torch.tensor(value) for name, value in NUMBERS.items()},
    "averaged": named("module.") | {"n_averaged": torch.tensor(3)},
    "transformers": in_transformers_names(),
    "transformers in lightning": {
        "state_dict": {f"model.{name}": value for name, value in in_transformers_names().items()}
    },
}


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".safetensors"])
def test_wrappings_are_taken_off(folder, kind, suffix):
    """Whatever the file is called, as readers go by what is in it."""
    torch.save(WRAPPED[kind], folder / f"file{suffix}")
    assert load(folder, f"file{suffix}").sha256 == SHA


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "net.", "hub"])
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_safetensors_under_each_of_these_names(folder, prefix, suffix):
    save_file(in_transformers_names() if prefix == "hub" else named(prefix), folder / f"file{suffix}")
    assert load(folder, f"file{suffix}").sha256 == SHA


def test_the_old_format_of_torch(folder):
    torch.save({"model": named("module.")}, folder / "old.pth", _use_new_zipfile_serialization=False)
    assert load(folder, "old.pth").sha256 == SHA


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_read_and_not_run(folder, monkeypatch):
    example = (torch.zeros(1, 3, 32, 32), torch.zeros(1, 16, dtype=torch.long))
    torch.jit.save(torch.jit.trace(MODEL, example, check_trace=False), folder / "script.pt")
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("the archive was run"))
    assert load(folder, "script.pt").sha256 == SHA


def test_what_was_taken_is_told(folder):
    torch.save(WRAPPED["ema beside"], folder / "ema.pt")
    assert any(
        "taken are the weights under 'model', not those under ema" in n for n in load(folder, "ema.pt").notes
    )
    torch.save(WRAPPED["lightning net"], folder / "net.pt")
    assert any("metric.total" in note for note in load(folder, "net.pt").notes)


@pytest.mark.parametrize("content", [STATE, {"state_dict": STATE}, {"state_dict": named("module.")}])
def test_plain_files_are_handed_to_open_clip_as_they_are(folder, content):
    torch.save(content, folder / "plain.pt")
    assert read_weights(folder / "plain.pt", kind_of_file(folder / "plain.pt")).as_stored


def test_deflated_arrays_of_weights_are_numpy(folder):
    """``savez_compressed`` packs bfloat16 in float32 to less than half, and no weights to a quarter."""
    rounded = STATE["token_embedding.weight"].bfloat16().float().numpy()
    np.savez_compressed(folder / "rounded.npz", **{"params/txt/Embed_0/embedding": rounded})
    assert (folder / "rounded.npz").stat().st_size < rounded.nbytes / 2
    assert kind_of_file(folder / "rounded.npz") == "numpy"


# What is refused, and how
# --------------------------------------------------------------------------------------------------------


def text(content: str):
    return lambda path: path.write_text(content)


def saved(content: object):
    return lambda path: torch.save(content, path)


def cut(path: Path) -> None:
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:20_000])


def cut_old(path: Path) -> None:
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:20_000])


def packed(path: Path) -> None:
    path.write_bytes(gzip.compress(b"weights"))


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


def wider() -> dict[str, torch.Tensor]:
    return open_clip.model.CLIP(**{**TINY, "vision_cfg": {**TINY["vision_cfg"], "width": 64}}).state_dict()


class Trainer:
    """Stands for a class of the user's own."""


REFUSED = {
    "page": (text("\n<!DOCTYPE html><html>Sign in</html>"), "is a web page (HTML)"),
    "pointer": (text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"), "git lfs pull"),
    "server": (text("<?xml version='1.0'?><Error>AccessDenied</Error>"), "XML text"),
    "index": (text('{"metadata": {}, "weight_map": {}}'), "JSON text"),
    "empty": (text(""), "empty or cut off"),
    "cut": (cut, "is cut off: the end of its zip archive is missing (20,000 bytes"),
    "cut old": (cut_old, "cut off"),
    "packed": (packed, "a packed file (gzip)"),
    "zipped": (zipped, "zip archive without a checkpoint at its top (it holds readme.txt)"),
    "whole model": (saved(Trainer()), "holds the Python object test_checkpoint_files.Trainer"),
    "object beside": (saved({"model": STATE, "cfg": Trainer()}), "test_checkpoint_files.Trainer"),
    "arrays": (saved({name: value.numpy() for name, value in STATE.items()}), "it holds no weights by name"),
    "optimiser": (saved({"optimizer": {"state": {}}, "epoch": 3}), "its keys: optimizer, epoch"),
    "image tower": (saved({n: v for n, v in STATE.items() if "visual" in n}), "holds the image tower alone"),
    "two models": (saved(named("student.") | named("other.")), "holds several models (student., other.)"),
    "two sets": (saved({"a": STATE, "b": STATE}), "holds several sets of weights (a, b)"),
    "adapter": (saved({"base_model.q.lora_A.weight": torch.zeros(2)}), "it holds an adapter"),
    "wider": (saved(wider()), "another architecture: visual.class_embedding is 64 there and 48 in tiny"),
    "fewer": (
        saved({n: v for n, v in STATE.items() if n != "visual.proj"}),
        "1 that tiny has and it has not",
    ),
    "more": (saved(STATE | {"head.weight": torch.zeros(2)}), "1 that it has and tiny has not (head.weight)"),
    "siglip": (
        saved(in_transformers_names() | {"vision_model.head.probe": torch.zeros(2)}),
        "names are those of transformers, and vision_model.head.probe is no part of CLIP",
    ),
    "no v": (
        saved({n: v for n, v in in_transformers_names().items() if "v_proj" not in n}),
        "has only k, q of q, k and v",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_checkpoint_is_told_by_what_it_is(folder, kind, capfd):
    make, words = REFUSED[kind]
    make(folder / "file.pt")
    assert words in told(folder, "file.pt")
    assert capfd.readouterr() == ("", "")


def test_what_a_library_says_is_told_in_one_short_line():
    assert reason(OSError("no\n  such\thost")) == "OSError: no such host"
    assert reason(KeyError()) == "KeyError" and reason(ValueError(" ")) == "ValueError"
    assert reason(ValueError("x" * 201)) == f"ValueError: {'x' * 200}…"


def test_a_cut_safetensors_file(folder):
    save_file(STATE, folder / "file.safetensors")
    (folder / "file.safetensors").write_bytes((folder / "file.safetensors").read_bytes()[:30_000])
    assert "damaged or cut off" in told(folder, "file.safetensors")


@pytest.mark.parametrize("prefix", ["module.visual.", "model.visual.", "visual.", "module.", ""])
def test_one_tower_is_told_whatever_stands_before_its_names(folder, prefix):
    tower = {name.removeprefix("visual."): v for name, v in STATE.items() if name.startswith("visual.")}
    torch.save({prefix + name: value for name, value in tower.items()}, folder / "tower.pt")
    assert "it holds the image tower alone" in told(folder, "tower.pt")


def test_quantised_and_hollow_weights_are_refused(folder):
    torch.save({n: v.to(torch.int8) if v.ndim > 1 else v for n, v in STATE.items()}, folder / "int8.pt")
    assert "holds whole numbers (torch.int8), as quantised weights do" in told(folder, "int8.pt")
    torch.save({n: v.to("meta") for n, v in STATE.items()}, folder / "hollow.pt")
    assert "has a shape and no numbers" in told(folder, "hollow.pt")
