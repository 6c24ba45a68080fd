"""Views of a run whose tasks were trained together: none comes before another, so nothing is forgotten."""

from __future__ import annotations

import io
import json
import re

import pytest
from rich.console import Console

from builders.pages import read
from cl_complora import load_run
from cl_complora.config.recorded import learning_states
from cl_complora.report.html import write_report
from cl_complora.report.run.tables import show


@pytest.fixture(scope="module")
def loaded(joint_run):
    return load_run(joint_run)


def test_the_state_that_tasks_were_learned_in():
    assert learning_states({"strategy": {"training": {"stream": "joint"}}}, 3) == [1, 1, 1]
    assert learning_states({"strategy": {"training": {"stream": "sequential"}}}, 3) == [1, 2, 3]
    assert learning_states(None, 2) == [1, 2]


def test_the_report_frames_them_together(joint_run, tmp_path):
    page = read(write_report(joint_run, tmp_path / "page.html"))
    assert "trained together in place of the first" in page.text and "not been trained yet" not in page.text
    cells = [cell for cell in page.all("td") if "trained" in cell.get("class", "").split()]
    assert len(cells) == 2  # both tasks, in one row
    rows = re.findall(r"<tr.*?</tr>", (tmp_path / "page.html").read_text(), re.DOTALL)
    framed = [len(re.findall(r'<td class="[^"]*\btrained\b', row)) for row in rows]
    assert [count for count in framed if count] == [2]
    # None of them comes before another, so that no mean grows with the stream and nothing is forgotten.
    assert "Accuracy on the tasks trained so far" not in page.text
    assert "95 % interval" not in page.text.partition("BWT (")[2][:120]
    first, *_ = json.loads((joint_run / "results.json").read_text())["accuracy"][1:]
    assert f"{100 * first[1]:.1f} % after its own training" in page.text
    # What became of them is what they gained.
    assert (
        "so none came after another" in page.text
        and "Gains" in page.text
        and "The most forgotten" not in page.text
    )
    assert "Change since a task was just trained" not in page.text


def test_the_terminal_and_the_summary_show_no_interval_of_what_cannot_change(loaded):
    out = io.StringIO()
    console = Console(file=out, width=200, force_terminal=True, color_system="standard")
    show(console, loaded.results, [1, 1], loaded.paired)
    told = out.getvalue()
    bold = [line.count("\x1b[1m") for line in told.splitlines() if re.match(r"│ (warm|cold)", line)]
    assert bold == [2, 0], told
    assert "95 % interval" not in next(line for line in told.splitlines() if line.startswith("BWT"))
    assert not loaded.paired.tasks and "bwt_low" not in loaded.summary()


def test_figures_mark_all_tasks_in_the_state_after_training(loaded):
    curves, matrix = loaded.plot("curves"), loaded.plot("matrix")
    dots = [line.get_xdata()[0] for line in curves.axes[0].lines if line.get_marker() == "o"]
    assert dots == [1, 1]
    bold = [text.get_position()[1] for text in matrix.axes[0].texts if text.get_fontweight() == "bold"]
    assert bold == [1, 1]
