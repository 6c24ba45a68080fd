"""What the sweep of `embedded` chose is what ships, but for the exceptions that docs/study-embedded.md gives
a reason for."""

from __future__ import annotations

from functools import reduce
from typing import Any

from builders.places import ROOT
from cl_complora.compare.results_files import Entry, read_entries
from cl_complora.config import load_strategy
from cl_complora.report.comparison.tables import told

PAGE = ROOT / "docs" / "study-embedded.md"


def shipped(entry: Entry) -> dict[str, float | str]:
    """The values that the strategy has for what was chosen."""
    strategy = load_strategy(entry.method).value
    return {key: reduce(_inner, key.split("."), strategy) for key in entry.chosen or {}}


def _inner(outer: Any, part: str) -> Any:
    if isinstance(outer, list):
        return outer[int(part)]
    return outer[part] if isinstance(outer, dict) else getattr(outer, part)


def test_what_ships_was_chosen_or_has_a_reason():
    section = PAGE.read_text(encoding="utf-8").split("### Where something else ships")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    others = {}
    for entry in read_entries(ROOT / "results", "embedded"):
        ships = shipped(entry)
        if ships != dict(entry.chosen or {}):
            others[entry.method] = [told((entry.chosen or {}).items()), told(ships.items())]
    assert {name: [chosen, ships] for name, chosen, ships, _ in rows[2:]} == others
    assert all(why for *_, why in rows[2:])
