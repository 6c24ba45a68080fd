"""The README's two tables of figures are what `results/` says."""

from __future__ import annotations

import re

import numpy as np
import pytest

from builders.places import ROOT
from cl_complora.compare.method import Method, against
from cl_complora.compare.outcomes import Outcome
from cl_complora.compare.results_files import read_entries

README = (ROOT / "README.md").read_text(encoding="utf-8")


def table(head: str) -> dict[str, list[str]]:
    """Cells after the first of the table whose first line begins so, by the strategy that a row names."""
    lines = README.split(f"| {head}")[1].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return {re.search(r"`(.+?)`", row[0])[1]: row[1:] for row in rows}


@pytest.fixture(scope="module")
def tests() -> dict[str, list[Outcome]]:
    """Outcomes of the tests by strategy, in the order of their seeds."""
    entries = read_entries(ROOT / "results", "embedded")
    return {entry.method: [test for _, test in sorted(entry.tests().items())] for entry in entries}


def signed(value: float) -> str:
    text = f"{value:+.1f}".replace("-", "−")
    return text[1:] if text[1:] == "0.0" else text


def test_the_first_table_is_of_the_results(tests):
    found = table("seven tasks")
    assert len(found) == 5
    for name, cells in found.items():
        method = Method(name, ())
        method.describe(tests[name])
        told = []
        for metric in ("last", "forgetting", "retention"):
            values = np.asarray(method.figures[metric])
            mean = signed(values.mean()) if metric == "retention" else f"{values.mean():.1f}"
            told.append(mean + (f" ± {values.std(ddof=1):.1f}" if values.any() else ""))
        assert [cell.strip("*") for cell in cells] == told, name


def test_the_second_table_is_of_the_results_and_bold_where_they_show_it(tests):
    found = table("minus tuned LoRA")
    assert len(found) == 8
    for name, cells in found.items():
        told = []
        for d in against(tests[name], tests["lora"], ("last", "retention")).values():
            text = f"{signed(d.mean)} ({signed(d.low)} to {signed(d.high)})"
            told.append(f"**{text}**" if d.verdict in ("better", "worse") else text)
        assert cells == told, name
