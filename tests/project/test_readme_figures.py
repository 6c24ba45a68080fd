"""The README's two tables of figures are what `results/` says."""

from __future__ import annotations

import re
from functools import cache

import numpy as np

from builders.places import ROOT
from cl_complora.compare.method import Method, against
from cl_complora.compare.outcomes import Outcome
from cl_complora.compare.results_files import place, read_entry
from cl_complora.report.comparison.tables import plus_minus

README = (ROOT / "README.md").read_text(encoding="utf-8")


def table(head: str) -> dict[str, list[str]]:
    """Cells after the first of the table whose first line begins so, by the strategy that a row names."""
    lines = README.split(f"| {head}")[1].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return {re.search(r"`(.+?)`", row[0])[1]: row[1:] for row in rows}


@cache
def outcomes(strategy: str, folder: str = "results") -> list[Outcome]:
    """What its tests found, in the order of their seeds."""
    entry = read_entry(place(ROOT / folder, "embedded", strategy))
    return [test for _, test in sorted(entry.tests().items())]


def signed(value: float) -> str:
    text = f"{value:+.1f}".replace("-", "−")
    return text[1:] if text[1:] == "0.0" else text


def test_the_first_table_is_of_the_results():
    found = table("seven tasks")
    assert len(found) == 5
    for name, cells in found.items():
        method = Method(name, ())
        method.describe(outcomes(name))
        told = []
        for metric in ("last", "forgetting", "retention"):
            values = method.figures[metric]
            mean = signed(np.mean(values)) if metric == "retention" else f"{np.mean(values):.1f}"
            told.append(mean + plus_minus(values) if any(values) else mean)
        assert [cell.strip("*") for cell in cells] == told, name


def test_the_second_table_is_of_the_results_and_bold_where_they_show_it():
    found = table("minus tuned LoRA")
    assert len(found) == 8
    for name, cells in found.items():
        told = []
        for lora in (outcomes("lora"), outcomes("lora", "benchmarks/steps/160")):
            for d in against(outcomes(name), lora, ("last", "retention")).values():
                text = f"{signed(d.mean)} ({signed(d.low)} to {signed(d.high)})"
                told.append(f"**{text}**" if d.verdict in ("better", "worse") else text)
        assert cells == told, name
