"""The text side of a CLIP classifier: label spaces, prompts tokenised once, a text tower that stops at the last token.

A causal text tower with end-of-text pooling never lets a token after the end influence the pooled one, so running it to
the longest prompt only is exact; it is checked on the model at hand and left off where the tower is of another kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from open_clip.transformer import text_global_pool
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class LabelSpace:
    """The classes that an image is classified into, each with its prompts.

    Attributes:
        class_names: names in label order.
        prompts: for every class the full texts (template filled in); all classes have the same number.
    """

    class_names: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.class_names)

    @classmethod
    def from_templates(cls, class_names: Sequence[str], templates: Sequence[str]) -> LabelSpace:
        """Every class name filled into every template (``"a photo of a {}."``)."""
        # Not str.format: a class name or template from a data file may hold braces of its own.
        prompts = tuple(tuple(template.replace("{}", name) for template in templates) for name in class_names)
        return cls(tuple(class_names), prompts)

    @property
    def templates(self) -> int:
        """Number of prompts per class."""
        return len(self.prompts[0])

    def with_template(self, index: int) -> LabelSpace:
        """The same classes with their ``index``-th prompt only."""
        return LabelSpace(self.class_names, tuple((texts[index],) for texts in self.prompts))

    def joined(self, other: LabelSpace) -> LabelSpace:
        """This space followed by the classes of ``other`` that are new; prompt counts are evened by repetition."""
        new = [i for i, name in enumerate(other.class_names) if name not in self.class_names]
        prompts = self.prompts + tuple(other.prompts[i] for i in new)
        most = max(len(texts) for texts in prompts)
        even = tuple(tuple(texts[i % len(texts)] for i in range(most)) for texts in prompts)
        return LabelSpace(self.class_names + tuple(other.class_names[i] for i in new), even)


class TextEncoder:
    """Encodes label spaces with a CLIP's text tower; remembers tokens for good and features per weight state.

    Args:
        model: an open_clip model (``CLIP`` or ``CustomTextCLIP``).
        tokenizer: texts → ``n × context`` token tensor.
    """

    def __init__(self, model: nn.Module, tokenizer: Callable[[list[str]], Tensor]) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._tokens: dict[LabelSpace, Tensor] = {}
        self._features: dict[LabelSpace, tuple[tuple[int, ...], Tensor]] = {}
        self._trim: bool | None = None

    @property
    def tower(self) -> nn.Module:
        """The module that holds the text transformer."""
        return getattr(self.model, "text", self.model)

    def parameters(self) -> list[Tensor]:
        """Parameters that text features depend on."""
        tower = self.tower
        return [p for name, p in tower.named_parameters() if not name.startswith("visual.")]

    def features(self, space: LabelSpace) -> Tensor:
        """``classes × embed`` unit vectors: the normalised mean of a class's normalised prompt features.

        Cached while the text weights stay as they are; computed with gradients when they are being trained.
        """
        parameters = self.parameters()
        if torch.is_grad_enabled() and any(p.requires_grad for p in parameters):
            return self.encode_space(space)
        state = tuple(value for p in parameters for value in (id(p), p.data_ptr(), p._version))
        known = self._features.get(space)
        if known is None or known[0] != state:
            with torch.no_grad():
                known = (state, self.encode_space(space))
            self._features[space] = known
        return known[1]

    def forget(self) -> None:
        """Drop cached features (tokens stay)."""
        self._features.clear()

    def encode_space(self, space: LabelSpace) -> Tensor:
        """As :meth:`features`, always computed anew."""
        tokens = self.tokens(space)
        features = F.normalize(self.encode(tokens).float(), dim=-1)
        if space.templates > 1:
            features = F.normalize(features.view(len(space), space.templates, -1).mean(1), dim=-1)
        return features

    def tokens(self, space: LabelSpace) -> Tensor:
        """``(classes·templates) × context`` tokens on the model's device."""
        if space not in self._tokens:
            texts = [text for texts in space.prompts for text in texts]
            self._tokens[space] = self.tokenizer(texts).to(next(self.model.parameters()).device)
        return self._tokens[space]

    def encode(self, tokens: Tensor) -> Tensor:
        """Text features (not normalised), the tower run to the longest prompt where that is exact."""
        if self._trim is None:
            self._trim = self._trimming_is_exact(tokens[:4])
        if not self._trim:
            return self.model.encode_text(tokens)
        return self._encode_trimmed(tokens)

    def _encode_trimmed(self, tokens: Tensor) -> Tensor:
        tower = self.tower
        length = int(tokens.argmax(dim=-1).max()) + 1
        tokens = tokens[:, :length]
        cast = tower.transformer.get_cast_dtype()
        x = tower.token_embedding(tokens).to(cast) + tower.positional_embedding[:length].to(cast)
        x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[:length, :length]))
        x = text_global_pool(x, tokens, "argmax")
        projection = tower.text_projection
        if projection is None:
            return x
        return projection(x) if isinstance(projection, nn.Linear) else x @ projection

    @torch.no_grad()
    def _trimming_is_exact(self, tokens: Tensor) -> bool:
        tower = self.tower
        pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
        parts = ("transformer", "token_embedding", "positional_embedding", "ln_final", "text_projection", "attn_mask")
        if pool != "argmax" or not all(hasattr(tower, part) for part in parts) or tower.attn_mask is None:
            return False
        if getattr(tower, "cls_emb", None) is not None:
            return False
        was_training = tower.training
        tower.eval()
        whole, trimmed = self.model.encode_text(tokens), self._encode_trimmed(tokens)
        tower.train(was_training)
        return bool(torch.allclose(whole, trimmed, atol=1e-4 * float(whole.abs().max()), rtol=0))
