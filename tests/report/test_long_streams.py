"""What a page costs where the stream is long: nothing is read or looked at again for every pair."""

from __future__ import annotations

import numpy as np
import pytest

from cl_complora.analysis.mistakes import changes
from cl_complora.analysis.paired import paired_changes, set_curve, task_curve
from cl_complora.report.elements import Cell, Page, Section, Table, number
from cl_complora.report.run import figures
from cl_complora.report.tensorboard.layout import LEGIBLE
from cl_complora.store.folder import RunDir


def test_a_task_of_a_long_stream_is_drawn_alone():
    def size(tasks: int) -> int:
        rows = np.random.default_rng(0).uniform(size=(tasks + 1, tasks))
        return len(figures.task_curve(rows, 0, [f"task {n}" for n in range(tasks)], "x", 1))

    alone, among = size(LEGIBLE + 1), size(LEGIBLE)
    assert alone < among / 2 and size(4 * LEGIBLE) < 2 * alone


def test_what_every_state_shares_is_read_once(tiny_run, monkeypatch):
    folder, results = RunDir(tiny_run.folder), tiny_run.results
    config = folder.read_config()
    read: list[str] = []
    for name in ("read_config", "read_split", "read_labels"):
        inner = getattr(RunDir, name)
        monkeypatch.setattr(
            RunDir, name, lambda *words, inner=inner, name=name: read.append(name) or inner(*words)
        )
    curve = set_curve(folder, config, results, "colours")
    assert sorted(read) == ["read_labels", "read_split"]
    for state, change in enumerate(curve, start=1):
        seen = changes(folder, config, "colours", 0, state)
        assert (change.lost, change.images) == (len(seen.mistakes), seen.images)
        assert change.won - change.lost == seen.right_now - seen.right_earlier
    (since,) = task_curve(folder, config, results, 0)
    read.clear()
    paired = paired_changes(folder, results)
    assert read.count("read_config") == 1
    assert paired.tasks == {"warm": since} and paired.sets == {"colours": curve[-1]}
    assert task_curve(folder, config, results, 1) is None  # nothing was learned after it
    assert set_curve(folder, None, results, "colours") is None


def test_a_table_is_looked_through_once(monkeypatch):
    asked: list[str] = []
    inner = Table.numeric.fget
    monkeypatch.setattr(Table, "numeric", property(lambda table: asked.append(table.caption) or inner(table)))
    rows = [[Cell(f"row {n}"), number(n), Cell("–"), Cell("word")] for n in range(50)]
    table = Table("long", ["name", "number", "nothing", "word"], rows)
    page = Page("t", "k", {}, [Section("s", "S", [table])], "x").html()
    assert asked == ["long"] and table.numeric == [False, True, False, False]
    assert page.count('class="number"') == 51


@pytest.mark.parametrize("rows", [[], [[Cell("one"), Cell("–")]]])
def test_a_column_without_a_number_is_none_of_numbers(rows):
    assert Table("t", ["name", "number"], rows).numeric == [False, False]
