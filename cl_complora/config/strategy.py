"""Schema of a strategy: how the model learns the tasks, composed of parts rather than chosen by name."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, StringConstraints, field_validator, model_validator

from .base import MOST, Count, CountOrZero, EachOnce, Fraction, Name, Section, Text, refused
from .factors import Between, FullGradient, KaimingStart, Start
from .heads import IN_WEIGHTS, Head
from .penalties import Regulariser
from .training import Optimiser, Schedule, Tower, Training, Whole


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
    """``bottom``: the ``rank`` directions of smallest singular value outside the principal ones."""
    keep: KeepRule = KeepRule(energy=0.5)
    sides: Literal["both", "in", "out"] = "both"
    of: Literal["merged", "pretrained"] = "merged"
    protect: Annotated[list[Literal["principal", "updates"]], Field(min_length=1), EachOnce] = ["principal"]
    form: Literal["reduced", "projector"] = "reduced"

    @model_validator(mode="after")
    def _compatible(self) -> Subspace:
        if self.form == "projector" and self.select in ("top", "bottom", "random"):
            message = f"projector works with select: complement or none, not {self.select}"
            raise refused(message, "form", because=[("select",)])
        if "updates" in self.protect and self.select not in ("complement", "random"):
            message = f"updates works with select: complement or random, not {self.select}"
            raise refused(message, "protect", because=[("select",)])
        return self


class Interpolation(Section):
    """WiSE-FT: after a task keep this share of the way from where it started (or from the pretrained
    weights)."""

    kind: Literal["interpolate"]
    weight: Fraction = 0.5
    towards: Literal["previous", "pretrained"] = "previous"
    """What the trained weights are interpolated with."""


class NormMatch(Section):
    """Rescale every task's update to one Frobenius norm over all matrices, so that methods move equally
    far."""

    kind: Literal["norm"]
    norm: Annotated[float, Field(gt=0)]


Merge = Annotated[Interpolation | NormMatch, Field(discriminator="kind")]


Matrix = Literal["q", "k", "v", "o", "fc", "proj", "other"]
Layer = Annotated[int, Field(ge=-MOST, le=MOST)]


class Adapter(Section):
    """Which weights move, and in which shape."""

    kind: Literal["lowrank", "full", "none"]
    rank: Count = 4
    alpha: Annotated[float, Field(gt=0)] | None = None
    """Numerator of the scaling s; the rank by default, so that s = 1."""
    scaling: Literal["alpha/rank", "alpha/sqrt(rank)"] = "alpha/rank"
    depth_scale: Fraction | None = None
    """γ of a scaling that grows from γ·s in a tower's first block to s in its last; s everywhere by
    default."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    dropout_masks: Literal["shared", "separate"] = "shared"
    """Matrices that read the same input (q, k, v) drop the same entries of it, or each its own."""
    towers: Annotated[list[Tower], Field(min_length=1), EachOnce] = ["vision", "text"]
    matrices: Annotated[list[Matrix], Field(min_length=1), EachOnce] = ["q", "k", "v"]
    layers: Annotated[list[Layer], Field(min_length=1, max_length=1000), EachOnce] | None = None
    """Blocks to adapt; negative numbers count from the last; all by default."""
    subspace: Subspace = Subspace(select="none")
    start: Start = KaimingStart(kind="kaiming")
    between: Between | None = None
    """What stands between the factors; nothing by default."""
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
        if self.start.kind in ("components", "inputs", "gradient", "variance") and confined:
            message = f"{self.start.kind} works with subspace.select: none, not {self.subspace.select}"
            raise refused(message, "start", "kind", because=[("subspace", "select")])
        return self

    @model_validator(mode="after")
    def _between_has_its_factors(self) -> Adapter:
        if self.between is None:
            return self
        if self.start.kind != "kaiming":
            message = f"{self.between.kind} works with start.kind: kaiming, not {self.start.kind}"
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
            message = f"{_idle(idle)} with kind: {self.kind}, only with kind: {kinds}"
            raise refused(message, idle[0], because=[("kind",)])
        return self

    @property
    def trained_whole(self) -> tuple[str, ...]:
        """Kinds of parameters that are trained as they are."""
        return tuple(self.whole or (get_args(Whole) if self.kind == "full" else ()))

    @property
    def scale(self) -> float:
        """s in y = W x + s·B′A′x."""
        alpha = self.alpha if self.alpha is not None else float(self.rank)
        return alpha / (self.rank if self.scaling == "alpha/rank" else self.rank**0.5)


class Memory(Section):
    """Images of earlier tasks that are trained on again."""

    kind: Literal["replay"]
    policy: Literal["class-balanced", "reservoir"] = "class-balanced"
    """Avalanche's storage policy: as many of every class, or a uniform sample of the task."""
    per_class: Count = 2
    """Images kept of every class seen (on average, with the reservoir)."""
    batch_size: Annotated[int, Field(ge=1, le=10_000)] = 16
    """Images drawn from the memory at every step, with replacement and beside the task's own batch."""
    weight: Annotated[float, Field(gt=0)] = 1.0


SweepValues = Annotated[list[float | int], Field(min_length=1, max_length=50), EachOnce]


class Strategy(Section):
    """How one method learns a stream."""

    name: Name
    description: str = ""
    adapter: Adapter
    regularisers: list[Regulariser] = []
    memory: Memory | None = None
    head: Head | None = None
    """Answers for learned classes in place of their texts; nothing but texts by default."""
    plugin: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*(:[A-Za-z_]\w*)?$")] | None = None
    """A plugin of your own: ``module:Class`` (a file beside this one, or installed) or the name of an entry
    point."""
    settings: dict[Text, Any] = {}
    """Handed to that plugin as it is."""
    optimiser: Optimiser | None = None
    schedule: Schedule = Schedule()
    training: Training = Training()
    sweep: Annotated[dict[Text, SweepValues], Field(max_length=20)] = {}
    """Values worth trying for a key path (``optimiser.lr: [1e-4, 1e-3]``); each must be one that the setting
    takes."""

    @field_validator("settings")
    @classmethod
    def _equal_to_themselves(cls, value: dict[str, Any]) -> dict[str, Any]:
        # What is not equal to itself could never be the setting that a run was begun with.
        for path, number in _numbers(value):
            if not math.isfinite(number):
                raise refused(f"must be a finite number, got {number}", *path)
        return value

    @field_validator("regularisers")
    @classmethod
    def _each_once(cls, value: list) -> list:
        kinds: list[str] = [part.kind for part in value]
        for index, kind in enumerate(kinds):
            if kind in kinds[:index]:
                first = kinds.index(kind)
                message = f"{kind!r} stands twice; each regulariser may stand once"
                raise refused(message, index, "kind", because=[(first, "kind")])
        return value

    @model_validator(mode="before")
    @classmethod
    def _no_schedule_by_default(cls, data: Any) -> Any:
        optimiser = data.get("optimiser") if isinstance(data, dict) else None
        if not isinstance(optimiser, dict) or optimiser.get("name") != "schedule-free":
            return data
        schedule = data.get("schedule", {})
        return {**data, "schedule": {"name": "constant", **schedule}} if isinstance(schedule, dict) else data

    @model_validator(mode="after")
    def _averages_once(self) -> Strategy:
        if self.optimiser is None or self.optimiser.name != "schedule-free":
            return self
        because = [("optimiser", "name")]
        if self.schedule.name != "constant":
            message = f"{self.schedule.name} does not go with optimiser.name: schedule-free; give constant"
            raise refused(message, "schedule", "name", because=because)
        if self.training.average_every is not None:
            message = "does not go with optimiser.name: schedule-free, which averages the weights itself"
            raise refused(message, "training", "average_every", because=because)
        return self

    @model_validator(mode="after")
    def _trains_or_not(self) -> Strategy:
        kind = self.adapter.kind
        if kind != "none" and self.optimiser is None:
            message = f"this section is missing; adapter kind {kind} trains weights and needs it"
            raise refused(message, "optimiser", because=[("adapter", "kind")])
        for name in self.optimiser.rates if self.optimiser is not None else ():
            idle = self._idle_rate(name)
            if idle:
                message = f"has no effect: {idle}"
                raise refused(message, "optimiser", "rates", name, because=[("adapter",)])
        plain = self.optimiser is None or (self.optimiser.name, self.optimiser.momentum) == ("sgd", 0)
        if self.adapter.full_gradient is not None and not (plain and not self.optimiser.weight_decay):
            message = (
                "must be sgd with momentum: 0 and weight_decay: 0 with adapter.full_gradient, which has "
                "moments of its own"
            )
            raise refused(message, "optimiser", "name", because=[("adapter", "full_gradient")])
        if self.training.weight_noise is not None and kind != "lowrank":
            message = f"works with adapter kind lowrank, not {kind}"
            raise refused(message, "training", "weight_noise", because=[("adapter", "kind")])
        if self.adapter.row_scale and self.optimiser is not None and self.optimiser.weight_decay > 0:
            message = "must be 0 with adapter.row_scale: true, whose row lengths it would pull to zero"
            raise refused(message, "optimiser", "weight_decay", because=[("adapter", "row_scale")])
        if self.settings and self.plugin is None:
            raise refused("has no effect without plugin", "settings", because=[("plugin",)])
        kinds = [part.kind for part in self.regularisers]
        orthogonal = kinds.index("orthogonal") if "orthogonal" in kinds else None
        if orthogonal is not None and kind != "lowrank":
            message = f"orthogonal works with adapter kind lowrank, not {kind}"
            raise refused(message, "regularisers", orthogonal, "kind", because=[("adapter", "kind")])
        if self.head is not None and self.training.stream != "sequential":
            message = f"works with training.stream: sequential, not {self.training.stream}"
            raise refused(message, "head", because=[("training", "stream")])
        if self.head is not None and self.head.kind in IN_WEIGHTS and kind != "none":
            message = (
                f"{self.head.kind} changes the weights itself and works with adapter kind none, not {kind}"
            )
            raise refused(message, "head", "kind", because=[("adapter", "kind")])
        if orthogonal is not None and self.adapter.row_scale:
            message = (
                "orthogonal does not go with adapter.row_scale: true, whose updates leave no factors behind"
            )
            raise refused(message, "regularisers", orthogonal, "kind", because=[("adapter", "row_scale")])
        idle = [part for part in ("optimiser", "regularisers", "memory", "plugin") if getattr(self, part)]
        if kind == "none" and idle:
            message = f"{_idle(idle)} with adapter kind none, which trains nothing"
            raise refused(message, idle[0], because=[("adapter", "kind")])
        return self

    @property
    def lr_is_used(self) -> bool:
        """Whether anything that is trained has the rate ``optimiser.lr`` rather than one of ``rates``."""
        if self.optimiser is None:
            return False
        named, adapter = set(self.optimiser.rates), self.adapter
        whole = adapter.kind == "full" and set(adapter.trained_whole) <= named
        return not (whole or set(adapter.towers) <= named)

    def _idle_rate(self, name: str) -> str:
        """Why nothing that is trained has the rate of this name; empty where something has."""
        adapter, rates = self.adapter, self.optimiser.rates
        if name not in get_args(Tower):
            whole = name in adapter.trained_whole
            return "" if whole else f"this strategy does not train {name} as a whole (see adapter.whole)"
        if name not in adapter.towers:
            return f"this strategy does not train the {name} tower (see adapter.towers)"
        # Tokens are the text tower's.
        whole = [kind for kind in adapter.trained_whole if (name, kind) != ("vision", "tokens")]
        if adapter.kind == "full" and not whole:
            return f"of the {name} tower this strategy trains nothing (see adapter.whole)"
        if adapter.kind == "full" and set(whole) <= set(rates):
            return f"all that is trained of the {name} tower has a rate of its own ({', '.join(whole)})"
        return ""


def _numbers(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], float]]:
    """Every number with a fraction in plain data, and where it stands."""
    if isinstance(value, float):
        yield path, value
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, entry in entries:
        yield from _numbers(entry, (*path, key))


def _idle(keys: list[str]) -> str:
    also = f" (nor {'has' if len(keys) == 2 else 'have'} {', '.join(keys[1:])})" if len(keys) > 1 else ""
    return f"has no effect{also}"
