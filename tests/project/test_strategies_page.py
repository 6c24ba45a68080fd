"""docs/strategies.md is what docs/write_strategies.py writes from today's files."""

from __future__ import annotations

import os
import subprocess
import sys

from builders.places import ROOT
from cl_complora.config.catalog import shipped

PAGE = ROOT / "docs" / "strategies.md"


def test_the_page_is_not_stale(tmp_path):
    written = tmp_path / "strategies.md"
    subprocess.run(
        [sys.executable, str(ROOT / "docs" / "write_strategies.py"), str(written)],
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=300,
    )
    assert written.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8"), (
        "docs/strategies.md is stale: python docs/write_strategies.py"
    )


def test_it_is_one_table_with_a_row_for_every_strategy():
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(shipped("strategy"))
    assert {row.count(" | ") for row in rows[2:]} == {rows[0].count(" | ")}
    assert all(any(f"](../strategies/{name}.yaml)" in row for row in rows) for name in shipped("strategy"))
