"""The image tower as it was before anything was learned, for heads that see images by it as well."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import Tensor, nn

from .blocks import blocks_of


class UntouchedTower:
    """A copy of a model's image tower, which stays as it is now whatever the model learns.

    It is no module, so that no optimiser, no checkpoint and no count of parameters meets it.

    Args:
        clip: an open_clip model with the weights that are to be kept.

    Attributes:
        clip: the model with the copy in its image tower's place; all else in it is the model's own.
        blocks: of the copy.
        kept_features: as of :class:`~cl_complora.clip.classifier.ClipClassifier`, of the copy.
    """

    def __init__(self, clip: nn.Module) -> None:
        self.clip = copy.copy(clip)
        self.clip._modules = {**clip._modules, "visual": copy.deepcopy(clip.visual)}
        self.clip.visual.requires_grad_(False).eval()
        self.clip.training = False
        self.blocks = blocks_of(self.clip.visual)[1]
        self.kept_features: Callable[[Tensor, Callable[[], Tensor]], Tensor] | None = None

    @property
    def tower(self) -> nn.Module:
        """The copy."""
        return self.clip.visual
