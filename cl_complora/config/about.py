"""Schema of ``about``: what kind of method a strategy is, whose, what it was checked against (no
setting of a run)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import Section, form, refused

# One line of a list or a cell of a table.
Line = Annotated[str, form(r"^[^\r\n\t]+$", "be one line without tabs", min_length=1, max_length=400)]
_Test = Annotated[
    str, form(r"^tests/[\w/]+\.py::[\w:]+$", "have the form tests/….py::test_…", max_length=200)
]
Kind = Literal["complora", "control", "low-rank", "regulariser", "whole-weights", "head", "replay-and-bounds"]
Checked = Literal["authors", "library", "paper", "ours", "none"]

# In the order in which they are listed.
KINDS: dict[Kind, str] = {
    "complora": "Comp-LoRA",
    "control": "Controls",
    "low-rank": "Low-rank",
    "regulariser": "Regularisers",
    "whole-weights": "Whole weights",
    "head": "Heads",
    "replay-and-bounds": "Replay and bounds",
}
UNTOLD = "Others"
# Kinds that see more than a stream shows them: bounds, which are not called the best.
BOUNDS: tuple[Kind, ...] = ("replay-and-bounds",)

CHECKED: dict[Checked, str] = {
    "authors": "a test holds it against numbers that the authors' own code computed",
    "library": "a test holds it against code of a well-known library (peft, Avalanche, scikit-learn)",
    "paper": "a test holds it against the published equation, written down a second time",
    "ours": "a control, a baseline or a reconstruction of ours, with no code of authors and no complete"
    " equation to hold it against",
    "none": "not checked",
}


class Published(Section):
    """Figures of a method in somebody's table."""

    benchmark: Line
    """Protocol, order and shots, and the model if it is not CLIP ViT-B/16."""
    figures: Annotated[dict[Line, Annotated[float, Field(ge=0, le=100)]], Field(min_length=1, max_length=10)]
    """Name → accuracy in %."""
    source: Line
    """Whose table it is."""


class About(Section):
    """What kind of method a strategy is, whose, and what it was checked against."""

    kind: Kind
    """Under which heading lists show it."""
    source: Line | None = None
    """Paper, and the authors' code with its commit."""
    checked: Checked = "none"
    """What a test holds it against: numbers that the authors' code computed, code of a library, the published
    equation, or nothing but what is ours (:data:`CHECKED`)."""
    scope: Line | None = None
    """What of it the check covers, where that is not all."""
    test: _Test | None = None
    """The test that says so (``tests/…/test_….py::test_…``)."""
    published: Annotated[list[Published], Field(max_length=20)] = []
    """Figures of the method in the tables of others."""

    @model_validator(mode="after")
    def _checks_have_an_object(self) -> About:
        if self.scope is not None and self.checked == "none":
            raise refused("has no effect with checked: none", "scope", because=[("checked",)])
        if self.checked == "authors" and self.source is None:
            raise refused("authors needs a source, which says whose code it is", "checked")
        return self

    @property
    def paper(self) -> str:
        """The source without the code: what stands before the first semicolon; empty where there is none."""
        return (self.source or "").partition(";")[0].strip()
