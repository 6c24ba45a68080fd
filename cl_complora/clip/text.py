"""The text side of a CLIP classifier: label spaces, prompts tokenised once, a text tower that stops at the
last token.

A causal text tower with end-of-text pooling never lets a token after the end influence the pooled one, so
running it to the longest prompt only is exact; it is checked on the model at hand and left off where the
tower is of another kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from open_clip.transformer import text_global_pool
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..data.labels import LabelSpace
from ..lowrank import Adapters
from .blocks import Computing, blocks_of, computed_again, gives_one_token, one_token


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode within; afterwards every part is in the mode that it was in (``train(True)`` would set all
    alike)."""
    trained = [part for part in module.modules() if part.training]
    if trained:
        module.eval()
    try:
        yield
    finally:
        for part in trained:
            part.training = True


# Texts that the tower reads at once where no gradient is taken; more would take gigabytes. (Up to so many are
# one product, so that figures measured before keep their digits.)
AT_ONCE = 4096

_MEASURED = {"fp32": torch.float32, "tf32": "tf32", "bf16": torch.bfloat16}


def lower_precision(
    model: nn.Module, precision: torch.dtype, measuring: str = "fp32"
) -> AbstractContextManager:
    """The arithmetic of a tower.

    Args:
        model: whose parameters and mode say where and what for.
        precision: while it is trained (autocast).
        measuring: otherwise: ``fp32`` is the parameters' own precision, ``tf32`` that of a GPU's products,
            ``bf16`` autocast.
    """
    device, kind = next(model.parameters()).device.type, _arithmetic(model, precision, measuring)
    if kind == "tf32":
        return _tensor_float_32(device)
    return torch.autocast(device, dtype=kind, enabled=kind != torch.float32)


def _arithmetic(model: nn.Module, precision: torch.dtype, measuring: str) -> torch.dtype | str:
    """Arguments as above; the type of autocast, float32 for the parameters' own precision, or ``tf32``."""
    return precision if model.training else _MEASURED[measuring]


@contextmanager
def _tensor_float_32(device: str) -> Iterator[None]:
    """Within, products of 32-bit matrices are computed in TensorFloat-32 where the device can."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


class TextEncoder:
    """Encodes label spaces with a CLIP's text tower; remembers tokens for good and features per weight state.

    Args:
        model: an open_clip model (``CLIP`` or ``CustomTextCLIP``).
        tokenizer: texts → ``n × context`` token tensor; takes ``context_length``, as all of open_clip's do.
        precision: as in :class:`~cl_complora.clip.classifier.ClipClassifier`.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Callable[..., Tensor], precision: torch.dtype = torch.float32
    ) -> None:
        self.model, self.tokenizer, self.precision = model, tokenizer, precision
        self._tokens: dict[LabelSpace, tuple[Tensor, int]] = {}
        self._features: dict[LabelSpace, tuple[tuple, Tensor]] = {}
        self._trim: bool | None = None
        self.everything = False
        self.measuring = "fp32"
        self._holding, self._held = False, None
        self.compute_as(Computing())

    def compute_as(self, computing: Computing) -> None:
        """From now on; what was compiled before is forgotten."""
        self.computing = computing
        self._blocks = blocks_of(self.tower.transformer)[1] if hasattr(self.tower, "transformer") else []
        self._compiled: Callable[[Tensor], Tensor] | None = None
        if computing.compiled:
            # Lengths differ from step to step; a program for each would be compiled until torch gives up.
            self._compiled = torch.compile(self._program, dynamic=True)

    @property
    def tower(self) -> nn.Module:
        """The module that holds the text transformer."""
        return getattr(self.model, "text", self.model)

    def parameters(self) -> list[Tensor]:
        """Parameters that text features depend on."""
        return [p for name, p in self.tower.named_parameters() if _is_text(name)]

    def features(self, space: LabelSpace) -> Tensor:
        """``classes × embed`` unit vectors: the normalised mean of a class's normalised prompt features.

        Cached while the text weights stay as they are; computed with gradients when they are being trained.
        """
        parameters = self.parameters()
        if torch.is_grad_enabled() and any(p.requires_grad for p in parameters):
            return self.encode_space(space)
        adapters = self._adapters() if self._held is None else self._held[0]
        if any(m.training and m.enabled and block.dropout > 0 for m in adapters for block in m.values()):
            return self.encode_space(space)  # another draw every time
        weights = _state(parameters) if self._held is None else self._held[1]
        self._held = (adapters, weights) if self._holding else None
        arithmetic = _arithmetic(self.model, self.precision, self.measuring)
        state = (tuple(m.enabled for m in adapters), arithmetic, weights)
        known = self._features.get(space)
        if known is None or known[0] != state:
            with torch.no_grad():
                known = (state, self.encode_space(space))
            self._features[space] = known
        return known[1]

    def _adapters(self) -> list[Adapters]:
        return [m for name, m in self.tower.named_modules() if isinstance(m, Adapters) and _is_text(name)]

    @contextmanager
    def unchanging(self) -> Iterator[None]:
        """Within, the weights do not change: :meth:`features` looks once whether they did, and not at every
        call, each of which would wait until a GPU has computed all that it was asked for."""
        before = self._holding
        self._holding = True
        try:
            yield
        finally:
            self._holding = before
            if not before:
                self._held = None

    def forget(self) -> None:
        """Drop cached features (tokens stay)."""
        self._features.clear()

    def drop(self, space: LabelSpace) -> None:
        """Forget tokens and features of a label space that will not be asked for again."""
        self._tokens.pop(space, None)
        self._features.pop(space, None)

    def encode_space(self, space: LabelSpace) -> Tensor:
        """As :meth:`features`, always computed anew."""
        templates = space.templates
        if not space.even and self._in_parts(len(space) * templates):
            features = F.normalize(self.encode(*self._tokenised(space)).float(), dim=-1)
            own = features.split([len(texts) for texts in space.prompts])
            return F.normalize(torch.stack([of_class.mean(0) for of_class in own]), dim=-1)
        features = F.normalize(self.encode(*self._tokenised(space.evened())).float(), dim=-1)
        if templates > 1:
            features = F.normalize(features.view(len(space), templates, -1).mean(1), dim=-1)
        return features

    def _in_parts(self, texts: int) -> bool:
        """Whether so many texts are not read at once. They are while gradients are taken, whose memory
        :class:`~.blocks.Computing` sees to, and for those who look at what the tower is given, a row for
        every prompt of :meth:`up_to_the_end`."""
        return texts > AT_ONCE and not torch.is_grad_enabled() and not self.everything

    def tokens(self, space: LabelSpace) -> Tensor:
        """``prompts × context`` tokens on the model's device, class by class."""
        return self._tokenised(space)[0]

    def up_to_the_end(self, space: LabelSpace) -> Tensor | None:
        """``(classes·templates) × longest``: which of the tokens that the tower reads in :meth:`encode_space`
        are a prompt's own, its end included; what follows is padding that no feature depends on.

        None where the tower is not known to be so (:meth:`settle` finds out), and any token may count.
        """
        if not self._trim:
            return None
        tokens, longest = self._tokenised(space.evened())
        return torch.arange(longest, device=tokens.device) <= tokens.argmax(dim=-1, keepdim=True)

    def _tokenised(self, space: LabelSpace) -> tuple[Tensor, int]:
        """Tokens, and how many the longest prompt has: read before they go to a GPU, which would be waited
        for at every step."""
        device = next(self.model.parameters()).device
        known = self._tokens.get(space)
        if known is None or known[0].device != device:
            tokens = self.tokenizer(_texts(space))
            self._tokens[space] = known = (tokens.to(device), _longest(tokens))
        return known

    def cut_prompts(self, space: LabelSpace) -> list[str]:
        """Prompts that are longer than the model's context, so that the tokeniser cut their end, and often
        the name."""
        return self.cut_texts(_texts(space), self.tokens(space))

    def cut_texts(self, texts: list[str], tokens: Tensor | None = None) -> list[str]:
        """Those of some texts that the context has no room for, each once; ``tokens`` are theirs, where they
        are known."""
        tokens = (self.tokenizer(texts) if tokens is None else tokens).cpu()
        full = self._without_padding(tokens).nonzero().squeeze(1).tolist()
        if not full:
            return []
        # Where a text fits, the tokens are the same in a context with room for one more.
        longer = self.tokenizer([texts[k] for k in full], context_length=tokens.shape[1] + 1)[:, :-1].cpu()
        cut = (longer != tokens[full]).any(1).tolist()
        return list(dict.fromkeys(texts[k] for k, was_cut in zip(full, cut, strict=True) if was_cut))

    def _without_padding(self, tokens: Tensor) -> Tensor:
        """Which texts fill the context, the only ones that may have been cut; all of them where a tokenizer
        ends texts with what it pads them with."""
        context = tokens.shape[1]
        padding, ending = self.tokenizer(["", "a " * 2 * context])[:, -1].tolist()
        return tokens[:, -1] != padding if padding != ending else torch.ones(len(tokens), dtype=torch.bool)

    def encode(self, tokens: Tensor, longest: int | None = None) -> Tensor:
        """Text features (not normalised), the tower run to the longest prompt where that is exact.

        Args:
            tokens: ``n × context``.
            longest: tokens of the longest of them, where that is known.
        """
        self.settle(tokens)
        chunk = self.computing.chunk
        # Each chunk is cut to its own longest prompt.
        encode = partial(self._encode, longest=longest if chunk is None else None)
        with lower_precision(self.model, self.precision, self.measuring):
            if self._in_parts(len(tokens)):
                return torch.cat([encode(part) for part in tokens.split(AT_ONCE)])
            return in_chunks(encode, tokens, chunk)

    def settle(self, tokens: Tensor) -> None:
        """Find out whether the tower can be trimmed, where that is not known: once, with a few tokens.

        The first :meth:`encode` does so by itself; before something watches what the tower reads it has to be
        done already.
        """
        if self._trim is None:
            self._trim = self._can_be_trimmed()
            self._trim = self._trim and self._trimming_is_exact(tokens)

    def _encode(self, tokens: Tensor, longest: int | None = None) -> Tensor:
        learning = torch.is_grad_enabled()
        if self._trim:
            tokens = tokens[:, : longest or _longest(tokens)]
        if learning and self._compiled is not None:
            return self._compiled(tokens)
        again = self._blocks if learning and self.computing.checkpointing else []
        with self._last_block(tokens), computed_again(again):
            return self._program(tokens)

    def _last_block(self, tokens: Tensor) -> AbstractContextManager[None]:
        """Within, the last block of a tower that is run by :meth:`_encode_plain` gives the last tokens
        alone."""
        one = self._trim and not self.everything and self._blocks and gives_one_token(self._blocks[-1])
        return one_token(self._blocks[-1], tokens.argmax(dim=-1)) if one else nullcontext()

    def _program(self, tokens: Tensor) -> Tensor:
        return self._encode_plain(tokens) if self._trim else self.model.encode_text(tokens)

    def _encode_plain(self, tokens: Tensor) -> Tensor:
        tower, length = self.tower, tokens.shape[1]
        cast = tower.transformer.get_cast_dtype()
        x = tower.token_embedding(tokens).to(cast) + tower.positional_embedding[:length].to(cast)
        x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[:length, :length]))
        x = x[:, 0] if x.shape[1] < length else text_global_pool(x, tokens, "argmax")
        projection = tower.text_projection
        if projection is None:
            return x
        return projection(x) if isinstance(projection, nn.Linear) else x @ projection

    def _can_be_trimmed(self) -> bool:
        tower = self.tower
        pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
        parts = (
            "transformer",
            "token_embedding",
            "positional_embedding",
            "ln_final",
            "text_projection",
            "attn_mask",
        )
        if pool != "argmax" or not all(hasattr(tower, part) for part in parts) or tower.attn_mask is None:
            return False
        return getattr(tower, "cls_emb", None) is None

    @torch.no_grad()
    def _trimming_is_exact(self, tokens: Tensor) -> bool:
        shortest = tokens[
            tokens.argmax(dim=-1).argsort()[:4]
        ]  # a prompt that fills the context would prove nothing
        with evaluating(self.tower):
            whole, trimmed = self.model.encode_text(shortest), self._encode(shortest)
        return bool(torch.allclose(whole, trimmed, atol=1e-4 * float(whole.abs().max()), rtol=0))


def in_chunks(encode: Callable[[Tensor], Tensor], inputs: Tensor, chunk: int | None) -> Tensor:
    """``encode(inputs)`` a chunk at a time, each computed again in the backward pass instead of being
    remembered.

    Outside training, and for no chunk, it is one call.
    """
    if chunk is None or not torch.is_grad_enabled() or len(inputs) <= chunk:
        return encode(inputs)
    parts = [checkpoint(encode, part, use_reentrant=False) for part in inputs.split(chunk)]
    return torch.cat(parts)


def _longest(tokens: Tensor) -> int:
    """Tokens of the longest prompt, its end included."""
    return int(tokens.argmax(dim=-1).max()) + 1


def _texts(space: LabelSpace) -> list[str]:
    return [text for texts in space.prompts for text in texts]


def _is_text(name: str) -> bool:
    return not name.startswith("visual.")


def _state(parameters: Iterable[Tensor]) -> tuple:
    """What changes whenever a value does.

    Version counters alone are not enough: torch's fused optimisers and writes through ``.data`` leave them as
    they are.
    """
    parameters = list(parameters)
    with torch.no_grad():
        sums = torch.stack([_bits(p) for p in parameters])
    return tuple((id(p), p.data_ptr(), p._version) for p in parameters), tuple(sums.tolist())


def _bits(tensor: Tensor) -> Tensor:
    # The sum of the bit patterns as whole numbers is exact, so that no change is lost to rounding. 64 bits at
    # a time are many times faster than fewer, which torch converts before it adds.
    flat = tensor.flatten()
    aligned = all(count * flat.element_size() % 8 == 0 for count in (flat.numel(), flat.storage_offset()))
    return flat.view(torch.int64 if aligned else torch.uint8).sum(dtype=torch.int64)
