"""What untouched models answer, kept on the machine: of all runs of a study the first one asks them.

A file holds the answers to one task, zero-shot set or retrieval set, or the features of some images, which
heads on untouched towers are fitted to and answer from. Its name is a hash of everything that they follow
from (pixels, tokens, weights, the model's config, what it says to noise, precision, device, versions, this
package's code), so that it never has to be invalidated. It lies beside the decoded images
(:mod:`cl_complora.data.images.cache`), and goes where these go: ``CL_COMPLORA_CACHE``.
"""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import clip
from ..clip.classifier import ClipClassifier
from ..clip.evaluate import image_features
from ..clip.text import evaluating
from ..data.images.cache import cache_folder
from ..data.labels import LabelSpace
from ..data.tasks import CaptionData
from ..errors import UserError
from ..files import write_bytes
from ..store.answers import load_answers, load_ranks, save_answers
from ..store.provenance import gpu_of, software, versions
from ..store.tensors import read_tensors, with_checksum
from .inputs import RunInputs

# What a file calls the only set in it.
_SET = "set"
_WORDS = ("a photo of a jack-o'-lantern.", "T-shirt", "two words & more")
Pair = tuple[Tensor, Tensor]


class KeptAnswers:
    """Answers of one untouched model: those that were found out before, or those that it gives now.

    Args:
        run: names the model and its device.
        model: the untouched one, with its modules as the strategy has opened them, which may change last
            bits.

    Attributes:
        known: how often something was found.
        seconds_saved: that the features which were found took to compute; what a method costs must not depend
            on which one came first.
    """

    def __init__(self, run: RunInputs, model: ClipClassifier) -> None:
        self._folder, self._model = cache_folder("answers"), model
        self._run, self.known, self.seconds_saved = run, 0, 0.0
        # Found out now: the model may have learned when it is asked.
        self._made_with = self._following_from() if self._folder is not None else {}

    def _following_from(self) -> dict[str, Any]:
        """What all answers of the model follow from."""
        loaded, device, model = self._run.loaded, self._run.device, self._model
        return {
            "code": _code(),
            "software": software() | versions("timm", "torchvision", "transformers", "tokenizers"),
            "weights": loaded.sha256,
            "model": [loaded.name, loaded.beside_weights, str(model)],
            "said": _said(model, loaded.pixels.size),
            "device": [device.partition(":")[0], gpu_of(device)],
            # Two kinds of processors differ in last bits, as do numbers of threads.
            "machine": [platform.node(), torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()],
            "products": [
                torch.get_float32_matmul_precision(),
                torch.backends.cuda.matmul.allow_tf32,
                torch.backends.cudnn.allow_tf32,
            ],
        }

    def of_classes(self, pixels: Tensor, space: LabelSpace, ask: Callable[[], Pair]) -> Pair:
        """Labels and shares, as :func:`~cl_complora.clip.evaluate.answers` gives them.

        Args:
            pixels, space: ``N × 3 × H × W`` uint8 images and the classes to choose among.
            ask: the model, where they are not known.
        """

        def fits(found: Pair) -> bool:
            label, share = found
            alike = label.shape == share.shape == (len(pixels),)
            return alike and bool(((label >= 0) & (label < len(space))).all() and share.isfinite().all())

        tokens = self._model.text.tokens(space) if self._folder is not None else None
        file = self._file(pixels, tokens, [space.class_names, space.prompts])
        return self._kept(
            file,
            lambda path: load_answers(path).get(_SET),
            fits,
            ask,
            lambda found: save_answers({_SET: found}),
        )

    def of_captions(self, captioned: CaptionData, ask: Callable[[], Pair]) -> Pair:
        """Ranks of the right answers to the images and to the texts of a retrieval set.

        Args:
            captioned: the set.
            ask: the model, where they are not known.
        """
        plan = captioned.plan

        def fits(found: Pair) -> bool:
            images, texts = found
            of_all = images.shape == (len(captioned.pixels),) and texts.shape == (len(plan.captions),)
            return of_all and bool((images >= 1).all() and (texts >= 1).all())

        owners = torch.as_tensor(plan.owners).tolist()
        texts = list(plan.captions)
        tokens = self._model.text.tokenizer(texts) if self._folder is not None else None
        file = self._file(captioned.pixels, tokens, [texts, owners])
        return self._kept(
            file,
            lambda path: load_ranks(path).get(_SET),
            fits,
            ask,
            lambda found: save_answers({}, {_SET: found}),
        )

    def of_images(self, pixels: Tensor, ask: Callable[[], Tensor]) -> Tensor:
        """Unit features, as :func:`~cl_complora.clip.evaluate.image_features` gives them.

        Args:
            pixels: ``N × 3 × H × W`` uint8.
            ask: the image tower, where they are not known.
        """

        def fits(found: Pair) -> bool:
            features, seconds = found
            alike = features.ndim == 2 and len(features) == len(pixels) and seconds.numel() == 1
            return alike and all(bool(one.isfinite().all()) for one in found)

        def timed() -> Pair:
            began = time.perf_counter()
            features = ask().cpu()
            return features, torch.tensor(time.perf_counter() - began, dtype=torch.float64)

        known = self.known
        features, seconds = self._kept(
            self._file(pixels, None, "features"),
            lambda path: _both(read_tensors(path), "features", "seconds"),
            fits,
            timed,
            lambda found: with_checksum(dict(zip(("features", "seconds"), found, strict=True)), "features"),
        )
        self.seconds_saved += float(seconds) * (self.known - known)
        return features.to(self._model.mean.device)

    def _file(self, pixels: Tensor, tokens: Tensor | None, asked: Any) -> Path | None:
        if self._folder is None or not len(pixels):
            return None
        how = {"precision": self._model.measuring, "batch_size": self._model.batch_size}
        now = {**how, "asked": asked, "shape": pixels.shape}
        made_of = json.dumps({**self._made_with, **now}, ensure_ascii=False)
        digest = hashlib.blake2b(made_of.encode(), digest_size=16)
        for tensor in (pixels, tokens):  # a tokenizer has no name that could be trusted: its words tell
            if tensor is not None:
                digest.update(tensor.cpu().contiguous().numpy().data)
        return self._folder / f"{digest.hexdigest()}.safetensors"

    def _kept(
        self,
        file: Path | None,
        load: Callable[[Path], Pair | None],
        fits: Callable[[Pair], bool],
        ask: Callable[[], Pair],
        content: Callable[[Pair], bytes],
    ) -> Pair:
        """What the file holds, or what the model says now, which is then kept."""
        if file is not None:
            with suppress(UserError):  # missing or damaged
                found = load(file)
                if found is not None and fits(found):
                    self.known += 1
                    return found
        found = ask()
        if file is not None:
            with suppress(OSError):  # a full disk, no permission: asked again next time
                write_bytes(file, content(found))
        return found


def _both(tensors: dict[str, Tensor], one: str, other: str) -> Pair | None:
    return (tensors[one], tensors[other]) if tensors.keys() == {one, other} else None


@torch.no_grad()
def _said(model: ClipClassifier, size: tuple[int, int]) -> str:
    """A hash of what both towers say to noise and to some words, to the bit: settings that neither weights
    nor names show (numbers of heads, pooling, masks) and ways of computing show there."""
    noise = torch.randint(256, (2, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    words = model.text.tokenizer(list(_WORDS)).to(model.mean.device)
    with evaluating(model), model.measured_in("fp32"):
        said = image_features(model, noise), model.clip.encode_text(words)
    numbers = b"".join(one.float().cpu().contiguous().numpy().tobytes() for one in said)
    return hashlib.sha256(numbers).hexdigest()


@functools.cache
def _code() -> str:
    """A hash of this package's code: a version number does not change with every line."""
    digest = hashlib.sha256()
    for file in sorted(Path(clip.__file__).parents[1].rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
