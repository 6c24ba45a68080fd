"""Schema of ``adapter``: which weights move, in which shape, and where they may point."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from .base import MOST, Count, CountOrZero, EachOnce, Fraction, Section, idle_keys, refused
from .factors import FIXED_A, Between, FullGradient, KaimingStart, Pruning, Start
from .training import Tower, Whole


class KeepRule(Section):
    """How many singular triples are protected: exactly one of the three."""

    energy: Annotated[float, Field(gt=0, le=1)] | None = None
    """Smallest k with Σ_{i≤k} σᵢ² ≥ energy · ‖W‖²_F."""
    fraction: Annotated[float, Field(ge=0, lt=1)] | None = None
    """This share of min(out, in)."""
    number: CountOrZero | None = None
    """k itself (a matrix with fewer keeps room for the rank)."""

    @model_validator(mode="after")
    def _exactly_one(self) -> KeepRule:
        given = [key for key in ("energy", "fraction", "number") if getattr(self, key) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none of them"
            others = [(key,) for key in given[:-1]]
            raise refused(
                f"needs exactly one of energy, fraction, number, got {got}", *given[-1:], because=others
            )
        return self

    @property
    def rule(self) -> tuple[str, float]:
        """(kind, value) of the one that is given."""
        kind = next(k for k in ("energy", "fraction", "number") if getattr(self, k) is not None)
        return kind, getattr(self, kind)


class Subspace(Section):
    """Where the low-rank updates may point."""

    select: Literal["complement", "top", "bottom", "random", "none"] = "complement"
    """``complement``: outside the principal directions. ``top``: in them. ``bottom``: the ``rank`` directions
    of smallest singular value outside them. ``random``: as many as the complement has, in no particular
    place. ``none``: anywhere, as plain LoRA."""
    keep: KeepRule = KeepRule(energy=0.5)
    """How many principal directions are protected."""
    sides: Literal["both", "in", "out"] = "both"
    """Whether inputs, outputs or both are confined."""
    of: Literal["merged", "pretrained"] = "merged"
    """Whose principal directions: the weights as merged so far, or as pretrained."""
    protect: Annotated[list[Literal["principal", "updates"]], Field(min_length=1), EachOnce] = ["principal"]
    """Principal directions, and those of the updates of earlier tasks (ranks that ended at zero, and matrices
    that did not change, protect nothing)."""
    form: Literal["reduced", "projector"] = "reduced"
    """Factors in coordinates of the subspace, or of full size between projectors."""

    @model_validator(mode="after")
    def _compatible(self) -> Subspace:
        idle = [key for key in type(self).model_fields if key in self.model_fields_set - {"select"}]
        if self.select == "none" and idle:
            raise refused(f"{idle_keys(idle)} with select: none", idle[0], because=[("select",)])
        if self.form == "projector" and self.select != "complement":
            message = f"projector works with select: complement, not {self.select}"
            raise refused(message, "form", because=[("select",)])
        kind, kept = self.keep.rule
        if self.select == "top" and kept == 0:
            message = "must be greater than 0 with select: top, which trains in nothing but what is kept"
            raise refused(message, "keep", kind, because=[("select",)])
        if "updates" in self.protect and self.select not in ("complement", "random"):
            message = f"updates works with select: complement or random, not {self.select}"
            raise refused(message, "protect", because=[("select",)])
        if "principal" not in self.protect:
            message = "must name principal; to protect the updates alone, give keep: {number: 0} beside it"
            raise refused(message, "protect")
        return self


class Interpolation(Section):
    """WiSE-FT: after a task keep this share of the way from where it started (or from the pretrained
    weights)."""

    kind: Literal["interpolate"]
    weight: Fraction = 0.5
    """The share."""
    towards: Literal["previous", "pretrained"] = "previous"
    """What the trained weights are interpolated with."""


class NormMatch(Section):
    """Rescale every task's update to one Frobenius norm over all matrices, so that methods move equally
    far."""

    kind: Literal["norm"]
    norm: Annotated[float, Field(gt=0)]
    """The norm."""


class ImageTowerAlone(Section):
    """Merge the image tower's update alone: the text tower learns beside it and is then what it was before.
    Tasks of captions, which both towers answer, and what is trained together with them are merged whole."""

    kind: Literal["image-tower"]


Merge = Annotated[Interpolation | NormMatch | ImageTowerAlone, Field(discriminator="kind")]


Matrix = Literal["q", "k", "v", "o", "fc", "proj", "other"]
Layer = Annotated[int, Field(ge=-MOST, le=MOST)]


# Starts that no subspace goes with, and why.
OF_WHOLE_WEIGHTS = {
    "components": "the factors start as singular components of the whole weight, which a subspace does not"
    " hold",
    "inputs": "A has a subspace of its own, outside the inputs of earlier tasks, and is fixed to it",
    "gradient": "A has a subspace of its own, outside the principal directions and earlier tasks' inputs,"
    " and is fixed to it",
    "variance": "ranks are shared out by the variance of whole inputs, of which a subspace reads a part;"
    " start.most: 1, which has the same rank everywhere, goes with one",
}


class Adapter(Section):
    """Which weights move, and in which shape."""

    kind: Literal["lowrank", "full", "none"]
    """Low-rank factors that are merged after every task, the weights themselves, or nothing."""
    rank: Count = 4
    """Of the factors (in a tower's first block, where ``rank_last`` is given)."""
    rank_last: Count | None = None
    """Rank in a tower's last block; it grows evenly from ``rank`` in the first (halves are rounded up). The
    scaling is that of ``rank`` everywhere."""
    alpha: Annotated[float, Field(gt=0)] | None = None
    """Numerator of the scaling s; the rank by default, so that s = 1."""
    scaling: Literal["alpha/rank", "alpha/sqrt(rank)"] = "alpha/rank"
    """How s follows from ``alpha`` and ``rank``."""
    depth_scale: Annotated[float, Field(gt=0, le=1)] | None = None
    """γ of a scaling that grows from γ·s in a tower's first block to s in its last; s everywhere by
    default."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a factor's inputs that are dropped in training."""
    dropout_masks: Literal["shared", "separate"] = "shared"
    """Matrices that read the same input (q, k, v) drop the same entries of it, or each its own."""
    towers: Annotated[list[Tower], Field(min_length=1), EachOnce] = ["vision", "text"]
    """Which towers move."""
    matrices: Annotated[list[Matrix], Field(min_length=1), EachOnce] = ["q", "k", "v"]
    """Which linear maps of a block carry factors: attention's q, k, v, o, the MLP's fc and proj, or
    others."""
    layers: Annotated[list[Layer], Field(min_length=1, max_length=1000), EachOnce] | None = None
    """Blocks to adapt; negative numbers count from the last; all by default."""
    subspace: Subspace = Subspace(select="none")
    """Where the updates may point."""
    start: Start = KaimingStart(kind="kaiming")
    """What the factors begin as."""
    between: Between | None = None
    """What stands between the factors; nothing by default."""
    pruning: Pruning | None = None
    """Entries of A that are set to zero on the way; none by default."""
    full_gradient: FullGradient | None = None
    """LoRA-Pro's steps of both factors, as near to Adam's of the whole matrix as the rank allows."""
    row_scale: bool = False
    """DoRA's: the lengths of the weights' rows are trained beside the factors, whose update is of full rank
    then."""
    whole: Annotated[list[Whole], Field(min_length=1), EachOnce] | None = None
    """Parameters trained as they are: all of them with kind full, none beside the factors with kind lowrank.
    """
    merge: Merge | None = None
    """What is done to a task's update before it enters the weights; nothing by default."""

    @field_validator("whole")
    @classmethod
    def _in_order(cls, value: list | None) -> list | None:
        return sorted(value) if value else value

    @model_validator(mode="after")
    def _matrices_have_factors(self) -> Adapter:
        if self.kind == "lowrank" and "weights" in (self.whole or ()):
            message = "weights works with kind: full, not with kind: lowrank, whose factors adapt the weights"
            raise refused(message, "whole", because=[("kind",)])
        return self

    @model_validator(mode="after")
    def _start_has_its_subspace(self) -> Adapter:
        confined = self.subspace.select != "none"
        if self.start.kind == "core" and not (confined and self.subspace.form == "reduced"):
            message = (
                "core needs a subspace to have coordinates in: subspace.select other than none, form: reduced"
            )
            raise refused(message, "start", "kind", because=[("subspace",)])
        if self.start.kind == "core" and self.subspace.sides == "out":
            message = "core works with subspace.sides: both or in, not out: A is the basis of the inputs"
            raise refused(message, "start", "kind", because=[("subspace", "sides")])
        even = self.start.kind == "variance" and self.start.most == 1
        if confined and self.start.kind in OF_WHOLE_WEIGHTS and not even:
            message = (
                f"{self.start.kind} works with subspace.select: none, not {self.subspace.select}: "
                f"{OF_WHOLE_WEIGHTS[self.start.kind]}"
            )
            raise refused(message, "start", "kind", because=[("subspace", "select")])
        if self.start.kind == "normal" and self.start.b > 0 and self.between is None:
            message = "must be 0, or the update would not start at zero, without between.kind: budget"
            raise refused(message, "start", "b", because=[("between",)])
        own = self.start.kind in ("gradient-components", "variance")
        if own and confined and self.subspace.form == "projector":
            message = f"{self.start.kind} needs coordinates of its own, not subspace.form: projector"
            raise refused(message, "start", "kind", because=[("subspace", "form")])
        return self

    @model_validator(mode="after")
    def _between_has_its_factors(self) -> Adapter:
        if self.between is None:
            return self
        if self.start.kind not in self.between.starts:
            allowed = " or ".join(self.between.starts)
            message = f"{self.between.kind} works with start.kind: {allowed}, not {self.start.kind}"
            raise refused(message, "between", "kind", because=[("start", "kind")])
        if self.between.kind == "directions" and self.subspace.select != "none":
            message = (
                f"directions works with subspace.select: none, not {self.subspace.select}: what earlier "
                "tasks learned lies outside the complement of the weights that hold it"
            )
            raise refused(message, "between", "kind", because=[("subspace", "select")])
        if self.between.kind == "directions" and self.merge is not None:
            message = (
                "directions does not go with merge, after which the weights hold something else than learned"
            )
            raise refused(message, "between", "kind", because=[("merge",)])
        if self.between.kind == "experts":
            # Ranks go evenly from the first block's to the last's, so the fewest experts are at an end.
            last = self.rank if self.rank_last is None else self.rank_last
            limit, fewest = ("rank", self.rank) if self.rank <= last else ("rank_last", last)
            where = "there are"
            if self.rank != last:
                where = f"a tower's {'first' if limit == 'rank' else 'last'} block has"
            for key in ("active", "merged"):
                if (number := getattr(self.between, key)) > fewest:
                    message = (
                        f"must be at most adapter.{limit}, which is how many experts {where} ({fewest}), "
                        f"got {number}"
                    )
                    raise refused(message, "between", key, because=[(limit,)])
        if self.between.kind == "budget" and self.start.b == 0:
            message = "must be greater than 0 with between.kind: budget, or nothing has a gradient"
            raise refused(message, "start", "b", because=[("between", "kind")])
        if self.between.kind != "budget" and self.start.kind == "normal" and self.start.b > 0:
            message = (
                f"must be 0 with between.kind: {self.between.kind}, or the update would not start at zero"
            )
            raise refused(message, "start", "b", because=[("between", "kind")])
        if self.between.kind == "heads" and not set(self.matrices) <= {"q", "k", "v"}:
            message = "heads works with matrices: q, k and v, whose rows are those of heads"
            raise refused(message, "between", "kind", because=[("matrices",)])
        if self.between.kind == "heads" and self.subspace.select != "none" and self.subspace.sides != "in":
            message = (
                f"heads works with subspace.sides: in, not {self.subspace.sides}: rows that are left out"
                " take an update out of a subspace of the outputs"
            )
            raise refused(message, "between", "kind", because=[("subspace", "sides")])
        return self

    @model_validator(mode="after")
    def _rows_are_free(self) -> Adapter:
        if self.row_scale and self.subspace.select != "none":
            message = (
                f"true works with subspace.select: none, not {self.subspace.select}: rescaled rows change "
                "what a weight does on the directions that it should leave alone"
            )
            raise refused(message, "row_scale", because=[("subspace", "select")])
        if self.row_scale and self.between is not None:
            raise refused("true does not go with between", "row_scale", because=[("between",)])
        return self

    @model_validator(mode="after")
    def _ranks_are_free(self) -> Adapter:
        given = {"core": "takes its rank from a subspace", "variance": "shares ranks out by data"}
        if self.rank_last is not None and self.start.kind in given:
            message = f"does not go with start.kind: {self.start.kind}, which {given[self.start.kind]}"
            raise refused(message, "rank_last", because=[("start", "kind")])
        if self.rank_last is not None and self.subspace.select == "bottom":
            message = "does not go with subspace.select: bottom, which has as many directions as the rank"
            raise refused(message, "rank_last", because=[("subspace", "select")])
        return self

    @model_validator(mode="after")
    def _entries_can_be_pruned(self) -> Adapter:
        if self.pruning is None:
            return self
        if self.start.kind in FIXED_A:
            message = f"does not go with start.kind: {self.start.kind}, whose A is fixed"
            raise refused(message, "pruning", because=[("start", "kind")])
        if self.subspace.select != "none" and self.subspace.form == "projector":
            message = "needs entries of A that are inputs of its own, not subspace.form: projector"
            raise refused(message, "pruning", because=[("subspace", "form")])
        if not self.pruning.grow_back and self.between_kind == "boosters":
            message = "false does not go with between.kind: boosters, each of which begins with another A"
            raise refused(message, "pruning", "grow_back", because=[("between", "kind")])
        return self

    @model_validator(mode="after")
    def _both_factors_follow(self) -> Adapter:
        if self.full_gradient is None:
            return self
        if self.start.kind not in ("kaiming", "variance"):
            message = (
                f"needs factors of which both are trained as they are, not start.kind: {self.start.kind}"
            )
            raise refused(message, "full_gradient", because=[("start", "kind")])
        if self.subspace.select != "none" and self.subspace.form == "projector":
            message = "needs factors with coordinates of their own, not subspace.form: projector"
            raise refused(message, "full_gradient", because=[("subspace", "form")])
        other = "between" if self.between is not None else "row_scale" if self.row_scale else None
        if other is not None:
            raise refused(f"does not go with {other}", "full_gradient", because=[(other,)])
        return self

    @model_validator(mode="after")
    def _something_is_merged(self) -> Adapter:
        if self.merge_kind != "image-tower":
            return self
        keeps_nothing = "image-tower keeps nothing of what is trained with"
        if "vision" not in self.towers:
            raise refused(f"{keeps_nothing} towers: [text]", "merge", "kind", because=[("towers",)])
        if self.kind == "full" and self.whole == ["tokens"]:
            raise refused(f"{keeps_nothing} whole: [tokens]", "merge", "kind", because=[("whole",)])
        if self.between_kind == "experts":
            message = "image-tower does not go with experts, which would hold what it puts back for learned"
            raise refused(message, "merge", "kind", because=[("between", "kind")])
        return self

    @model_validator(mode="after")
    def _masks_need_dropout(self) -> Adapter:
        if self.dropout_masks == "separate" and self.dropout == 0:
            raise refused("separate has no effect with dropout: 0", "dropout_masks", because=[("dropout",)])
        return self

    @model_validator(mode="after")
    def _no_idle_settings(self) -> Adapter:
        some = {"none": {"kind"}, "full": {"kind", "towers", "whole", "merge"}}
        used = some.get(self.kind, set(type(self).model_fields))
        idle = [key for key in type(self).model_fields if key in self.model_fields_set - used]
        if idle:
            kinds = "lowrank or full" if set(idle) <= {"towers", "whole", "merge"} else "lowrank"
            message = f"{idle_keys(idle)} with kind: {self.kind}, only with kind: {kinds}"
            raise refused(message, idle[0], because=[("kind",)])
        return self

    @property
    def between_kind(self) -> str:
        """Kind of what stands between the factors; empty where nothing does."""
        return "" if self.between is None else self.between.kind

    @property
    def merge_kind(self) -> str:
        """Kind of what is done to updates before they enter the weights; empty where nothing is."""
        return "" if self.merge is None else self.merge.kind

    @property
    def trained_whole(self) -> tuple[str, ...]:
        """Kinds of parameters that are trained as they are."""
        return tuple(self.whole or (get_args(Whole) if self.kind == "full" else ()))

    @property
    def scale(self) -> float:
        """s in y = W x + s·B′A′x."""
        alpha = self.alpha if self.alpha is not None else float(self.rank)
        return alpha / (self.rank if self.scaling == "alpha/rank" else self.rank**0.5)
