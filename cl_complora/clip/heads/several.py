"""The heads of several tasks asked about the classes of all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .head import Head, Question


class SeveralHeads:
    """P(class) = Σ_t P(task t) · P_head of t(class): what tells whose a picture is, and its head which class.

    Tasks are told apart by the class means m that every head keeps, from x, what heads read of a picture:

        P(t) = P_text(classes that any head knows) · softmax_t(τ max over the classes k of t of x·m_k / ‖x‖)

    so a picture is taken for one of the task that has the nearest class mean. Where a head has none (those of
    runs of before 2026-11-30), the texts of a task's classes tell, P(t) = P_text(classes of t), and a class
    that several heads know is the latest one's. Classes without a head have what their texts say.

    Args:
        heads: in the order in which they were learned.
    """

    def __init__(self, heads: Sequence[Head]) -> None:
        self.heads = list(heads)

    @property
    def reads_both(self) -> bool:
        """Whether one of them does."""
        return any(head.reads_both for head in self.heads)

    @property
    def has_means(self) -> bool:
        """Whether class means tell the tasks apart, and not texts."""
        return all(head.means is not None for head in self.heads)

    def asked(self, names: Sequence[str]) -> list[tuple[Head, list[int]]]:
        """Every head that knows some of the classes to choose among, and their places."""
        return [(head, known) for head in self.heads if (known := head.known(names))]

    def logits(self, question: Question) -> Tensor:
        """``N × K``, as of a single head."""
        if len(self.heads) == 1:
            return self.heads[0].logits(question)
        texts = question.text_logits.softmax(1).double()
        asked = self.asked(question.names)
        found = (self._by_means if self.has_means and asked else self._by_texts)(question, texts, asked)
        return found.clamp_min(torch.finfo(torch.float32).tiny).log().to(question.text_logits)

    def _by_means(self, question: Question, texts: Tensor, asked: Sequence[tuple[Head, list[int]]]) -> Tensor:
        headed = sorted({place for _, known in asked for place in known})
        nearest = [_nearest(head, question) for head, _ in asked]
        tasks = (question.scale.double() * torch.stack(nearest, 1)).softmax(1)
        tasks = tasks * texts[:, headed].sum(1, keepdim=True)
        found = texts.clone()
        found[:, headed] = 0.0
        for place, (head, known) in enumerate(asked):
            found[:, known] += tasks[:, place, None] * _inside(head, question, known)
        return found

    def _by_texts(self, question: Question, texts: Tensor, asked: Sequence[tuple[Head, list[int]]]) -> Tensor:
        found, free = texts.clone(), set(range(len(question.names)))
        for head, known in reversed(asked):
            own = sorted(free & set(known))
            free -= set(own)
            if own:
                found[:, own] = texts[:, own].sum(1, keepdim=True) * _inside(head, question, own)
        return found


def _nearest(head: Head, question: Question) -> Tensor:
    """``(N,)`` highest cosine to the mean of a class that is asked for and that a head knows."""
    seen = F.normalize(question.seen(head.reads_both).double(), dim=-1)
    return (seen @ head.means[head.rows(question.names)].double().mT).amax(1)


def _inside(head: Head, question: Question, places: Sequence[int]) -> Tensor:
    """``N × places`` what a head says of some classes that it knows."""
    return head.logits(question.among(places)).double().softmax(1)
