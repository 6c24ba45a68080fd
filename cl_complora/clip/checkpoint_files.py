"""A checkpoint in whatever wrapping it comes: the weights inside, under open_clip's names.

Read are safetensors, what ``torch.save`` wrote (tensors only; nothing in it is run) and TorchScript archives
(their code is left alone), with the weights at the top or under a name (``state_dict``, ``model``,
``model_state_dict``, ``ema`` …), with what DDP, torch.compile, Lightning or a wrapper of one's own put before
every name (``module.``, ``_orig_mod.``, ``model.``, ``net.`` …), and under transformers' names.
"""

from __future__ import annotations

import pickle
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import printable, reason
from .file_kinds import Kind, NoCheckpoint, kind_of_file
from .torch_files import NotPlain, load_torch, load_torchscript, quietly
from .transformers_names import NoCounterpart, from_transformers, is_transformers

# Names that checkpoints give to the weights, the first of them preferred where there are several.
WEIGHTS_UNDER = ("state_dict", "model_state_dict", "model", "module", "net", "network", "clip", "clip_model")
_AVERAGED = re.compile(r"(^|[._])(ema|averaged|swa|teacher|momentum)", re.IGNORECASE)
# What OpenAI's archives hold beside the weights, and what open_clip computes anew.
_NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask", "n_averaged")
# Every CLIP has it, at its top.
_ANCHOR = "logit_scale"
_DEPTH = 4


class NoWeights(ValueError):
    """A file that holds no weights of a CLIP; the message says what it holds and what to do."""


@dataclass
class Weights:
    """What was found in a file.

    Attributes:
        state: name → tensor.
        as_stored: whether open_clip reads the same from the file by itself.
        notes: what the user should know about what was taken.
    """

    state: dict[str, Tensor]
    as_stored: bool
    notes: tuple[str, ...] = ()


@contextmanager
def plain_file(path: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """A file of the same weights that open_clip reads, and notes: the file itself where it is one already.

    Raises:
        NoCheckpoint, NoWeights, NotPlain: for what is none, has none, or has objects.
        Exception: many kinds, for a damaged file.
    """
    kind = kind_of_file(path)
    if kind == "numpy":  # big_vision's, which open_clip converts
        yield path, ()
        return
    weights = read_weights(path, kind)
    if weights.as_stored:
        yield path, weights.notes
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "weights.safetensors"
        save_file({name: _own(value) for name, value in weights.state.items()}, copy)
        notes = weights.notes
        del weights
        yield copy, notes


def _own(value: Tensor) -> Tensor:
    return value.detach().clone(memory_format=torch.contiguous_format)  # tied weights share their memory


def read_weights(path: Path, kind: Kind) -> Weights:
    """The weights in a file.

    Raises:
        NoWeights, NotPlain, Exception: as :func:`plain_file`.
    """
    content: Any
    if kind == "safetensors":
        content = load_file(path)
    else:
        content = quietly(load_torchscript if kind == "torchscript" else load_torch, path)
    state, under = _find_state(content)
    notes = []
    others = [key for key in _states(content) if key != under] if under else []
    if others:
        notes.append(f"{path}: taken are the weights under {under!r}, not those under {', '.join(others)}")
    prefix, renamed = _without_prefix(state)
    passed = [key for key in state if not _bare(key).startswith(prefix)]
    if passed:
        shown = printable(", ".join(passed[:3]), 200)
        notes.append(f"{path}: passed over are {len(passed)} entries that are not under {prefix!r}: {shown}")
    renamed = {key: value for key, value in renamed.items() if key.rpartition(".")[2] not in _NO_WEIGHTS}
    strange = next((key for key, value in renamed.items() if not isinstance(value, Tensor)), None)
    if strange is not None:
        raise NoWeights(f"{printable(strange)} is no tensor; save the tensors of the state_dict alone")
    hollow = next((key for key, value in renamed.items() if value.is_meta), None)
    if hollow is not None:
        raise NoWeights(f"{printable(hollow)} has a shape and no numbers (a tensor on the device meta)")
    whole = next((key for key, value in renamed.items() if _is_quantised(key, value)), None)
    if whole is not None:
        raise NoWeights(
            f"{printable(whole)} holds whole numbers ({renamed[whole].dtype}), as quantised weights do; give"
            " the weights in float32, float16 or bfloat16"
        )
    adapter = next((key for key in renamed if "lora_" in key), None)
    if adapter is not None:
        raise NoWeights(
            f"it holds an adapter ({printable(adapter)}) and not the weights that it is added to; merge it"
            " into them and give the merged weights"
        )
    if is_transformers(renamed):
        try:
            renamed = from_transformers(renamed)
        except NoCounterpart as error:
            raise NoWeights(
                f"its names are those of transformers, and {printable(str(error), 200)}"
            ) from None
    if _ANCHOR not in renamed:
        raise NoWeights(_part(renamed))
    return Weights(renamed, _is_stored_so(path, kind, content, renamed), tuple(notes))


def _is_quantised(name: str, value: Tensor) -> bool:
    """Whether a matrix is stored without fractions: positions and counters are, and no weights."""
    return value.ndim > 1 and not value.is_floating_point() and not name.endswith("position_ids")


def _is_stored_so(path: Path, kind: Kind, content: Any, state: Mapping[str, Tensor]) -> bool:
    """Whether open_clip, which goes by suffix, ``state_dict`` and ``module.``, finds the same by itself."""
    if kind == "torchscript" or (kind == "safetensors") != (path.suffix == ".safetensors"):
        return False
    if path.suffix in (".npz", ".npy") or not isinstance(content, dict):
        return False
    if kind == "torch" and not _loads_plainly(path):
        return False
    inner = content.get("state_dict", content)
    if not isinstance(inner, dict):
        return False
    names = list(inner)
    if names[0].startswith("module") and all(name.startswith("module.") for name in names):
        names = [name[len("module.") :] for name in names]
    return names == list(state)


def _loads_plainly(path: Path) -> bool:
    try:
        torch.load(path, map_location="meta", weights_only=True)
    except pickle.UnpicklingError:
        return False
    return True


def _find_state(content: Any) -> tuple[dict[str, Any], str]:
    """The state_dict in a checkpoint and where it was found, with dots between the steps; "" at its top.

    Raises:
        NoWeights: where there is none, or several and none of them is called as weights usually are.
    """
    if _is_state(content):
        return content, ""
    found = dict(_states(content))
    if not found:
        raise NoWeights(f"it holds no weights by name{_keys(content)}")
    plain = {key: state for key, state in found.items() if not _AVERAGED.search(key)} or found
    for wanted in WEIGHTS_UNDER:
        for key, state in plain.items():
            if wanted in key.split("."):
                return state, key
    if len(plain) > 1:
        raise NoWeights(
            f"it holds several sets of weights ({printable(', '.join(plain), 200)}); save the one that is"
            " meant to a file of its own"
        )
    return next(iter(plain.values())), next(iter(plain))


def _states(content: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}

    def look(part: Any, path: tuple[str, ...]) -> None:
        if path and _is_state(part):
            found[".".join(path)] = part
        elif isinstance(part, Mapping) and len(path) < _DEPTH:
            for key, value in part.items():
                if isinstance(key, str) and not key.startswith(("optimizer", "scheduler")):
                    look(value, (*path, key))

    look(content, ())
    return found


def _is_state(part: Any) -> bool:
    """Whether it is name → tensor, but for some entries (counters, versions)."""
    if not isinstance(part, Mapping) or not part or not all(isinstance(key, str) for key in part):
        return False
    tensors = sum(isinstance(value, Tensor) for value in part.values())
    return 2 * tensors > len(part)


def _keys(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f" (it is a {type(content).__name__})"
    shown = printable(", ".join(map(str, list(content)[:8])), 200)
    return f" (its keys: {shown})" if content else " (it is empty)"


def _bare(name: str) -> str:
    """Without what torch.compile puts into names."""
    return name.replace("_orig_mod.", "")


def _without_prefix(state: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """What stands before every name of the model, and the model's weights without it.

    Raises:
        NoWeights: for several models in one state.
    """
    bare = {_bare(name): value for name, value in state.items()}
    before = [name.removesuffix(_ANCHOR) for name in bare if name.rpartition(".")[2] == _ANCHOR]
    chosen = [prefix for prefix in before if not _AVERAGED.search(prefix)] or before
    if "" in chosen:
        chosen = [""]
    if len(chosen) > 1:
        raise NoWeights(
            f"it holds several models ({printable(', '.join(chosen), 200)}); save the one that is meant to"
            " a file of its own"
        )
    prefix = chosen[0] if chosen else ""
    return prefix, {n[len(prefix) :]: value for n, value in bare.items() if n.startswith(prefix)}


def _part(state: Mapping[str, Tensor]) -> str:
    """What a state without a logit scale is, whatever stands before its names."""
    names = [f".{name}" for name in state]
    towers = {
        "image": any(re.search(r"\.(visual|vision_model)\.", name) for name in names),
        "text": any(re.search(r"\.(token_embedding|text_model\.|text\.|ln_final)", name) for name in names),
    }
    # A ViT as open_clip has it, saved from model.visual.
    towers["image"] |= {"conv1.weight", "class_embedding"} <= {
        name.rpartition("module.")[2] for name in state
    }
    there = [name for name, found in towers.items() if found]
    shown = printable(", ".join(list(state)[:3]), 200)
    if len(there) == 1:
        return f"it holds the {there[0]} tower alone ({shown} …); both towers and logit_scale are needed"
    if there:
        return f"it holds no {_ANCHOR}, which every CLIP has; save the whole model's state_dict()"
    return f"its weights are those of another architecture, no CLIP: {shown}"


def file_fault(error: Exception, name: str) -> str:
    """Why a file does not load into the model of this name, in words, and what to do."""
    if isinstance(error, NoCheckpoint | NoWeights):
        return str(error)
    if isinstance(error, NotPlain):
        return (
            f"it is no file of plain tensors: it holds the Python object {printable(str(error), 200)}, and"
            " objects and code are not loaded; save the model's state_dict() alone"
        )
    if isinstance(error, pickle.UnpicklingError):
        return "it is no file of plain tensors (objects and code are not loaded), or it is damaged"
    if isinstance(error, SafetensorError):
        return f"it is damaged or cut off ({reason(error)}); download or save it again"
    if isinstance(error, EOFError):
        return "it is empty or cut off; download or save it again"
    if "state_dict for" in str(error):
        return f"its weights are those of another architecture: {_differences(str(error), name)}"
    if any(words in str(error) for words in ("PytorchStreamReader", "central directory", "unexpected EOF")):
        return f"it is damaged or cut off ({reason(error)}); download or save it again"
    if isinstance(error, AssertionError | KeyError | IndexError | AttributeError | TypeError):
        return (
            f"it holds no weights of {name} or is no checkpoint at all ({reason(error)}); give those of this"
            " architecture, or the config of theirs"
        )
    return reason(error)


def _differences(text: str, name: str) -> str:
    """torch's pages on what does not fit, in one line."""
    told = []
    for title, what in (
        ("Missing", f"{name} has and it has not"),
        ("Unexpected", f"it has and {name} has not"),
    ):
        keys = re.search(rf"{title} key\(s\) in state_dict: (.*?)\.?\s*$", text, re.MULTILINE)
        names = re.findall(r'"([^"]+)"', keys[1]) if keys else []
        if names:
            told.append(f"{len(names)} that {what} ({printable(names[0])}{', …' if names[1:] else ''})")
    shapes = re.findall(
        r"size mismatch for (\S+): copying a param with shape torch\.Size\(\[(.*?)\]\) from checkpoint, "
        r"the shape in current model is torch\.Size\(\[(.*?)\]\)",
        text,
    )
    if shapes:
        key, there, here = shapes[0]
        there, here = (" × ".join(sides.split(", ")) or "a number" for sides in (there, here))
        more = f" ({len(shapes)} such)" if shapes[1:] else ""
        told.append(f"{printable(key)} is {there} there and {here} in {name}{more}")
    return "; ".join(told) or " ".join(text.split())[:200]
