"""The frozen beginning of the image tower, computed once for every training image of an experience.

Below its first trained block the tower gives the same for the same image at every step. With images that are
not augmented that is remembered, and a step begins at the first trained block; where nothing of the tower is
trained, at its features.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from ..clip.blocks import blocks_of, draws, outputs_of, starting_after
from ..clip.classifier import ClipClassifier
from .experience import TrainingBatches

# What may be remembered; a larger task is computed as ever.
MOST_BYTES = 2**30
# Parameters of an image tower that come after its blocks.
_AFTER = ("ln_post", "proj")


class FrozenBeginning:
    """Outputs of the first blocks of the image tower.

    Args:
        blocks: that are not computed any more.
        known: what the last of them gives for every image of the experience.
    """

    def __init__(self, blocks: list[nn.Module], known: Tensor) -> None:
        self.blocks, self.known = blocks, known

    @classmethod
    def of(cls, model: ClipClassifier, batches: TrainingBatches) -> FrozenBeginning | None:
        """Compute it for an experience whose factors are attached; None where that would save nothing."""
        computing = model.computing
        often = len(batches) * batches.batch_size > batches.experience.train_images
        blocks = _frozen_blocks(model.clip.visual)
        if batches.augmented or not often or not blocks or computing.chunk is not None or computing.compiled:
            return None
        pixels = batches.pixels
        known, done = torch.empty(0), 0
        device = model.mean.device
        # Factors above the frozen part may drop at random; what they draw here must shift nothing.
        undisturbed = torch.random.fork_rng([device] if device.type == "cuda" else [])
        with torch.no_grad(), undisturbed, outputs_of(blocks[-1:]) as outputs:
            # One image alone tells whether images are the first dimension of what the block gives, and how
            # large it is.
            for images in (pixels[:1], *pixels.split(batches.batch_size)):
                model.image_features(images.to(device))
                out = outputs.pop() if len(outputs) == 1 else None
                if not isinstance(out, Tensor) or len(out) != len(images):
                    return None
                if len(known) == 0:
                    if out.nbytes * len(pixels) > MOST_BYTES:
                        return None
                    known = out.new_empty(len(pixels), *out.shape[1:])
                else:
                    known[done : done + len(images)] = out
                    done += len(images)
        return cls(blocks, known)

    def of_images(self, chosen: Tensor) -> AbstractContextManager[None]:
        """Within, the tower computes these images from where the frozen part ends."""
        return starting_after(self.blocks, self.known[chosen.to(self.known.device)])


def _frozen_blocks(tower: nn.Module) -> list[nn.Module]:
    """The whole tower where nothing of it is trained, its blocks below the first trained one, or nothing."""
    trained = [name for name, p in tower.named_parameters() if p.requires_grad]
    name, blocks = blocks_of(tower)
    places = {len(blocks)}
    for parameter in trained:
        inside = parameter.removeprefix(f"{name}.")
        if blocks and inside != parameter:
            places.add(int(inside.partition(".")[0]))
        elif parameter.partition(".")[0] not in _AFTER:
            return []
    frozen = blocks[: min(places)] if trained else [tower]
    later = (
        {id(module) for block in blocks[len(frozen) :] for module in block.modules()} if trained else set()
    )
    return [] if any(draws(module) for module in tower.modules() if id(module) not in later) else frozen
