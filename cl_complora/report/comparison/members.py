"""Which runs a comparison is made of, and which comparison a run belongs to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...errors import UserError
from ...files import digits, slug
from ...store import forms
from ...store.folder import RunDir
from ..elements import Cell
from ..reproduce import compare_command
from .form import ComparisonForm
from .tables import Content, failures, how_chosen, tables

COMPARISON = "comparison.json"
REPORT = "report.html"


def load_comparison(folder: Path) -> dict[str, Any]:
    """comparison.json of a folder.

    Raises:
        UserError: if it is damaged.
    """
    path = folder / COMPARISON
    try:
        found = forms.checked(path, ComparisonForm, forms.read_json(path))
        tables(found), how_chosen(found), failures(found), compare_command(found["request"])
        return found
    except UserError as error:
        told = error.messages[0]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        told = str(forms.damaged(path, error))
    raise UserError(f"{told}; the same compare command writes it again")


def run_folder(found: Content, folder: Path, method: dict[str, Any], seed: int) -> Path | None:
    """The folder of a tested run, where it is there: runs with other settings than their file's have one that
    says so.

    Args:
        found: content of comparison.json.
        folder: where that lies.
        method: one of its methods.
        seed: of the run.
    """
    settings, inside = [*(found["request"].get("strategy_settings") or ())], folder.resolve()
    settings += [f"{key}={digits(value)}" for key, value in dict(method["chosen"]).items()]
    for variant in (",".join(settings), ""):
        place = RunDir.of(folder.parent, folder.name, method["name"], seed, variant).root
        # A link may lead to where nobody meant this comparison to write.
        if not place.is_dir() or not place.resolve().is_relative_to(inside):
            continue
        if slug(folder.name) == folder.name and _ends_at(place, found, method, seed):
            return place
    return None


def _ends_at(place: Path, found: Content, method: dict[str, Any], seed: int) -> bool:
    """Whether a run is the one of the table, and not one with other settings in its place (a published result
    has no run here)."""
    told = dict(zip(found["request"]["seeds"], method["figures"].get("last", ()), strict=False))
    if told.get(seed) is None:
        return True
    try:
        results = RunDir(place).read_results()
    except UserError:  # damaged, which its own page tells
        return True
    if results is None:
        return True
    return results["last"] is not None and abs(100 * results["last"] - told[seed]) < 1e-6


def members(found: Content, folder: Path) -> Iterator[Path]:
    """The folders of all tested runs that are there."""
    for method in found["methods"].values():
        for seed in found["request"]["seeds"]:
            if (place := run_folder(found, folder, method, seed)) is not None:
                yield place


def comparison_of(run: Path) -> Path | None:
    """The folder of the comparison that a run was tested for; None where there is none, or a damaged one."""
    whole = Path(os.path.abspath(run))
    for folder in whole.parents[1:3]:  # above the strategy's folder, in which settings may have their own
        if (folder / COMPARISON).is_file():
            try:
                inside = set(members(load_comparison(folder), folder))
            except (UserError, KeyError, TypeError, ValueError, AttributeError):
                return None
            return folder if whole in inside else None
    return None


def way_back(folder: Path, page: Path) -> Cell:
    """The link from a run's report to that of its comparison."""
    return Cell(
        f"Comparison of {folder.name}, which this run belongs to", link=address(folder / REPORT, page)
    )


def address(file: Path, page: Path) -> str:
    """A file as a page beside it links to it."""
    there = os.path.relpath(file, page.parent).replace(os.sep, "/")
    return f"./{quote(there)}"
