"""Sets of images measured again and again under small changes of the model, without computing what did not
change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..clip.blocks import blocks_of, outputs_of, starting_after
from ..clip.classifier import ClipClassifier
from ..clip.evaluate import UntouchedFeatures
from ..clip.heads.head import Head, answered
from ..clip.text import evaluating
from ..data.labels import LabelSpace

# Images at a time.
BATCH = 64
# Activations kept at most; beyond that a tower is run from its start.
KEPT_BYTES = 2**30


@dataclass(frozen=True)
class Score:
    """How a set does.

    Attributes:
        accuracy: share of images that are right, in percent.
        probability: mean probability of the right class, in percent; moves where accuracy does not yet.
    """

    accuracy: float
    probability: float


class Samples:
    """Images of several sets and what a model makes of them.

    Args:
        classifier: whose weights are changed between measurements.
        sets: name → (images, labels, label space).

    Attributes:
        heads: name → what answers in place of the texts from now on.
    """

    def __init__(
        self, classifier: ClipClassifier, sets: dict[str, tuple[Tensor, Tensor, LabelSpace]]
    ) -> None:
        self.classifier, self.sets = classifier, sets
        self.at_once = min(BATCH, classifier.batch_size)
        self.heads: Mapping[str, Head] = {}
        self.blocks = BlockReplay(classifier.clip.visual)
        self._features: dict[str, Tensor] = {}
        self._untouched = UntouchedFeatures(classifier)

    @torch.no_grad()
    def measure(self, names: Iterable[str]) -> dict[str, Score]:
        """Measure some sets as the model is, and remember their features for :meth:`measure_changed`."""
        names = list(names)
        self.blocks.forget()
        with evaluating(self.classifier):
            for name in names:
                parts = enumerate(self.sets[name][0].split(self.at_once))
                self._features[name] = torch.cat(
                    [self._recorded((name, place), batch) for place, batch in parts]
                )
            return {name: self._score(name, self._features[name]) for name in names}

    @torch.no_grad()
    def measure_changed(
        self, names: Iterable[str], towers: set[str], blocks: tuple[int, ...]
    ) -> dict[str, Score]:
        """Measure sets after some weights were changed since :meth:`measure`.

        Args:
            names: sets that were measured.
            towers: those whose weights were changed; what the others make of their input is known.
            blocks: number of the first block of the image tower that was changed; empty where that is not
                known.
        """
        with evaluating(self.classifier):
            if "vision" not in towers:
                return {name: self._score(name, self._features[name]) for name in names}
            first = blocks[0] if len(blocks) == 1 else 0
            found = {}
            for name in names:
                parts = enumerate(self.sets[name][0].split(self.at_once))
                features = torch.cat([self._replayed((name, place), batch, first) for place, batch in parts])
                found[name] = self._score(name, features)
            return found

    def _recorded(self, key: tuple, batch: Tensor) -> Tensor:
        with self.blocks.recording(key):
            return self.classifier.image_features(batch.to(self.classifier.mean.device))

    def _replayed(self, key: tuple, batch: Tensor, first: int) -> Tensor:
        with self.blocks.starting_at(key, first):
            return self.classifier.image_features(batch.to(self.classifier.mean.device))

    def _score(self, name: str, features: Tensor) -> Score:
        images, labels, space = self.sets[name]
        head = self.heads.get(name)
        seen = self._untouched.beside(features, name, images, head)
        logits = answered(self.classifier, seen, space, head)
        shares = logits.softmax(1).cpu()
        right = (shares.argmax(1) == labels).double().mean()
        return Score(100 * float(right), 100 * float(shares.gather(1, labels[:, None]).double().mean()))


class BlockReplay:
    """Outputs of the blocks of a tower, so that a change in a later block needs only that and those after it.

    A tower without a list of blocks that are called one after the other is run as a whole.

    Args:
        tower: the image tower.
    """

    def __init__(self, tower: nn.Module) -> None:
        self.blocks = blocks_of(tower)[1]
        self._kept: dict[tuple, list[Tensor]] = {}
        self._bytes = 0

    def forget(self) -> None:
        """Drop what was recorded: the weights are others now."""
        self._kept.clear()
        self._bytes = 0

    @contextmanager
    def recording(self, key: tuple) -> Iterator[None]:
        """Within, outputs of the blocks are kept under ``key``."""
        with outputs_of(self.blocks) as outputs:
            yield
        size = sum(out.nbytes for out in outputs if isinstance(out, Tensor))
        in_order = len(outputs) == len(self.blocks) and all(isinstance(out, Tensor) for out in outputs)
        if in_order and self._bytes + size <= KEPT_BYTES:
            self._kept[key] = outputs
            self._bytes += size

    @contextmanager
    def starting_at(self, key: tuple, first: int) -> Iterator[None]:
        """Within, blocks before ``first`` are not computed but give what they gave when ``key`` was
        recorded."""
        known = self._kept.get(key)
        if known is None or not 0 < first < len(self.blocks):
            yield
            return
        with starting_after(self.blocks[:first], known[first - 1]):
            yield
