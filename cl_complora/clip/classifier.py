"""CLIP as a classifier: image tower, text head, label spaces that may differ from image to image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ..config.scenario import Evaluation
from ..data.labels import LabelSpace
from .blocks import Computing, blocks_of, computed_again, gives_one_token, one_token
from .text import TextEncoder, in_chunks, lower_precision
from .untouched_tower import UntouchedTower

# Images at a time where nothing is trained, unless something else is asked for.
MEASURED_AT_ONCE = Evaluation().batch_size


class ClipClassifier(nn.Module):
    """Logits of images over the classes of a label space: scale · ⟨image, text⟩.

    The wrapped model is ``self.clip``; the logit scale stays fixed, as in CLIP-LoRA. Images may be uint8
    (``N × 3 × H × W``; normalised here, on the device) or float (taken as already normalised).

    Args:
        clip: an open_clip model.
        tokenizer: its tokenizer.
        label_space: the classes used when ``forward`` is given none (a stock Avalanche strategy gives none).
        mean, std: normalisation of uint8 images, per channel.
        precision: type that the towers compute in while training (autocast); parameters and features stay
            float32.
        batch_size: images at a time where nothing is trained; what is measured again later is measured in
            the same batches, for the same bits.
        untouched: the image tower of before all tasks, where heads see images by it as well.

    Attributes:
        kept_features: (pixels, what computes their features) → features, of towers that are never touched;
            None where they are.
    """

    def __init__(
        self,
        clip: nn.Module,
        tokenizer: Callable[..., Tensor],
        label_space: LabelSpace | None = None,
        mean: Sequence[float] = (0.48145466, 0.4578275, 0.40821073),
        std: Sequence[float] = (0.26862954, 0.26130258, 0.27577711),
        precision: torch.dtype = torch.float32,
        batch_size: int = MEASURED_AT_ONCE,
        untouched: UntouchedTower | None = None,
    ) -> None:
        super().__init__()
        self.clip = clip
        self.label_space = label_space
        self.precision = precision
        self.text = TextEncoder(clip, tokenizer, precision)
        self.everything = False
        self.measuring = "fp32"
        self.batch_size = batch_size
        self.untouched = untouched
        self.kept_features: Callable[[Tensor, Callable[[], Tensor]], Tensor] | None = None
        self.compute_as(Computing())
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1) * 255.0, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1) * 255.0, persistent=False)

    def train(self, mode: bool = True) -> ClipClassifier:
        """As in torch, but normalisation statistics never move: they are weights that no delta would
        record."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 pixels → the float range that the image tower expects; floats pass."""
        if images.dtype != torch.uint8:
            return images
        # One program on a GPU; on the CPU, where a sum of two types is slow, two of which none takes memory.
        shifted = torch.sub(images, self.mean) if images.is_cuda else images.float().sub_(self.mean)
        return shifted.div_(self.std)

    def image_features(self, images: Tensor) -> Tensor:
        """``N × embed`` unit vectors."""
        with lower_precision(self.clip, self.precision, self.measuring):
            features = in_chunks(self._encode, self.normalise(images), self.computing.chunk)
        return F.normalize(features.float(), dim=-1)

    @torch.no_grad()
    def untouched_features(self, images: Tensor) -> Tensor:
        """``N × embed`` unit vectors of the untouched tower, which a classifier without one does not have."""
        clip, blocks = self.untouched.clip, self.untouched.blocks
        self.untouched.tower.to(images.device)
        with lower_precision(clip, self.precision, self.measuring), self._last_block(clip, blocks):
            features = clip.encode_image(self.normalise(images))
        return F.normalize(features.float(), dim=-1)

    def seen(self, images: Tensor) -> Tensor:
        """What heads are given: ``N × embed`` unit vectors, and beside them those of the untouched tower
        (``N × 2 embed``) where there is one."""
        now = self.image_features(images)
        return now if self.untouched is None else torch.cat([now, self.untouched_features(images)], 1)

    def _encode(self, images: Tensor) -> Tensor:
        learning = torch.is_grad_enabled()
        if learning and self._compiled is not None:
            return self._compiled(images)
        again = self._blocks if learning and self.computing.checkpointing else []
        with self._last_block(self.clip, self._blocks), computed_again(again):
            return self.clip.encode_image(images)

    def _last_block(self, clip: nn.Module, blocks: Sequence[nn.Module]) -> AbstractContextManager[None]:
        """Within, the last block of open_clip's transformer, which reads only its class token, computes no
        other."""
        tower = getattr(clip, "visual", None)
        reads_one = (
            isinstance(tower, VisionTransformer)
            and type(tower).forward is VisionTransformer.forward
            and type(tower)._pool is VisionTransformer._pool
            and tower.pool_type == "tok"
            and tower.attn_pool is None
            and not tower.output_tokens
        )
        one = reads_one and not self.everything and bool(blocks) and gives_one_token(blocks[-1])
        return one_token(blocks[-1], 0) if one else nullcontext()

    @contextmanager
    def computing_everything(self) -> Iterator[None]:
        """Within, the towers also compute what they do not read, for those who look at what their parts are
        given."""
        self.everything = self.text.everything = True
        try:
            yield
        finally:
            self.everything = self.text.everything = False

    @contextmanager
    def measured_in(self, precision: str) -> Iterator[None]:
        """Within, the towers compute so where they are not trained; features and logits stay float32.

        Args:
            precision: ``fp32``, ``tf32`` (products on an NVIDIA GPU) or ``bf16`` (autocast).
        """
        before = self.measuring
        self.measuring = self.text.measuring = precision
        try:
            yield
        finally:
            self.measuring = self.text.measuring = before

    def compute_as(self, computing: Computing) -> None:
        """Let both towers compute so while gradients are taken; what was compiled before is forgotten.

        To be called again where modules of the towers were exchanged: compiled programs hold the former ones.
        """
        self.computing = computing
        self._blocks = blocks_of(self.clip.visual)[1] if hasattr(self.clip, "visual") else []
        if computing.compiled:
            torch.compiler.reset()
        self._compiled = torch.compile(self.clip.encode_image) if computing.compiled else None
        self.text.compute_as(computing)

    def head(self, features: Tensor, space: LabelSpace) -> Tensor:
        """``N × classes`` logits of unit image features."""
        return self.scores(features, self.text.features(space))

    def scores(self, features: Tensor, texts: Tensor) -> Tensor:
        """``N × classes`` logits of unit image features against unit text features."""
        logits = self.clip.logit_scale.float().exp() * features @ texts.mT
        bias = getattr(self.clip, "logit_bias", None)
        return logits if bias is None else logits + bias.float()

    def forward(
        self,
        images: Tensor,
        spaces: Sequence[LabelSpace] | LabelSpace | None = None,
        space_ids: Tensor | None = None,
    ) -> Tensor:
        """Logits of a batch.

        Args:
            images: ``N × 3 × H × W``.
            spaces: one label space for all images, or several.
            space_ids: ``(N,)`` index into ``spaces`` for every image; needed with several.

        Returns:
            ``N × C`` with C the largest space; entries beyond an image's own space hold the dtype's minimum,
            so that softmax and argmax never choose them.
        """
        spaces = spaces if spaces is not None else self.label_space
        if spaces is None:
            raise ValueError(
                "ClipClassifier needs a label space: give one to the constructor or to forward()"
            )
        return self.answers(self.image_features(images), spaces, space_ids)

    def answers(
        self, features: Tensor, spaces: Sequence[LabelSpace] | LabelSpace, space_ids: Tensor | None = None
    ) -> Tensor:
        """What :meth:`forward` answers for the unit image features of a batch."""
        if isinstance(spaces, LabelSpace):
            return self.head(features, spaces)
        if len(spaces) == 1:
            return self.head(features, spaces[0])
        if space_ids is None:
            raise ValueError("several label spaces need space_ids")
        widest = max(len(space) for space in spaces)
        logits = features.new_full((len(features), widest), torch.finfo(features.dtype).min)
        for index in space_ids.unique().tolist():
            members = space_ids == index
            part = self.head(features[members], spaces[index])
            logits[members] = F.pad(part, (0, widest - part.shape[1]), value=torch.finfo(features.dtype).min)
        return logits
