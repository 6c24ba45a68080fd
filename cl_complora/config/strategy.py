"""Schema of a strategy: how the model learns the tasks, composed of parts rather than chosen by name."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from .about import About
from .adaptation import Adapter
from .base import Count, EachOnce, Name, Section, Text, form, idle_keys, refused
from .factors import FIXED_A
from .heads import IN_WEIGHTS, Head, contrasts
from .parts_together import looks_back, of_a_alone, refuse_directions_counted_twice, refuse_long_intervals
from .penalties import Regulariser
from .training import Optimiser, Schedule, Tower, Training


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
    """Of the memory's loss beside that of the task's own batch."""


# Why nothing that looks back over a task's steps goes with what stands between the factors.
_ZEROED = "which sets entries to zero that an average over steps would bring back"
_CHANGED_BETWEEN_STEPS = {
    "boosters": "whose factors begin anew within a task",
    "gates": _ZEROED,
    "budget": _ZEROED,
}
# Regularisers whose teacher is the model before the task.
_OF_THE_MODEL_BEFORE = ("lwf", "similarities", "sentences", "consistency", "regions", "crops")
_DISTURBED = "whose teacher is the model before the task and would be disturbed as well"
# Regularisers of how far the weights are from others.
_OF_WEIGHTS = ("ewc", "l2-init")
# Settings that nothing but training steps read (weight_noise is refused without low-rank factors).
_OF_STEPS = (
    *("steps", "batch_size", "label_smoothing", "prompts", "precision", "average_every", "compile"),
    *("chunk", "checkpointing", "remember", "on_nan"),
)
UNTRAINED = "with adapter kind none, which trains nothing"
_STILL = "with adapter.towers: [text], which leaves the image tower as it is", "towers"

_PluginName = Annotated[
    str,
    form(
        r"^[A-Za-z_]([\w.]*:[A-Za-z_]\w*|[\w.-]*)$",
        "have the form module:Class, or be the name of an entry point (letters, digits, . _ -)",
    ),
]
SweepValues = Annotated[list[float | int], Field(min_length=1, max_length=50), EachOnce]


class Strategy(Section):
    """How one method learns a stream."""

    name: Name
    """What runs, folders and reports call it."""
    description: str = ""
    """A few words for lists of strategies."""
    about: About | None = None
    """Kind, source and check of the method, for lists of strategies."""
    adapter: Adapter
    """Which weights move, and in which shape."""
    regularisers: list[Regulariser] = []
    """What is added to the loss, each kind at most once."""
    memory: Memory | None = None
    """Images of earlier tasks to train on again; none by default."""
    head: Head | None = None
    """Answers for learned classes in place of their texts; nothing but texts by default."""
    plugin: _PluginName | None = None
    """A plugin of your own: ``module:Class`` (a file beside this one, or installed) or the name of an entry
    point."""
    settings: dict[Text, Any] = {}
    """Handed to that plugin as it is."""
    optimiser: Optimiser | None = None
    """How trained weights are updated; needed unless ``adapter.kind`` is ``none``."""
    schedule: Schedule = Schedule()
    """The learning rate over the steps of a task."""
    training: Training = Training()
    """Budget and loss of a task."""
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

    @model_validator(mode="before")
    @classmethod
    def _head_contrasts_as_said(cls, data: Any) -> Any:
        # The default of training.classes is the towers', from which a head's differs; a word is for both.
        parts = [data.get(key) for key in ("head", "training")] if isinstance(data, dict) else []
        if not parts or not all(isinstance(part, dict) for part in parts):
            return data
        head, said = parts[0], parts[1].get("classes")
        if said not in ("task", "seen") or not contrasts(head) or head.get("classes", "auto") != "auto":
            return data
        return {**data, "head": {**head, "classes": said}}

    @model_validator(mode="after")
    def _untouched_tower_is_another(self) -> Strategy:
        still = self.adapter.kind == "none" or "vision" not in self.adapter.towers
        if still and getattr(self.head, "with_untouched", False):
            told, key = (UNTRAINED, "kind") if self.adapter.kind == "none" else _STILL
            message = f"has no effect {told}"
            raise refused(message, "head", "with_untouched", because=[("adapter", key)])
        return self

    @model_validator(mode="after")
    def _drift_is_of_towers_that_move(self) -> Strategy:
        if self.head is not None and "drift" in self.head.model_fields_set and self.adapter.kind == "none":
            message = f"has no effect {UNTRAINED}"
            raise refused(message, "head", "drift", because=[("adapter", "kind")])
        return self

    @model_validator(mode="after")
    def _nothing_lasts_longer_than_a_step(self) -> Strategy:
        kind = self.adapter.between_kind
        part, told, why = "between", f"between.kind: {kind}", _CHANGED_BETWEEN_STEPS.get(kind)
        if why is None and self.adapter.pruning is not None:
            part, told, why = "pruning", "pruning", _ZEROED
        if why is None:
            return self
        message, because = f"does not go with adapter.{told}, {why}", [("adapter", part)]
        if self.training.average_every is not None:
            raise refused(message, "training", "average_every", because=because)
        # A step size that was found for some factors is not that of the next ones.
        unfit = ("schedule-free", "prodigy") if kind == "boosters" else ("schedule-free",)
        if self.optimiser is not None and self.optimiser.name in unfit:
            raise refused(f"{self.optimiser.name} {message}", "optimiser", "name", because=because)
        return self

    @model_validator(mode="after")
    def _inputs_are_seen(self) -> Strategy:
        experts = self.adapter.between_kind == "experts"
        part = "between" if experts else "pruning" if self.adapter.pruning is not None else None
        # Experts are picked once a step, and a block that is computed again would pick anew.
        ways = ("compile", "chunk", "checkpointing") if experts else ("compile", "chunk")
        other = next((key for key in ways if getattr(self.training, key)), None)
        if part is not None and other is not None:
            message = f"does not go with adapter.{part}, which looks at the inputs of a batch's matrices"
            raise refused(message, "training", other, because=[("adapter", part)])
        return self

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
        if self.adapter.row_scale and self.optimiser is not None and self.optimiser.weight_decay > 0:
            message = "must be 0 with adapter.row_scale: true, whose row lengths it would pull to zero"
            raise refused(message, "optimiser", "weight_decay", because=[("adapter", "row_scale")])
        if self.settings and self.plugin is None:
            raise refused("has no effect without plugin", "settings", because=[("plugin",)])
        kinds = [part.kind for part in self.regularisers]
        orthogonal = kinds.index("orthogonal") if "orthogonal" in kinds else None
        for place, part in enumerate(kinds):
            if part in ("orthogonal", "orthonormal") and kind != "lowrank":
                message = f"{part} works with adapter kind lowrank, not {kind}"
                raise refused(message, "regularisers", place, "kind", because=[("adapter", "kind")])
            if part == "apart" and self.adapter.between_kind != "experts":
                message = "apart works with adapter.between.kind: experts alone"
                raise refused(message, "regularisers", place, "kind", because=[("adapter", "between")])
            fixed = kind == "lowrank" and self.adapter.start.kind in FIXED_A
            if fixed and (part == "orthonormal" or of_a_alone(self.regularisers[place])):
                message = f"{part} does not go with start.kind: {self.adapter.start.kind}, whose A is fixed"
                raise refused(message, "regularisers", place, "kind", because=[("adapter", "start")])
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
        if kind == "none" and self.training.loss.kind != "classes":
            message = f"{self.training.loss.kind} has no effect {UNTRAINED}"
            raise refused(message, "training", "loss", because=[("adapter", "kind")])
        idle = [part for part in ("optimiser", "regularisers", "memory", "plugin") if getattr(self, part)]
        if kind == "none" and idle:
            message = f"{idle_keys(idle)} {UNTRAINED}"
            raise refused(message, idle[0], because=[("adapter", "kind")])
        return self

    @model_validator(mode="after")
    def _steps_are_the_full_gradients(self) -> Strategy:
        optimiser = self.optimiser
        if self.adapter.full_gradient is None or optimiser is None:
            return self
        because = [("adapter", "full_gradient")]
        if (optimiser.name, optimiser.momentum, optimiser.weight_decay) != ("sgd", 0, 0):
            message = (
                "must be sgd with momentum: 0 and weight_decay: 0 with adapter.full_gradient, which has "
                "moments of its own"
            )
            raise refused(message, "optimiser", "name", because=because)
        if optimiser.clip_norm is not None:
            message = (
                f"must be null with adapter.full_gradient, got {optimiser.clip_norm:g}: directions stand in "
                "place of gradients, and their length is that of the step"
            )
            raise refused(message, "optimiser", "clip_norm", because=because)
        return self

    @model_validator(mode="after")
    def _noise_disturbs_the_student_alone(self) -> Strategy:
        if self.training.weight_noise is None:
            return self
        if self.adapter.kind != "lowrank":
            message = f"works with adapter kind lowrank, not {self.adapter.kind}"
            raise refused(message, "training", "weight_noise", because=[("adapter", "kind")])
        told = {
            **dict.fromkeys(_OF_WEIGHTS, "which reads the weights while the noise is on them"),
            **dict.fromkeys(_OF_THE_MODEL_BEFORE, _DISTURBED),
        }
        for place, part in enumerate(self.regularisers):
            if part.kind in told:
                message = f"does not go with the regulariser {part.kind}, {told[part.kind]}"
                raise refused(message, "training", "weight_noise", because=[("regularisers", place, "kind")])
        return self

    @model_validator(mode="after")
    def _earlier_tasks_are_looked_back_on(self) -> Strategy:
        if self.training.stream != "joint":
            return self
        message = "has no effect with training.stream: joint, which trains once and has no earlier tasks"
        because = [("training", "stream")]
        if self.memory is not None:
            raise refused(message, "memory", because=because)
        for place, part in enumerate(self.regularisers):
            if looks_back(part):
                raise refused(f"{part.kind} {message}", "regularisers", place, "kind", because=because)
        return self

    @model_validator(mode="after")
    def _parts_do_what_they_say(self) -> Strategy:
        refuse_directions_counted_twice(self.adapter, self.regularisers)
        refuse_long_intervals(self.adapter, self.training)
        return self

    def carries_head(self, protocol: str | None) -> bool:
        """Whether ``head.drift`` is at work: one head answers for all tasks, one after another, on an image
        tower that may move.

        Args:
            protocol: of the scenario.
        """
        shared = protocol == "class-incremental" and self.training.stream == "sequential"
        moves = self.adapter.kind != "none" and "vision" in self.adapter.towers
        return shared and moves and hasattr(self.head, "drift")

    @property
    def idle_of_steps(self) -> list[tuple[str, ...]]:
        """Key paths of what is said of training steps although there are none.

        No validator refuses them: what a comparison sets for all of its strategies may say so of one that
        trains nothing.
        """
        if self.adapter.kind != "none":
            return []
        # Nothing but a head that is trained asks then which classes are contrasted.
        asked = self.head is not None and contrasts(self.head.model_dump())
        unread = _OF_STEPS if asked else (*_OF_STEPS, "classes")
        said = [("training", key) for key in unread if key in self.training.model_fields_set]
        return said + [("schedule",)] * ("schedule" in self.model_fields_set)

    @property
    def loss_classes(self) -> Literal["task", "seen"]:
        """What ``training.classes`` comes to for the towers.

        Those that see no image of a class can only push its text away from everything. A head has rows of its
        own for it, which stay: its rule is ``head.classes``.
        """
        if self.training.classes != "auto":
            return self.training.classes
        # Somebody's plugin may bring images of earlier tasks.
        alone = self.memory is None and self.plugin is None and self.training.stream == "sequential"
        return "task" if alone and self.adapter.kind != "none" else "seen"

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
