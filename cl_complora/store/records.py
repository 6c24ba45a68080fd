"""What each task left on disk: read back, checked, up to the first that is missing or damaged."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..data import planning
from ..errors import UserError
from .folder import RunDir
from .forms import checked_record

# Retrieval set → direction → "R@1", "R@5", "R@10" → share of the queries.
Retrieval = dict[str, dict[str, dict[str, float]]]

_WHERE_MEASURED = ("retrieval", "by_shots", "multi_label", "training_accuracy")


@dataclass
class Record:
    """What one task (or, at index 0, the untouched model) measured."""

    row: list[float]
    zero_shot: dict[str, float]
    detail: dict[str, Any] = field(default_factory=dict)
    geometry: dict[str, dict[str, float]] = field(default_factory=dict)
    adapter_state: dict[str, Any] = field(default_factory=dict)
    curve: list[float] = field(default_factory=list)
    retrieval: Retrieval = field(default_factory=dict)
    by_shots: dict[str, dict[str, float]] = field(default_factory=dict)
    multi_label: dict[str, dict[str, float]] = field(default_factory=dict)
    training_accuracy: list[float] = field(default_factory=list)

    def content(self) -> dict[str, Any]:
        """What is written of it; retrieval, accuracy by shots, mAP and accuracy in training only where they
        were measured, as earlier versions wrote none."""
        return {key: value for key, value in vars(self).items() if key not in _WHERE_MEASURED or value}


def finished_records(
    folder: RunDir, plans: planning.Plans, tell: Callable[[str], None], heads: bool = False
) -> list[Record]:
    """Records of the zero-shot row and of every finished task, up to the first gap.

    Args:
        folder, plans: of the run.
        tell: told of a file that is damaged; its task is learned again.
        heads: whether every task that has classes leaves a head.
    """
    from .deltas import load_delta
    from .head_files import load_head

    records = []
    parts = (plans.tasks, plans.zero_shot, plans.measured_captions("test"), plans.multi_label)
    names = [[p.name for p in part] for part in parts]
    for index in range(len(plans.tasks) + 1):
        name = plans.tasks[index - 1].name if index else "zero-shot"
        record, delta = folder.record(index - 1, name), folder.delta(index - 1, name)
        if not record.exists() or (index and not delta.exists()):
            break
        try:
            data = checked_record(record, folder.read_json(record), *names)
            if index:
                load_delta(delta)
            if index and heads and not plans.tasks[index - 1].captioned:
                load_head(folder.head(index - 1, name))
        except UserError as error:
            tell(f"{error.messages[0]}; going on from {'before it' if index else 'the start'}")
            break
        for key in ("row", "curve", "training_accuracy"):
            data[key] = [_number(value) for value in data.get(key, [])]
        data["zero_shot"] = {name: _number(value) for name, value in data["zero_shot"].items()}
        data["retrieval"] = {
            name: {
                direction: {k: _number(value) for k, value in shares.items()}
                for direction, shares in both.items()
            }
            for name, both in data.get("retrieval", {}).items()
        }
        for key in ("by_shots", "multi_label"):
            data[key] = {
                one: {name: _number(value) for name, value in figures.items()}
                for one, figures in data.get(key, {}).items()
            }
        records.append(Record(**data))
    return records


def _number(value: float | None) -> float:
    return math.nan if value is None else value
