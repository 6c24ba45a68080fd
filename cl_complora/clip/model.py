"""Load any open_clip model, by name and tag, by name and file, by its own config, or the embedded one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.pretrained import download_pretrained_from_hf
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor, nn

from ..config.model_names import names_a_file, unknown_model
from ..config.normalisation import MAX_CONFIG, assumed
from ..config.repositories import (
    CONFIG,
    HUB,
    LOCAL,
    address_fault,
    architecture_name,
    is_address,
    local_folder,
    weights_in,
)
from ..config.scenario import Model
from ..config.tokenizer_files import tokenizer_files
from ..data.images.pixels import Pixels
from ..errors import UserError, raise_all, reason
from ..files import parse_json, read_bytes
from ..world import ASSETS
from .architecture import check_size, config_faults, preprocess_faults
from .checkpoint_files import file_fault, plain_file
from .loading_log import interpolated, kept_quiet
from .published_preprocessing import published_normalisations, published_scaling
from .tokenizers import load_tokenizer, own_tokenizer
from .untouched_tower import UntouchedTower

EMBEDDED = "embedded"

# open_clip's own: a config that is read here is added to its list.
BUILT_IN = frozenset(open_clip.list_models())


@dataclass
class LoadedClip:
    """A CLIP with what is needed around it.

    Attributes:
        model: the open_clip model, fp32, in eval mode.
        tokenizer: texts → ``n × context`` tokens.
        name: the resolved architecture (``ViT-B-16-quickgelu`` where the weights need it).
        pretrained: tag, file name, or ``embedded``; empty for random weights.
        sha256: fingerprint of all weights.
        pixels: resize and crop of its preprocessing.
        mean, std: normalisation.
        notes: what the user should know about how the name was resolved.
        assumed: whether the normalisation is a guess, since neither model nor scenario says.
        files: that it was read from, weights and config.
        own_tokenizer: file or folder of a tokeniser of its own, as :func:`~.tokenizers.own_tokenizer` has it.
        untouched: the image tower of before all tasks, where the model has learned and heads also see images
            by it.
    """

    model: nn.Module
    tokenizer: Callable[..., Tensor]
    name: str
    pretrained: str
    sha256: str
    pixels: Pixels
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...] = ()
    assumed: bool = False
    files: tuple[Path, ...] = ()
    own_tokenizer: Path | None = None
    untouched: UntouchedTower | None = None

    @property
    def beside_weights(self) -> dict[str, Any]:
        """What tells it from others of the same weights: hashes of its modules, of its config and of a
        tokeniser of its own, and how pixels reach it.

        Activation, words and preprocessing leave no trace in the weights, and numbers of heads, pooling and
        masks none in the modules either.
        """
        config = json.dumps(open_clip.get_model_config(self.name), sort_keys=True, default=str)
        return {
            "architecture": hashlib.sha256(str(self.model).encode()).hexdigest(),
            "config_sha256": hashlib.sha256(config.encode()).hexdigest(),
            "preprocessing": [str(self.pixels), *map(float, (*self.mean, *self.std))],
            "tokenizer_sha256": None if self.own_tokenizer is None else _words(self.own_tokenizer),
        }

    @property
    def activation(self) -> str:
        """Which of the two kinds of GELU the model computes: ``QuickGELU``, ``GELU``, both or none."""
        kinds = {type(module).__name__ for module in self.model.modules()}
        return " and ".join(sorted(kind for kind in kinds if kind in ("QuickGELU", "GELU"))) or "no GELU"


def _words(own: Path) -> str:
    """SHA-256 of a tokeniser's files; byte pairs are the same under whatever name."""
    if own.is_file():
        return hashlib.sha256(own.read_bytes()).hexdigest()
    files = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in tokenizer_files(own)}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def load_clip(spec: Model, folder: Path = Path(".")) -> LoadedClip:
    """Load the model that a scenario names; torch's random numbers are left as they were.

    Args:
        spec: name, pretrained tag or file, config file.
        folder: where relative file names start from.

    Raises:
        UserError: for an unknown name or tag, a missing or unfitting file, a hub that cannot be reached.
    """
    if spec.name == EMBEDDED and spec.config is None:
        if spec.pretrained is not None:
            raise UserError(
                "model.pretrained: the embedded model brings its own weights; leave pretrained out"
            )
        return _load_embedded()
    notes: list[str] = []
    if is_address(spec.name):
        spec = _at_address(spec, folder)
    name, preprocess = spec.name, {}
    if spec.config is not None:
        path = folder / Path(spec.config).expanduser()
        name, preprocess = _register_config(path, path.stem if name == EMBEDDED else name)
    elif name not in open_clip.list_models():
        raise UserError(f"model.name: {unknown_model(name, open_clip.list_models())}")
    stated = dict(preprocess)
    if spec.config is None and spec.pretrained and _weight_file(spec.pretrained, folder):
        preprocess |= published_scaling(name, notes)
    preprocess |= {key: getattr(spec, key) for key in ("mean", "std") if getattr(spec, key) is not None}
    pretrained = spec.pretrained
    file = _weight_file(pretrained, folder) if pretrained else None
    if pretrained and file is None:
        name, pretrained = _resolve_tag(name, pretrained, notes)
    guess = ""
    if file or spec.config is not None:
        guess = assumed(spec, stated, set() if spec.config else published_normalisations(name))
        notes += [guess] if guess else []
    check_size(name, open_clip.get_model_config(name), spec.image_size)
    try:
        with plain_file(file) if file else contextlib.nullcontext((pretrained, ())) as (weights, told):
            model, about = _create(name, weights and str(weights), preprocess, spec.image_size)
            notes += [*about, *told]
    except (
        Exception
    ) as error:  # open_clip, the hub client and torch raise many kinds; all mean "cannot be loaded"
        raise UserError(_load_failure(name, pretrained, file, error)) from None
    broken = next((key for key, value in model.named_parameters() if not _is_finite(value)), None)
    if broken is not None:
        raise UserError(f"model.pretrained: {file or pretrained}: {broken} holds numbers that are not finite")
    try:
        own = own_tokenizer(name, folder / Path(spec.config).expanduser() if spec.config else None)
        with kept_quiet():
            tokenizer = load_tokenizer(name, own)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"model: the tokeniser of {name} cannot be loaded ({reason(error)})") from None
    if not pretrained:
        notes.append(f"{name} has random weights: give model.pretrained a tag or a file")
    if file and f"{name}-quickgelu" in open_clip.list_models():
        notes.append(
            f"{name} computes GELU; for weights that were trained with QuickGELU name {name}-quickgelu"
        )
    source = file.name if file else pretrained or ""
    pixels, mean, std = _preprocessing(model, name)
    read = tuple(path for path in (file, spec.config and folder / Path(spec.config).expanduser()) if path)
    found = model, tokenizer, name, source, fingerprint(model), pixels, mean, std
    return LoadedClip(*found, tuple(notes), bool(guess), read, own)


def _at_address(spec: Model, folder: Path) -> Model:
    """The model of a repository as config, weights and a name; what the scenario names itself stays.

    Raises:
        UserError: if there is no such repository, or it cannot be reached.
    """
    found = {"name": architecture_name(spec.name)}
    if spec.config is None or spec.pretrained is None:
        if fault := address_fault(spec.name, folder):
            raise UserError(f"model.name: {fault}")
        if spec.name.startswith(LOCAL):
            place = local_folder(spec.name, folder)
            config, weights = place / CONFIG, weights_in(place)
        else:
            identifier = spec.name.removeprefix(HUB)
            try:
                with kept_quiet():
                    config = Path(download_pretrained_from_hf(identifier, filename=CONFIG))
                    weights = spec.pretrained or Path(download_pretrained_from_hf(identifier))
            except Exception as error:  # the hub client raises many kinds
                raise UserError(
                    f"model.name: {spec.name} cannot be fetched ({reason(error)}); without a network, get"
                    f" its files elsewhere and name their folder: {LOCAL}FOLDER"
                ) from None
        found["config"] = spec.config or str(config.absolute())
        found["pretrained"] = spec.pretrained or str(Path(weights).absolute())
    return spec.model_copy(update=found)


def _load_embedded() -> LoadedClip:
    try:
        name, _ = _register_config(ASSETS / "embedded_clip.json", "embedded_clip")
        model, _ = _create(name, str(ASSETS / "model.safetensors"), _read_json(ASSETS / "preprocess.json"))
        tokenizer = embedded_tokenizer()
    except Exception as error:  # as above
        raise UserError(
            f"the embedded model in {ASSETS} is damaged ({reason(error)}); install the package again"
        ) from None
    found = model, tokenizer, EMBEDDED, EMBEDDED, fingerprint(model), *_preprocessing(model, EMBEDDED)
    return LoadedClip(*found, own_tokenizer=ASSETS / "bpe.txt.gz")


def _create(
    name: str, pretrained: str | None, preprocess: dict, image_size: int | None = None
) -> tuple[nn.Module, list[str]]:
    """The model, and what the user should know about how its weights fitted."""
    # Weights without a source are drawn from seed 0: the same model, and the same fingerprint, in every
    # process.
    with kept_quiet() as logged, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        preprocess = {key: value for key, value in preprocess.items() if key != "size"}
        model = open_clip.create_model(
            name, pretrained=pretrained, force_preprocess_cfg=preprocess, force_image_size=image_size
        ).eval()
    return model, [told for record in logged if (told := interpolated(record))]


def _preprocessing(model: nn.Module, name: str) -> tuple[Pixels, tuple[float, ...], tuple[float, ...]]:
    config = PreprocessCfg(**model.visual.preprocess_cfg)
    raise_all([f"{name}: its preprocessing: {fault}" for fault in preprocess_faults(config)])
    try:
        normalise = image_transform_v2(config, is_train=False).transforms[-1]
    except (AssertionError, TypeError, ValueError):
        raise UserError(f"{name}: its preprocessing is none that open_clip knows: {config}") from None
    interpolation = (
        "bilinear" if config.interpolation == "bilinear" else "bicubic"
    )  # as open_clip takes "random"
    size = (config.size, config.size) if isinstance(config.size, int) else tuple(config.size)
    pixels = Pixels(size, config.resize_mode, interpolation, config.fill_color)
    return pixels, tuple(normalise.mean), tuple(normalise.std)


def embedded_tokenizer() -> Callable[..., Tensor]:
    """CLIP's own byte-pair tokenizer with the embedded model's subset of its merges."""
    config = _read_json(ASSETS / "embedded_clip.json")
    context = config["text_cfg"]["context_length"]
    return open_clip.tokenizer.SimpleTokenizer(bpe_path=str(ASSETS / "bpe.txt.gz"), context_length=context)


def _is_finite(values: Tensor) -> bool:
    """Whether no number is infinite or NaN, which extremes hand on; ten times as fast as a mask of all."""
    return not values.numel() or all(extreme.isfinite() for extreme in values.detach().aminmax())


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the names, shapes and values of all weights, in name order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read_json(path: Path) -> dict:
    content = parse_json(read_bytes(path, MAX_CONFIG))
    if not isinstance(content, dict) or not isinstance(content.get("model_cfg", {}), dict):
        raise ValueError("not a JSON object")
    return content


def _register_config(path: Path, name: str) -> tuple[str, dict]:
    """Make a model config known to open_clip; also the file that open_clip publishes with weights on the hub.

    Returns:
        The name that it can be created by, and its preprocessing where it has one.
    """
    try:
        content = _read_json(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read as an open_clip model config (JSON): {reason}") from None
    config, preprocess = content.get("model_cfg", content), content.get("preprocess_cfg", {})
    raise_all(
        [f"{path}: not an open_clip model config: {fault}" for fault in config_faults(config, preprocess)]
    )
    # The name becomes that of a file, and open_clip takes some names for addresses (hf-hub:…, local-dir:…).
    if not re.fullmatch(r"[^.:/\\\x00-\x1f][^:/\\\x00-\x1f]{0,99}", name):
        allowed = "up to 100 characters, none of them : / or \\, the first of them no ."
        raise UserError(f"model.name: {name!r} cannot be what {path} is called: {allowed}")
    if name in BUILT_IN and config != open_clip.get_model_config(name):
        raise UserError(f"{path}: open_clip has another model of the name {name}; give this one its own")
    if config == open_clip.get_model_config(name):
        return name, preprocess
    # A copy that is gone afterwards: open_clip reads every file that it was ever given again at each
    # addition.
    with tempfile.TemporaryDirectory() as copies:
        copy = Path(copies) / f"{name}.json"
        copy.write_text(json.dumps(config), encoding="utf-8")
        open_clip.add_model_config(copy)
    return name, preprocess


def _weight_file(pretrained: str, folder: Path) -> Path | None:
    path = folder / Path(pretrained).expanduser()
    if path.is_file():
        return path
    if names_a_file(pretrained):
        raise UserError(f"model.pretrained: there is no weight file {path}")
    return None


def _resolve_tag(name: str, tag: str, notes: list[str]) -> tuple[str, str]:
    """The architecture that a tag's weights were trained with, and the tag as open_clip spells it."""
    quick = f"{name}-quickgelu"
    for known in open_clip.list_pretrained_tags_by_model(name):
        if tag.lower().replace("-", "_") == known:
            tag = known
    config = open_clip.get_pretrained_cfg(name, tag) or {}
    # Weights trained with QuickGELU under a GELU architecture load without a word and give wrong features.
    if open_clip.is_pretrained_cfg(quick, tag) and (not config or config.get("quick_gelu")):
        notes.append(f"{name} with {tag} weights resolves to {quick}")
        return quick, tag
    if not config:
        tags = open_clip.list_pretrained_tags_by_model(name)
        known = ", ".join(tags) or "none"
        raise UserError(
            f"model.pretrained: {name} has no weights {tag!r} (neither a file nor a tag); tags: {known}"
        )
    return name, tag


def _load_failure(name: str, pretrained: str | None, file: Path | None, error: Exception) -> str:
    if "Unknown model" in str(error):  # timm's words for an image tower that it does not have
        return f"model.config: {name} cannot be built: timm has no image tower of the name ({reason(error)})"
    if file is not None:
        return f"model.pretrained: {file} does not load into {name}: {file_fault(error, name)}"
    if pretrained:
        source = open_clip.get_pretrained_cfg(name, pretrained)
        where = (
            "the weights and open_clip_config.json of"
            f" https://huggingface.co/{source.get('hf_hub', '').strip('/')}"
        )
        return (
            f"model: the weights {name}/{pretrained} cannot be fetched ({reason(error)}); without a network,"
            f" get {where if source.get('hf_hub') else source.get('url')} elsewhere and give them as"
            " model.pretrained (--pretrained) and model.config (--model-config)"
        )
    return f"model: {name} cannot be built: {reason(error)}"
