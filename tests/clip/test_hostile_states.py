"""Hostile and damaged files of models and runs: told in one line each, and no code in them ever runs.

``CL_COMPLORA_FAULTS=long`` tries many more (``make test-faults``).
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import random
import shutil
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from builders.models import TINY, tiny_clip
from builders.places import LONG
from cl_complora.clip import model as clip_model
from cl_complora.clip.architecture import MOST_LAYERS
from cl_complora.clip.model import load_clip
from cl_complora.config.scenario import Model
from cl_complora.errors import UserError
from cl_complora.finished.model_files import open_model

pytestmark = pytest.mark.usefixtures("never_hangs")


def told(action, *arguments, **options) -> str:
    """The one line of a refusal."""
    with pytest.raises(UserError) as caught:
        action(*arguments, **options)
    (line,) = caught.value.messages
    assert line.isprintable() and len(line) < 2000
    return line


class Code:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.fixture(scope="module", autouse=True)
def forget_the_models_made_here():
    from open_clip import factory

    paths, configs = list(factory._MODEL_CONFIG_PATHS), dict(factory._MODEL_CONFIGS)
    yield
    factory._MODEL_CONFIG_PATHS[:] = paths
    factory._MODEL_CONFIGS.clear()
    factory._MODEL_CONFIGS.update(configs)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return tiny_clip().state_dict()


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    return tmp_path


def load(folder: Path, pretrained: str | None = None, config: str = "tiny.json", name: str = "embedded"):
    return load_clip(Model(name=name, pretrained=pretrained, config=config), folder)


# Model configs
# ------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../pwned",
        "../../pwned",
        "/tmp/pwned",
        "a/b",
        "a\\b",
        "hf-hub:evil/model",
        "local-dir:/tmp",
        ".hidden",
        "x\ny",
    ],
)
def test_a_model_is_called_by_no_path_and_no_address(folder, name, monkeypatch):
    """Its config is copied under its name, and open_clip fetches what some names address."""
    monkeypatch.setattr(open_clip, "create_model", lambda *_, **__: pytest.fail("a model was made"))
    before = sorted(folder.parent.rglob("*"))
    assert told(load, folder, name=name).startswith("model.name: ")
    assert sorted(folder.parent.rglob("*")) == before and not Path("/tmp/pwned.json").exists()


def changed(**changes: object) -> dict:
    """The tiny config with some values replaced: ``text_cfg__layers=3``."""
    config = json.loads(json.dumps(TINY))
    for path, value in changes.items():
        *sections, key = path.split("__")
        target = config
        for section in sections:
            target = target[section]
        target[key] = value
    return config


CONFIGS = {
    "layers": (changed(text_cfg__layers=10**6), f"text_cfg.layers must be at most {MOST_LAYERS}"),
    "layers-list": (
        changed(vision_cfg__layers=[10**6] * 4),
        f"vision_cfg.layers must be at most {MOST_LAYERS}",
    ),
    "width": (changed(vision_cfg__width=10**6), "take at least 96,000 GB, and this machine has"),
    "context": (changed(text_cfg__context_length=10**6), "take at least 4,000 GB"),
    "vocabulary": (changed(text_cfg__vocab_size=10**7, text_cfg__width=10**6), "this machine has"),
    "positions": (changed(vision_cfg__image_size=10**6, vision_cfg__patch_size=1), "this machine has"),
    "embedding": (changed(embed_dim=10**9), "embed_dim must be at most 10,000,000, got 1000000000"),
    "nan": (changed(text_cfg__width=float("nan")), "text_cfg.width must be at most 10,000,000, got nan"),
    "infinity": (changed(text_cfg__heads=float("inf")), "text_cfg.heads must be at most 10,000,000, got inf"),
    "text-for-number": (changed(embed_dim="32"), "cannot be built"),
    "list-for-number": (changed(text_cfg__width=[1]), "cannot be built"),
    "zero": (changed(text_cfg__heads=0), "cannot be built"),
    "patch": (changed(vision_cfg__patch_size=0), "cannot be built"),
    "negative": (changed(vision_cfg__image_size=-32), "size must be one or two whole numbers from 1"),
    "null": (changed(vision_cfg__layers=None), "cannot be built"),
    "section-text": (changed(vision_cfg="ViT"), "vision_cfg must be a JSON object"),
    "section-list": (changed(text_cfg=[]), "text_cfg must be a JSON object"),
    "preprocess-number": ({"model_cfg": TINY, "preprocess_cfg": 3}, "preprocess_cfg must be a JSON object"),
    "preprocess-types": (
        {"model_cfg": TINY, "preprocess_cfg": {"mean": "red"}},
        "mean must be three numbers, got",
    ),
    "preprocess-short": ({"model_cfg": TINY, "preprocess_cfg": {"std": [1]}}, "std must be three numbers"),
    "preprocess-zero": ({"model_cfg": TINY, "preprocess_cfg": {"std": [0, 0, 0]}}, "greater than 0"),
    "preprocess-fill": (
        {"model_cfg": TINY, "preprocess_cfg": {"fill_color": "red"}},
        "fill_color must be from",
    ),
    "unknown": (changed(vision_cfg__colour="red"), "cannot be built"),
    "remote-code": (
        changed(
            text_cfg__hf_tokenizer_name="evil/tokenizer",
            text_cfg__tokenizer_kwargs={"trust_remote_code": True},
        ),
        "text_cfg.tokenizer_kwargs: only clean, strip_sep_token, language are allowed there, "
        "got trust_remote_code",
    ),
    "tokenizer-list": (changed(text_cfg__tokenizer_kwargs=[1]), "text_cfg.tokenizer_kwargs: only"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_hostile_model_configs(folder, name, capfd):
    config, fragment = CONFIGS[name]
    (folder / "odd.json").write_text(json.dumps(config))
    began = time.process_time()
    assert fragment in told(load, folder, config="odd.json")
    assert time.process_time() - began < 10 and capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"a":' * 50_000, "9" * 5000, "NaN", '"' + "x" * 2_000_000, "\0", "\ud800"]
)
def test_what_is_no_model_config(folder, content):
    (folder / "odd.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    assert f"{folder}/odd.json: cannot be read as an open_clip model config" in told(
        load, folder, config="odd.json"
    )


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
@pytest.mark.parametrize("name", ["odd.json", "odd.safetensors", "odd.pt"])
def test_what_is_no_file(folder, make, name):
    make(folder / name)
    options = {"config": name} if name.endswith(".json") else {"pretrained": name}
    assert f"{folder}/{name}" in told(load, folder, **options)


# Weights
# ------------------------------------------------------------


def bombs(folder: Path) -> None:
    """Archives that are small as files alone: in every record that is read, and in those that lie."""
    zeros = bytes(10**7)
    for record in ("version", ".data/version", "byteorder", "data/0"):
        packed = folder / f"script-{record.replace('/', '-')}.pt"
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in ("data.pkl", "constants.pkl"):
                archive.writestr(f"m/{name}", pickle.dumps({}, 2), zipfile.ZIP_STORED)
            archive.writestr(f"m/{record}", zeros)
    content = (folder / "script-version.pt").read_bytes()
    stated = len(zeros).to_bytes(4, "little")
    assert content.count(stated) == 2
    (folder / "script-lie.pt").write_bytes(content.replace(stated, (1).to_bytes(4, "little")))
    for name, method in {"deflated": zipfile.ZIP_DEFLATED, "bz2": zipfile.ZIP_BZIP2}.items():
        with zipfile.ZipFile(folder / f"{name}.npz", "w", method) as archive:
            archive.writestr("params/img/cls.npy", zeros)


def hostile_weights(folder: Path, weights: dict[str, torch.Tensor]) -> dict[str, str]:
    """File name → words that its refusal holds; whatever is run writes a file called ``ran``."""
    ran = folder / "ran"
    names = ("pickle.safetensors", "pickle.pt", "pickle.bin", "pickle.pth", "pickle.ckpt", "pickle")
    for name in names:
        (folder / name).write_bytes(pickle.dumps({"state_dict": Code(ran)}))
    for old in (False, True):
        for name, content in {
            "code": {"visual.proj": Code(ran)},
            "beside": weights | {"epoch": Code(ran)},
            "inside": {"state_dict": weights, "optimizer": [Code(ran)]},
        }.items():
            torch.save(content, folder / f"{name}-{old}.pt", _use_new_zipfile_serialization=not old)
    (folder / "names.pt").write_bytes(b'cbuiltins\neval\n(S\'open("%b", "w")\'\ntR.' % str(ran).encode())
    (folder / "system.pt").write_bytes(b"cposix\nsystem\n(S'touch %b'\ntR." % str(ran).encode())
    np.savez(folder / "objects.npz", params=np.array([Code(ran)], dtype=object))
    np.save(folder / "objects.npy", np.array([Code(ran)], dtype=object))
    broken = {key: value.clone() for key, value in weights.items()}
    broken["visual.proj"][0, 0] = float("nan")
    save_file(broken, folder / "nan.safetensors")
    broken["visual.proj"][0, 0] = float("inf")
    torch.save(broken, folder / "inf.pt")
    with zipfile.ZipFile(folder / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", pickle.dumps({}, 2))
        archive.writestr("bomb/version", "3")
        archive.writestr("bomb/data/0", bytes(3 * 10**8))
    bombs(folder)
    header = json.dumps(
        {"visual.proj": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}
    )
    four = '{"dtype":"U8","shape":[4],"data_offsets":[0,4]}'
    for name, length, text in (
        ("far.safetensors", None, header),
        ("long.safetensors", 2**62, ""),
        ("longer.safetensors", 99_000_000, ""),
        ("deep.safetensors", None, '{"a":' * 20_000),
        ("shape.safetensors", None, '{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}'),
        ("twice.safetensors", None, f'{{"a":{four},"b":{four}}}'),
        ("kind.safetensors", None, f'{{"a":{four.replace("U8", "Q99")}}}'),
    ):  # fmt: skip
        (folder / name).write_bytes(
            struct.pack("<Q", len(text) if length is None else length) + text.encode() + bytes(4)
        )
    plain = "no file of plain tensors"
    return {
        **dict.fromkeys(names[1:], plain),
        **{f"{name}-{old}.pt": plain for name in ("code", "beside", "inside") for old in (False, True)},
        "pickle.safetensors": "does not load",
        "names.pt": plain,
        "system.pt": plain,
        "objects.npz": "does not load",
        "objects.npy": "does not load",
        "nan.safetensors": "visual.proj holds numbers that are not finite",
        "inf.pt": "visual.proj holds numbers that are not finite",
        "bomb.pt": "is compressed, as no checkpoint is; unpacked: 300,000,",
        **{
            f"script-{record}.pt": "is compressed, as no checkpoint is; unpacked: 10,000,"
            for record in ("version", ".data-version", "byteorder", "data-0")
        },
        "script-lie.pt": "is compressed, as no checkpoint is",
        **{f"{name}.npz": "is compressed as no arrays of weights are" for name in ("deflated", "bz2")},
        **{
            f"{name}.safetensors": "does not load"
            for name in ("far", "long", "longer", "deep", "shape", "twice", "kind")
        },
    }


def test_code_in_weight_files_never_runs(folder, weights, monkeypatch, capfd):
    files = hostile_weights(folder, weights)
    assert not (folder / "ran").exists()
    ways = []
    really = torch.load
    monkeypatch.setattr(
        torch, "load", lambda *a, **options: ways.append(options.get("weights_only")) or really(*a, **options)
    )
    capfd.readouterr()
    for name, words in files.items():
        line = told(load, folder, pretrained=name)
        assert str(folder / name) in line and words in line, (name, line)
        assert not (folder / "ran").exists(), name
    assert ways and set(ways) == {True}
    assert capfd.readouterr() == ("", "")


def test_damaged_weight_files(folder, weights, monkeypatch):
    """Cut off and with flipped bits: refused, or (a bit in the middle of the numbers) other numbers."""
    monkeypatch.setattr(clip_model, "fingerprint", lambda model: "")
    save_file(weights, folder / "good.safetensors")
    torch.save(weights, folder / "good.pt")
    rng, refused = random.Random(0), 0
    for number in range(400 if LONG else 8):
        name = ("good.safetensors", "good.pt")[number % 2]
        content = bytearray((folder / name).read_bytes())
        head = min(len(content), 4000)
        for _ in range(rng.choice([1, 3, 20])):
            content[rng.randrange(head) if rng.random() < 0.7 else -rng.randrange(1, head)] ^= (
                1 << rng.randrange(8)
            )
        if rng.random() < 0.3:
            del content[rng.randrange(len(content)) :]
        (folder / f"x{Path(name).suffix}").write_bytes(content)
        try:
            loaded = load(folder, pretrained=f"x{Path(name).suffix}")
            assert all(value.isfinite().all() for value in loaded.model.parameters())
        except UserError as error:
            refused += 1
            (line,) = error.messages
            assert "model.pretrained: " in line and line.isprintable() and len(line) < 1000
    assert refused


# Exported checkpoints
# ------------------------------------------------------------


@pytest.fixture
def exported(folder, weights) -> Path:
    """A checkpoint as ``export`` leaves it, with merges of its own."""
    save_file(weights, folder / "mine.safetensors")
    (folder / "mine.open_clip_config.json").write_text(json.dumps({"model_cfg": TINY}))
    shutil.copyfile(open_clip.tokenizer.default_bpe(), folder / "mine.bpe.txt.gz")
    return folder / "mine.safetensors"


def test_an_export_with_merges_of_its_own_opens(exported):
    assert open_model(str(exported)).tokenizer.vocab_size == 49408


MERGES = {
    "large": (b"", "is larger than 33,554,432 bytes"),
    "few": (gzip.compress(b"#version\na b\n"), "makes 516 words, and the model was made for 49,408"),
    "cut": (gzip.compress(b"x" * 1000)[:-20], "cannot be read as a tokenizer's merges"),
    "damaged": (
        gzip.compress(bytes(range(256)) * 4)[:30] + b"\xff" * 30,
        "cannot be read as a tokenizer's merges",
    ),
    "not-utf8": (gzip.compress(b"\xff\xfe\xfd\n"), "cannot be read as a tokenizer's merges"),
    "no-gzip": (b"no gzip", "cannot be read as a tokenizer's merges"),
    "empty": (b"", "merges"),
}


@pytest.mark.parametrize("name", MERGES)
def test_hostile_merges(exported, name):
    content, fragment = MERGES[name]
    if name == "large":  # made here, since every process collects the names
        content = gzip.compress(bytes(2 * 10**8), 1)
    exported.with_suffix(".bpe.txt.gz").write_bytes(content)
    line = told(open_model, str(exported))
    assert line.startswith(f"{exported.with_suffix('')}.bpe.txt.gz: ") and fragment in line


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"model_cfg": {}}', '{"model_cfg": {"text_cfg": {}}}', "[" * 50_000, "{"]
)
def test_hostile_configs_of_an_export(exported, content):
    exported.with_suffix(".open_clip_config.json").write_text(content)
    assert "mine.open_clip_config.json" in told(open_model, str(exported))


@pytest.mark.parametrize(
    "name", ["~nobodyatall/x.safetensors", "a\0b.safetensors", "x" * 300 + ".safetensors", ".safetensors"]
)
def test_names_of_no_export(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        assert "there is no such file" in told(open_model, name)
    except OSError as error:
        assert error.strerror == "File name too long"


def test_pickles_are_what_they_are(tmp_path):
    """The files above would run code if they were opened as what they are."""
    content = pickle.dumps({"state_dict": Code(tmp_path / "ran")})
    pickle.loads(content)["state_dict"].close()
    assert (tmp_path / "ran").exists()
    buffer = io.BytesIO()
    torch.save({"x": Code(tmp_path / "also")}, buffer)
    buffer.seek(0)
    torch.load(buffer, weights_only=False)
    assert (tmp_path / "also").exists()
