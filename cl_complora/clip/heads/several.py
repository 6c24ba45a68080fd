"""The heads of several tasks asked about the classes of all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .head import Head, Question


class SeveralHeads:
    """P(class) = P_text(task of the class) · P_head of that task(class): the texts say which task, its head
    which class.

    A class that several heads know is the latest one's.

    Args:
        heads: in the order in which they were learned.
    """

    def __init__(self, heads: Sequence[Head]) -> None:
        self.heads = list(heads)

    @property
    def reads_both(self) -> bool:
        """Whether one of them does."""
        return any(head.reads_both for head in self.heads)

    def logits(self, question: Question) -> Tensor:
        """``N × K``, as of a single head."""
        if len(self.heads) == 1:
            return self.heads[0].logits(question)
        shares = question.text_logits.softmax(1).double()
        found = shares.clone()
        free = set(range(len(question.names)))
        for head in reversed(self.heads):
            own = sorted(free & set(head.known(question.names)))
            free -= set(own)
            if own:
                inside = head.logits(question.among(own)).double().softmax(1)
                found[:, own] = shares[:, own].sum(1, keepdim=True) * inside
        return found.clamp_min(torch.finfo(torch.float32).tiny).log().to(question.text_logits)
