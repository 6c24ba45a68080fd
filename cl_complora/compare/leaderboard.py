"""All methods with published results on a scenario, by Last, against a reference and the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..config.about import BOUNDS, UNTOLD
from ..config.catalog import shipped
from ..config.faults import suggest
from ..errors import UserError
from ..files import slug
from ..report.comparison.tables import front, told
from .method import Method, against
from .outcomes import Outcome
from .results_files import Entry, is_current, place, read_entries
from .statistics import Difference

# What methods are compared with where nobody says another: one that a folder may well lack.
REFERENCE = "lora"
# What they are compared in.
COMPARED = ("last",)


def scenarios(folder: Path) -> list[str]:
    """Scenarios that have results, by name.

    Raises:
        UserError: where there are none, and for a folder that no scenario has by its name.
    """
    found = [child.name for child in sorted(folder.iterdir()) if child.is_dir() and any(child.glob("*.json"))]
    if odd := next((name for name in found if name != slug(name)), None):
        raise UserError(f"{folder / odd}: must be called '{slug(odd)}', as compare --publish calls it")
    if not found:
        raise UserError(f"{folder}: holds no results (SCENARIO/METHOD.json); compare --publish writes them")
    return found


def leaderboard(folder: Path, scenario: str, reference: str = REFERENCE) -> dict[str, Any]:
    """What a leaderboard shows of one scenario.

    Differences of Last are paired by seed and task, over the seeds that both have.

    Args:
        folder: of results.
        scenario: its name, or that of its folder.
        reference: method that all are compared with; there are no differences to one that has no results
            here, as it may on other scenarios.

    Returns:
        ``rows`` by descending Last, each with ``name``, ``kind``, ``source``, ``seeds``, ``swept``,
        ``stale``, ``chosen``, ``figures``, ``budget``, ``updates``, ``against_reference``, ``against_best``
        and ``front`` (on the front of Last against retention); ``best``, the method with the highest Last
        that is no bound; ``missing``, the methods that ship and have no results, of a scenario that ships.

    Raises:
        UserError: where there are no results, or a file of them is damaged; for a reference that has none on
            any scenario.
    """
    entries = read_entries(folder, scenario)
    if not entries:
        raise UserError(f"{folder / slug(scenario)}: holds no results; compare --publish writes them")
    scenario = entries[0].scenario  # not that of its folder, which has no spaces
    tests = {entry.method: entry.tests() for entry in entries}
    if reference != REFERENCE and reference not in tests:
        _refuse_unknown(folder, reference)
    ours = _of_one_stream(scenario, entries)
    rows = [_row(entry, tests[entry.method], entry.method not in ours) for entry in entries]
    rows.sort(key=lambda row: (row["stale"], -np.mean(row["figures"]["last"])))
    current = {row["name"] for row in rows if not row["stale"]}
    best = next((row["name"] for row in rows if row["kind"] not in BOUNDS and not row["stale"]), None)
    for row in rows:
        for key, other in (("against_reference", reference), ("against_best", best)):
            row[key] = {}
            # Of what was made on another stream, or with settings that have changed since, no difference says
            # anything.
            if other != row["name"] and {other, row["name"]} <= current:
                found = _paired(tests[row["name"]], tests[other])
                row[key] = {metric: asdict(difference) for metric, difference in found.items()}
    _mark_front(rows)
    # A stream of one's own was not made to have them all.
    wanted = set(shipped("strategy")) if scenario in shipped("scenario") else set()
    return {
        "scenario": scenario,
        "reference": reference if reference in current else None,
        "best": best,
        "rows": rows,
        "missing": sorted(wanted - tests.keys()),
    }


def _refuse_unknown(folder: Path, reference: str) -> None:
    """Refuse a method that has results on no scenario: it is misspelt."""
    names = scenarios(folder)
    if any(place(folder, name, reference).is_file() for name in names):
        return
    known = sorted({path.stem for name in names for path in (folder / name).glob("*.json")})
    raise UserError(
        f"--reference {reference}: has no results in {folder}, which has those of {', '.join(known)}"
        f"{suggest(reference, known)}"
    )


def _of_one_stream(scenario: str, entries: Sequence[Entry]) -> set[str]:
    """Methods whose entries are current and were made on the stream that the rows are about: the scenario as
    it ships, or where nobody knows it as most of them were made on it, of equals the last."""
    current = [entry for entry in entries if is_current(entry)]
    as_shipped = [_stream_of(entry) for entry in current if not entry.asked.scenario_settings]
    known = as_shipped and scenario in shipped("scenario")
    among = as_shipped if known else [_stream_of(entry) for entry in entries]
    stream = max(reversed(among), key=among.count)
    return {entry.method for entry in current if _stream_of(entry) == stream}


def _stream_of(entry: Entry) -> tuple[str, str]:
    return entry.fingerprint.scenario, entry.fingerprint.weights


def _row(entry: Entry, tests: dict[int, Outcome], stale: bool) -> dict[str, Any]:
    method = Method(entry.method, tuple(entry.chosen.items()))
    method.describe(list(tests.values()))
    settings = (*entry.asked.scenario_settings, *entry.asked.strategy_settings)
    return {
        "name": entry.method,
        "kind": entry.kind or UNTOLD,
        "source": entry.source,
        "seeds": sorted(tests),
        "swept": any(run.validation for run in entry.trials),
        "stale": stale,
        "chosen": told(method.chosen),
        "set": told(setting.partition("=")[::2] for setting in settings),
        "figures": method.figures,
        "budget": method.budget,
        "updates": method.updates,
    }


def _paired(ours: dict[int, Outcome], other: dict[int, Outcome]) -> dict[str, Difference]:
    # Somebody's own pictures may have become others between two methods' runs.
    seeds = sorted(s for s in ours.keys() & other.keys() if _images_of(ours[s]) == _images_of(other[s]))
    return against([ours[s] for s in seeds], [other[s] for s in seeds], COMPARED) if seeds else {}


def _images_of(test: Outcome) -> list[str]:
    """What every task's images are known by."""
    return [detail["split_sha256"] for detail in test.results["tasks_detail"]]


def _mark_front(rows: Sequence[dict[str, Any]]) -> None:
    """Those that no other current method equals in Last and retention and beats in one."""
    points = {
        row["name"]: tuple(float(np.mean(row["figures"][key])) for key in ("retention", "last"))
        for row in rows
        if not row["stale"] and row["kind"] not in BOUNDS
    }
    best = front(list(points.values()))
    for row in rows:
        row["front"] = points.get(row["name"]) in best
