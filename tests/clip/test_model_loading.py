"""Loading CLIPs by name, tag, file and config; what is refused and how it is told; preprocessing as
open_clip's own."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file

from builders.models import TINY, tiny_clip
from builders.places import SHARED
from cl_complora.clip.model import _resolve_tag, fingerprint, load_clip
from cl_complora.clip.slots import open_slots
from cl_complora.config.scenario import Model
from cl_complora.data.images.pixels import Pixels
from cl_complora.errors import UserError

REAL = SHARED / "realdata/model/mobilevit_xxs_clip.json"


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return tiny_clip(seed=3).state_dict()


@pytest.fixture
def folder(tmp_path, weights) -> Path:
    """tiny.json with its weights in two formats."""
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    save_file(weights, tmp_path / "tiny.safetensors")
    torch.save(weights, tmp_path / "tiny.pt")
    return tmp_path


def load(
    folder: Path, pretrained: str | None = None, config: str | None = "tiny.json", name: str = "embedded"
):
    return load_clip(Model(name=name, config=config, pretrained=pretrained), folder)


def told(folder: Path, *args, **kwargs) -> str:
    """The one line that the user gets."""
    with pytest.raises(UserError) as caught:
        load(folder, *args, **kwargs)
    (message,) = caught.value.messages
    assert "\n" not in message and len(message) < 1500
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return message


# What loads
# ------------------------------------------------------------


@pytest.mark.parametrize("file", ["tiny.safetensors", "tiny.pt"])
def test_own_config_and_file(folder, weights, file):
    loaded = load(folder, file)
    state = loaded.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in weights.items()) and set(state) == set(
        weights
    )
    assert (loaded.name, loaded.pretrained, loaded.assumed) == ("tiny", file, True)
    (note,) = loaded.notes
    assert "config does not say how pixels are normalised: CLIP's mean [0.481" in note
    assert not loaded.model.training and loaded.tokenizer(["hi"]).shape == (1, 16)
    assert loaded.pixels == Pixels((32, 32)) and len(loaded.sha256) == 64
    assert (loaded.mean, loaded.std) == (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)


def test_half_precision_weights_become_fp32(folder, weights):
    save_file({name: value.half() for name, value in weights.items()}, folder / "half.safetensors")
    assert all(p.dtype == torch.float32 for p in load(folder, "half.safetensors").model.parameters())


def test_a_training_checkpoint_of_open_clip(folder, weights):
    state = {f"module.{name}": value for name, value in weights.items()}
    torch.save(
        {"epoch": 3, "name": "run", "state_dict": state, "optimizer": {"lr": 0.1}}, folder / "epoch_3.pt"
    )
    assert load(folder, "epoch_3.pt").sha256 == load(folder, "tiny.pt").sha256


def test_absolute_paths(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    spec = Model(name="embedded", config=str(folder / "tiny.json"), pretrained=str(folder / "tiny.pt"))
    assert load_clip(spec, elsewhere).pretrained == "tiny.pt"


def test_the_normalisation_of_the_scenario_comes_first(folder):
    spec = Model(
        name="tiny", config="tiny.json", pretrained="tiny.pt", mean=[0.0, 0.0, 0.0], std=[1.0, 1.0, 1.0]
    )
    loaded = load_clip(spec, folder)
    assert (loaded.mean, loaded.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_the_config_file_that_open_clip_publishes_on_the_hub(folder):
    preprocess = {
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
        "interpolation": "bilinear",
        "resize_mode": "squash",
    }
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": TINY, "preprocess_cfg": preprocess})
    )
    loaded = load(folder, "tiny.pt", "open_clip_config.json", name="published")
    assert loaded.name == "published" and loaded.sha256 == load(folder, "tiny.pt").sha256
    assert loaded.pixels == Pixels((32, 32), "squash", "bilinear")
    assert (loaded.mean, loaded.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert open_clip.get_model_config("published") == TINY


def test_an_edited_config_is_read_again(folder):
    assert load(folder).pixels.size == (32, 32)
    changed = TINY | {"vision_cfg": TINY["vision_cfg"] | {"image_size": [48, 32]}}
    (folder / "tiny.json").write_text(json.dumps(changed))
    assert load(folder).pixels.size == (48, 32)


def test_interpolated_positions_are_told(folder):
    """Weights of other picture sizes or context lengths load without a word, and answer worse."""
    assert not any("interpolated" in note for note in load(folder, "tiny.pt").notes)
    changed = TINY | {"vision_cfg": TINY["vision_cfg"] | {"image_size": 64}}
    (folder / "larger.json").write_text(json.dumps(changed))
    patches = next(n for n in load(folder, "tiny.pt", "larger.json").notes if "interpolated" in n)
    assert "of patches for (4, 4), the model has (8, 8)" in patches
    changed = TINY | {"text_cfg": TINY["text_cfg"] | {"context_length": 20}}
    (folder / "longer.json").write_text(json.dumps(changed))
    texts = next(n for n in load(folder, "tiny.pt", "longer.json").notes if "interpolated" in n)
    assert "of the text tower for 16, the model has 20" in texts


def test_loading_leaves_the_log_as_it_was(folder):
    root, kept = logging.getLogger(), logging.NullHandler()
    root.addHandler(kept)
    try:
        before = root.level, list(root.handlers)
        load(folder, "tiny.pt")
        told(folder, "none.pt")
        assert (root.level, root.handlers) == before
    finally:
        root.removeHandler(kept)


def test_random_weights_are_the_same_every_time_and_disturb_nothing(folder):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = load(folder)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    assert load(folder).sha256 == first.sha256
    assert first.pretrained == "" and "random weights" in first.notes[-1]


def test_loading_disturbs_no_random_number(folder):
    state = torch.get_rng_state()
    load(folder, "tiny.pt")
    load_clip(Model())
    assert torch.equal(state, torch.get_rng_state())


def test_the_embedded_model():
    loaded = load_clip(Model())
    assert (loaded.name, loaded.pretrained, loaded.notes) == ("embedded", "embedded", ())
    assert loaded.pixels.size == loaded.model.visual.image_size
    texts = loaded.model.encode_text(loaded.tokenizer(["a red circle"]))
    assert texts.isfinite().all() and loaded.sha256 == load_clip(Model()).sha256
    with pytest.raises(UserError, match="leave pretrained out"):
        load_clip(Model(pretrained="openai"))


def test_a_damaged_embedded_model_is_told(monkeypatch, folder):
    monkeypatch.setattr("cl_complora.clip.model.ASSETS", folder)
    (folder / "embedded_clip.json").write_text(json.dumps(TINY))
    (folder / "preprocess.json").write_text('{"mean": [0, 0, 0], "std": [1, 1, 1]}')
    whole = (folder / "tiny.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "install the package again" in told(folder, config=None)
    (folder / "preprocess.json").unlink()
    assert "install the package again" in told(folder, config=None)


def test_the_real_image_tower():
    if not REAL.exists():
        pytest.skip(f"{REAL} is not in this checkout")
    loaded = load_clip(Model(name="m", config=str(REAL), pretrained=str(REAL.with_suffix(".safetensors"))))
    assert (loaded.name, loaded.pixels.size) == ("m", (256, 256))


# What is refused
# ------------------------------------------------------------


class Code:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def bad_files(folder: Path, weights: dict[str, torch.Tensor]) -> dict[str, str]:
    """Name → words that its refusal holds."""
    torch.manual_seed(0)
    wider = {**TINY, "vision_cfg": {**TINY["vision_cfg"], "width": 64}}
    save_file(open_clip.model.CLIP(**wider).state_dict(), folder / "wider.safetensors")
    save_file({"layer.weight": torch.zeros(2)}, folder / "nothing_alike.safetensors")
    save_file({}, folder / "empty.safetensors")
    torch.save(torch.zeros(3), folder / "tensor.pt")
    for name in ("tiny.safetensors", "tiny.pt"):
        whole = (folder / name).read_bytes()
        (folder / f"truncated_{name}").write_bytes(whole[: len(whole) // 2])
    for name in ("text.safetensors", "text.pt", "text.bin"):
        (folder / name).write_text("<html>404 Not Found</html>")
    (folder / "nothing.pt").write_bytes(b"")
    with (folder / "code.pt").open("wb") as file:
        pickle.dump({"visual.proj": Code(folder / "executed")}, file)
    torch.save({"visual.proj": Code(folder / "executed")}, folder / "code_in_zip.pt")
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(folder / "script.pt"))
    return {
        "wider.safetensors": "another architecture",
        "nothing_alike.safetensors": "another architecture, no CLIP",
        "empty.safetensors": "holds no weights",
        "tensor.pt": "holds no weights",
        "truncated_tiny.safetensors": "not fully covered",
        "truncated_tiny.pt": "zip archive",
        "text.safetensors": "is a web page (HTML)",
        "text.pt": "is a web page (HTML)",
        "text.bin": "is a web page (HTML)",
        "nothing.pt": "empty or cut off",
        "code.pt": "no file of plain tensors",
        "code_in_zip.pt": "holds the Python object",
        "script.pt": "another architecture, no CLIP",
    }


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_files_that_do_not_fit_are_told_in_one_line(folder, weights, capfd, recwarn):
    files = bad_files(folder, weights)
    recwarn.clear()
    capfd.readouterr()
    for name, words in files.items():
        message = told(folder, name)
        assert str(folder / name) in message and "tiny" in message and words in message, message
    assert capfd.readouterr() == ("", "") and not recwarn.list
    assert not (folder / "executed").exists()


def test_missing_files(folder):
    for name in ("missing.safetensors", "sub/missing", "missing.pt"):
        assert told(folder, name) == f"model.pretrained: there is no weight file {folder / name}"
    assert str(folder / "missing.json") in told(folder, config="missing.json")


@pytest.mark.parametrize(
    "content", ["", "[]", "3", "{", '{"model_cfg": 3}', '{"embed_dim": 3}', '{"model_cfg": {}}']
)
def test_configs_that_are_none(folder, content):
    (folder / "bad.json").write_text(content)
    message = told(folder, config="bad.json")
    assert str(folder / "bad.json") in message and "open_clip model config" in message


def test_a_config_that_open_clip_cannot_build(folder):
    (folder / "odd.json").write_text(json.dumps(TINY | {"vision_cfg": {"colour": "red"}}))
    assert "odd cannot be built" in told(folder, config="odd.json")


@pytest.mark.parametrize("preprocess", [{"resize_mode": "stretch"}, {"interpolation": "nearest"}])
def test_preprocessing_that_open_clip_does_not_know(folder, preprocess):
    (folder / "odd.json").write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": preprocess}))
    assert next(iter(preprocess.values())) in told(folder, config="odd.json")


def test_a_config_may_not_take_the_place_of_a_model_of_open_clip(folder):
    (folder / "ViT-B-16.json").write_text(json.dumps(TINY))
    assert "another model of the name ViT-B-16" in told(folder, config="ViT-B-16.json")
    assert open_clip.get_model_config("ViT-B-16")["embed_dim"] == 512


@pytest.mark.parametrize("name", ["ViT-B16", "vit-b-16", "ViT-B/16"])
def test_unknown_names_get_a_suggestion(folder, name):
    message = told(folder, config=None, name=name)
    assert repr(name) in message and "did you mean" in message and "ViT-B-16" in message


def test_unknown_tags_list_the_known_ones(folder):
    message = told(folder, "openia", config=None, name="ViT-B-32")
    assert "ViT-B-32 has no weights 'openia'" in message and "laion2b_s34b_b79k" in message


def test_without_a_network_it_is_told_what_to_put_where(folder, monkeypatch, capfd):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    message = told(folder, "openai", config=None, name="ViT-B-16")
    assert "ViT-B-16-quickgelu/openai cannot be fetched" in message
    assert "https://huggingface.co/timm/vit_base_patch16_clip_224.openai" in message
    assert "model.pretrained" in message and "model.config" in message
    assert capfd.readouterr() == ("", ""), "the one line is all"


# Names and tags
# ------------------------------------------------------------


def test_openai_weights_resolve_to_quickgelu():
    notes: list[str] = []
    assert _resolve_tag("ViT-B-16", "openai", notes) == ("ViT-B-16-quickgelu", "openai")
    assert notes == ["ViT-B-16 with openai weights resolves to ViT-B-16-quickgelu"]
    assert _resolve_tag("ViT-B-16-quickgelu", "openai", notes) == ("ViT-B-16-quickgelu", "openai")
    assert _resolve_tag("ViT-B-16", "laion2b_s34b_b88k", notes) == ("ViT-B-16", "laion2b_s34b_b88k")
    assert _resolve_tag("ViT-B-16", "laion2b-s34b-b88k", notes) == ("ViT-B-16", "laion2b_s34b_b88k")
    assert len(notes) == 1


def test_every_tag_resolves_to_the_activation_that_it_was_trained_with():
    for name, tag in open_clip.list_pretrained():
        resolved, spelt = _resolve_tag(name, tag, [])
        trained = open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False)
        if trained:
            assert open_clip.get_model_config(resolved).get("quick_gelu", False), (name, tag)
        assert open_clip.is_pretrained_cfg(resolved, spelt)
        assert resolved in (name, f"{name}-quickgelu") and (trained or resolved == name)


def test_weights_in_a_file_may_need_quickgelu(monkeypatch, folder, weights):
    """Nothing in a file tells; the user is."""
    monkeypatch.setattr("cl_complora.clip.model._create", lambda *_: (open_clip.create_model("tiny"), []))
    load(folder)  # registers tiny
    loaded = load(folder, "tiny.pt", config=None, name="ViT-B-16")
    assert any("name ViT-B-16-quickgelu" in note for note in loaded.notes)


# Fingerprint
# ------------------------------------------------------------


def test_fingerprint_sees_every_weight_and_no_host(weights):
    model = tiny_clip()
    first = fingerprint(model)
    open_slots(model)
    assert fingerprint(model) == first
    seen = {first}
    for name in ("logit_scale", "visual.class_embedding", "transformer.resblocks.1.attn.in_proj_weight"):
        with torch.no_grad():
            entry = model.get_parameter(name).view(-1)[-1:]
            entry.copy_(torch.nextafter(entry, torch.tensor(9.0)))
        seen.add(fingerprint(model))
    assert len(seen) == 4
    assert fingerprint(tiny_clip()) == first
    assert fingerprint(tiny_clip(seed=1)) not in seen


# Pixels
# ------------------------------------------------------------

SHAPES = [(32, 32), (33, 32), (32, 47), (200, 31), (31, 200), (320, 213), (99, 100), (17, 11), (5, 64)]


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(32, 32), (31, 31), (48, 32), (33, 64)])
def test_pixels_are_open_clips_to_the_last_bit(mode, interpolation, size):
    config = PreprocessCfg(size, interpolation=interpolation, resize_mode=mode, fill_color=7)
    resize = image_transform_v2(config, is_train=False).transforms[:-2]  # without ToTensor and Normalize
    pixels = Pixels(size, mode, interpolation, fill=7)
    rng = np.random.default_rng(0)
    shapes = SHAPES + [tuple(shape) for shape in rng.integers(8, 200, (12, 2))]
    for height, width in shapes:
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        expected = image
        for part in resize:
            expected = part(expected)
        found = pixels.fit(image)
        assert found.dtype == torch.uint8 and found.shape == (3, *size)
        assert np.array_equal(found.permute(1, 2, 0).numpy(), np.asarray(expected)), (height, width)


def test_very_long_images_fit():
    assert Pixels((8, 8), "longest").fit(Image.new("RGB", (4000, 1))).shape == (3, 8, 8)
