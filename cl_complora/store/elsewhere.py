"""A run that goes on elsewhere: on another device, GPU or versions, where its bits become others."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

# Of a run's config.yaml: where it is computed. Threads are none of these: a run keeps the number it began
# with on any machine.
WHERE = ("software", "device", "gpu")

# What differs → what it was and what it is now.
Changes = dict[str, tuple[str, str]]


def take_places(before: MutableMapping[str, Any], now: MutableMapping[str, Any]) -> Changes:
    """Take out of both where they were computed, and say what differs.

    Args:
        before, now: content of config.yaml then, and of what it would be now.
    """
    then, here = ({key: side.pop(key, None) for key in WHERE} for side in (before, now))
    software, versions = ({**(side["software"] or {})} for side in (then, here))
    names = [*versions, *(name for name in software if name not in versions)]
    told = {name: (software.get(name, "none"), versions.get(name, "none")) for name in names}
    told["device"] = (str(then["device"]), str(here["device"]))
    # Earlier versions did not record the name of a GPU.
    if then["gpu"] is not None and here["gpu"] is not None:
        told["gpu"] = (then["gpu"], here["gpu"])
    return {name: pair for name, pair in told.items() if pair[0] != pair[1]}


def told(changes: Mapping[str, tuple[str, str]]) -> str:
    """``torch 2.6.0 → 2.7.1, gpu NVIDIA H100 → NVIDIA A100``, for people."""
    return ", ".join(f"{name} {was} → {is_now}" for name, (was, is_now) in changes.items())


def from_task_at_latest(steps: Sequence[dict[str, Any]], missing: Sequence[str]) -> list[dict[str, Any]]:
    """Earlier steps of a run that has to go further back than where it once went on elsewhere.

    Args:
        steps: of :func:`step_elsewhere`.
        missing: tasks (or ``zero-shot``) that are computed from now on, in order: after all of these steps.
    """
    return [step | {"from_task": missing[0]} if step["from_task"] in missing else step for step in steps]


def step_elsewhere(task: str, changes: Changes) -> dict[str, Any]:
    """What config.yaml and results.json say of it.

    Args:
        task: the first that ends there (``zero-shot``: the untouched model was not measured yet).
        changes: what differs.
    """
    return {"from_task": task, "changed": {name: list(pair) for name, pair in changes.items()}}
