"""Staying close to the model before the task on texts of no task: sentences of random words."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...clip.classifier import ClipClassifier
from ...config.penalties import Sentences
from ...data.labels import LabelSpace
from ..adapter import AdapterPlugin
from ..own_draws import OwnDraws
from .distillation import Distillation, similarity_loss


class RandomSentencesPlugin(OwnDraws, Distillation, supports_distributed=False):
    """LwF-VR (Ding et al., 2022, arXiv 2207.09248; "vocabulary replay"): :func:`similarity_loss` between the
    batch's own images and sentences of words that are drawn from the tokeniser's vocabulary.

    They stand for all that the texts of a task do not say and the model is not to forget. They are drawn once
    a task, and the teacher, which is the state before the task (the pretrained model for the first one),
    reads them once. It acts from the first task on.
    """

    purpose = "sentences"
    settings: Sentences

    def __init__(self, settings: Sentences, adapter: AdapterPlugin, seed: int) -> None:
        super().__init__(seed)
        self.settings, self.adapter = settings, adapter

    def fits(self, model: ClipClassifier) -> None:
        """Refuse tokenisers whose vocabulary cannot be listed."""
        words_of(model.text.tokenizer)

    @torch.no_grad()
    def before_training_exp(self, strategy, **kwargs) -> None:
        """Draw the task's sentences; the teacher reads them."""
        super().before_training_exp(strategy, **kwargs)
        text = strategy.model.text
        words = words_of(text.tokenizer)
        shape = (self.settings.sentences, self.settings.words)
        drawn = torch.randint(len(words), shape, generator=self.generator).tolist()
        self.space = LabelSpace.of_texts([" ".join(words[i] for i in sentence) for sentence in drawn])
        with self.adapter.previous():
            self._teacher_texts = text.encode_space(self.space)

    def penalty(self, strategy) -> Tensor:
        """Of the batch's images and as many of the sentences as are read in a step."""
        model, images = strategy.model, strategy.mb_x
        read = torch.randperm(self.settings.sentences, generator=self.generator)[: self.settings.texts]
        read = read.to(self._teacher_texts.device)
        taught = texts = self._teacher_texts[read]
        with torch.no_grad(), self.adapter.previous():
            teacher = model.image_features(images)
        if self.settings.texts_of == "student":
            texts = F.normalize(model.text.encode(model.text.tokens(self.space)[read]).float(), dim=-1)
        scale = model.clip.logit_scale.float().exp()
        logits = scale * strategy.mb_features @ texts.mT, scale * teacher @ taught.mT
        return self.settings.strength * similarity_loss(*logits, self.settings.temperature)

    def after_training_exp(self, strategy, **kwargs) -> None:
        """The sentences are not read again."""
        strategy.model.text.drop(self.space)


def words_of(tokenizer: Any) -> list[str]:
    """Every word of two letters or more that an entry of a tokeniser's vocabulary spells, in its order, once.

    Args:
        tokenizer: open_clip's, or its wrapper of one of Hugging Face's.

    Raises:
        ValueError: where the vocabulary cannot be listed.
    """
    inner = getattr(tokenizer, "tokenizer", tokenizer)
    if not hasattr(inner, "vocab_size") or not hasattr(inner, "decode"):
        raise ValueError(
            f"its tokeniser ({type(inner).__name__}) does not list its vocabulary, whose words"
            " the regulariser sentences makes its texts of"
        )
    entries = (inner.decode([entry]).strip() for entry in range(inner.vocab_size))
    return list(dict.fromkeys(entry for entry in entries if len(entry) > 1 and entry.isalpha()))
