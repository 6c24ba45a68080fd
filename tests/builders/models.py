"""A tiny CLIP, made here, so that the tests need no download and run in seconds."""

from __future__ import annotations

import copy
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import open_clip
import torch

from cl_complora.clip import model as loading

TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 48, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def tiny_clip(seed: int = 0) -> torch.nn.Module:
    """open_clip's own CLIP, small and random."""
    torch.manual_seed(seed)
    model = open_clip.model.CLIP(**TINY)
    # The init of open_clip leaves projections tiny; larger ones make wrong maths visible.
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(1.5)
    return model.eval()


class Copies(pickle.Pickler):
    """Copies of a module; ``deepcopy`` takes three times as long."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._tensors: list[torch.Tensor] = []
        self._places: dict[int, int] = {}
        written = io.BytesIO()
        super().__init__(written, pickle.HIGHEST_PROTOCOL)
        self.dump(module)
        self._written = written.getvalue()

    def persistent_id(self, part: object) -> int | None:
        """Tensors stay outside, each once."""
        if not isinstance(part, torch.Tensor):
            return None
        if id(part) not in self._places:
            self._places[id(part)] = len(self._tensors)
            self._tensors.append(part)
        return self._places[id(part)]

    def new(self) -> torch.nn.Module:
        """Another one, with tensors of its own."""
        reader = pickle.Unpickler(io.BytesIO(self._written))
        reader.persistent_load = [copy.deepcopy(tensor) for tensor in self._tensors].__getitem__
        return reader.load()


# Parameters of what is remembered: the tiny model has 1.6 million, most of them embeddings of tokens.
_SMALL = 3_000_000


def remember_models(put: Callable[[object, str, object], None]) -> None:
    """A small model of the same files is drawn, read and summed up once, and copied from then on. ``put`` is
    a monkeypatch's ``setattr``."""
    create, make, sum_up, known = loading._create, open_clip.create_model, loading.fingerprint, {}

    def created(
        name: str, pretrained: str | None, preprocess: dict, image_size: int | None = None
    ) -> tuple[torch.nn.Module, list[str]]:
        file = Path(pretrained) if pretrained else None
        if open_clip.create_model is not make or file is None or not file.is_file():
            return create(name, pretrained, preprocess, image_size)
        stamp = file.stat()
        asked = [open_clip.get_model_config(name), preprocess, image_size]
        key = (name, pretrained, stamp.st_mtime_ns, stamp.st_size, json.dumps(asked, sort_keys=True))
        if key not in known:
            made, notes = create(name, pretrained, preprocess, image_size)
            if sum(p.numel() for p in made.parameters()) > _SMALL:
                return made, notes
            known[key] = Copies(made), sum_up(made), notes
        copies, digest, notes = known[key]
        new = copies.new()
        new.digest_of_the_tests = digest
        return new, notes

    def summed_up(model: torch.nn.Module) -> str:
        # Asked once, before anything can have changed.
        return model.__dict__.pop("digest_of_the_tests", None) or sum_up(model)

    put(loading, "_create", created)
    put(loading, "fingerprint", summed_up)
