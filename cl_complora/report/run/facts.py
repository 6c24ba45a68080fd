"""The head of a run's report: what was run, when, how long it took, and the few settings that one asks for
first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ...data.telling import counted
from ...store.folder import RunDir
from ...store.loaded_run import LoadedRun
from ...store.moved import config_now
from ..elements import NOTHING
from ..reproduce import changed_settings


def facts(run: LoadedRun) -> dict[str, str]:
    """Name → what is told, in the order of the page; what a run does not know is left out."""
    results = run.results
    told: dict[str, str | None] = {
        "Model": model_of(run),
        "Stream": f"{counted(len(run.tasks), 'task')}, {_protocol(run)}",
        "Shots per class": shots(results["tasks_detail"]),
        "Rank": _rank((run.config or {}).get("strategy") or {}),
        "Learning rate": _rate((run.config or {}).get("strategy") or {}, results["tasks_detail"]),
        "Steps per task": _between([d.get("steps") for d in results["tasks_detail"]]),
        "Seed": str(results["seed"]),
        "Device": str(results["device"]),
        "Last task finished": finished(run.folder, run.tasks[: run.trained]),
        "Time": time_spent(results["tasks_detail"]),
        "State": "finished" if run.done else f"{run.trained} of {len(run.tasks)} tasks done",
        "Changed by --set": _changed(run),
    }
    return {name: text for name, text in told.items() if text}


def model_of(run: LoadedRun) -> str:
    """Name and pretraining of the model, once where they are the same."""
    names = (run.results["model"].get(key) for key in ("name", "pretrained"))
    return " ".join(dict.fromkeys(str(name) for name in names if name)) or NOTHING


def _protocol(run: LoadedRun) -> str:
    if run.independent:
        return "each from the pretrained weights"
    return str(run.config["scenario"].get("protocol", "")) if run.config else "one after the other"


def shots(details: Sequence[dict[str, Any]]) -> str | None:
    """``8``, ``2–16``, ``all images``, ``8 or all images``: training images per class of those
    tasks that have classes."""
    given = [d["shots"] for d in details if "shots" in d and d.get("classes", 1)]
    counts = [n for count in given for n in (count if isinstance(count, list) else [count])]
    drawn = _between([n for n in counts if n is not None])
    every = "all images" if None in counts else None
    return " or ".join(part for part in (drawn, every) if part) or None


def _between(counts: list[Any]) -> str | None:
    """``8`` or ``2–16``; None where any is unknown."""
    if not counts or not all(isinstance(count, int) for count in counts):
        return None
    return "–".join(f"{count:,}" for count in sorted({min(counts), max(counts)}))


def _rank(strategy: dict[str, Any]) -> str | None:
    adapter = strategy.get("adapter") or {}
    if adapter.get("kind") != "lowrank":
        return None
    ends = dict.fromkeys(str(adapter[key]) for key in ("rank", "rank_last") if adapter.get(key) is not None)
    return " to ".join(ends) or None


def _rate(strategy: dict[str, Any], details: list[dict[str, Any]]) -> str | None:
    """``0.001 (text 0.004)``; none where nothing is trained by steps."""
    optimiser = strategy.get("optimiser") or {}
    if optimiser.get("lr") is None or not any(d.get("steps") for d in details):
        return None
    others = [f"{name} {rate:g}" for name, rate in (optimiser.get("rates") or {}).items()]
    return f"{optimiser['lr']:g}" + (f" ({', '.join(others)})" if others else "")


def finished(folder: RunDir, tasks: Sequence[str]) -> str | None:
    """When the record of the last of these tasks was written, which happens once; by this machine's clock."""
    if not tasks:
        return None
    try:
        written = folder.record(len(tasks) - 1, str(tasks[-1])).stat().st_mtime
    except OSError:  # a run without its records still has a report
        return None
    return datetime.fromtimestamp(written).strftime("%Y-%m-%d %H:%M")


def time_spent(details: Sequence[dict[str, Any]]) -> str | None:
    """Seconds of training and of measuring over the tasks, in words."""
    spent = [
        (name, sum(d.get(key) or 0 for d in details))
        for name, key in (("training", "train_seconds"), ("measuring", "eval_seconds"))
    ]
    return ", ".join(f"{_span(seconds)} {name}" for name, seconds in spent if seconds > 0) or None


def _span(seconds: float) -> str:
    """``48 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _changed(run: LoadedRun) -> str | None:
    """What was set otherwise than the two files say: a run of two steps is not the strategy as it stands."""
    if not (run.config and run.config.get("strategy")):
        return None
    return ", ".join(changed_settings(config_now(run.folder.root, run.config)) or []) or None


def count_head(run: LoadedRun) -> str:
    """Head of the column that numbers the states of a run: a model of independent tasks has learned one."""
    return "model" if run.independent else "tasks learned"
