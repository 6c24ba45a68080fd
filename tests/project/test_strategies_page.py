"""docs/strategies.md, which docs/write_strategies.py writes, is whole."""

from __future__ import annotations

from builders.places import ROOT
from cl_complora.config.catalog import shipped

PAGE = ROOT / "docs" / "strategies.md"


def test_it_is_one_table_with_a_row_for_every_strategy():
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(shipped("strategy"))
    assert {row.count(" | ") for row in rows[2:]} == {rows[0].count(" | ")}
    assert all(any(f"](../strategies/{name}.yaml)" in row for row in rows) for name in shipped("strategy"))
