"""The tables of a comparison as they are published: bold best figures, accuracy by task, LaTeX."""

from __future__ import annotations

import re

import pytest

from cl_complora.report.comparison.latex_table import escaped, latex_table
from cl_complora.report.comparison.saving import markdown, save
from cl_complora.report.comparison.tables import tables


def method(name: str, last: list[float], forgetting: list[float], retention: list[float], chosen=()) -> dict:
    per_task = [
        {"seed": seed, "task": task, "learned": value + 5, "last": value + shift, "norm": 1.0}
        for seed, value in enumerate(last)
        for task, shift in (("a", -1.0), ("b", 1.0))
    ]
    figures = {"last": last, "forgetting": forgetting, "retention": retention}
    return {
        "name": name, "chosen": dict(chosen), "curve": [], "figures": figures, "differences": {},
        "budget": {}, "updates": {}, "per_task": per_task, "failed": [],
    }  # fmt: skip


def comparison(*methods: dict, scenario: str = "my_stream") -> dict:
    request = {"seeds": list(range(len(methods[0]["figures"]["last"]))), "sweep": None, "floor": None}
    return {
        "scenario": scenario, "reference": methods[0]["name"], "request": request,
        "methods": {m["name"]: m for m in methods},
    }  # fmt: skip


LORA = method("lora-r8", [80.0, 82.0], [3.0, 5.0], [-2.0, -1.0])
OURS = method("ours", [85.0, 83.0], [1.0, 1.0], [-0.5, 0.1])


def test_the_best_of_a_column_is_marked_whichever_way_it_counts():
    table = tables(comparison(LORA, OURS))["Accuracy"]
    marked = {
        head: [row[0].text for row in table.rows if row[place].mark == "best"]
        for place, head in enumerate(table.head)
    }
    assert marked["Last"] == marked["forgetting"] == marked["retention"] == ["ours"]
    assert not marked["method"] and not marked["Average"]


def test_what_is_shown_as_the_same_is_marked_alike_and_one_method_is_no_best():
    same = method("same", [84.04, 84.0], [1.0, 1.0], [-0.2, -0.2])
    table = tables(comparison(LORA, OURS, same))["Accuracy"]
    last = table.head.index("Last")
    assert [row[last].mark for row in table.rows] == ["", "best", "best"]
    assert not any(cell.mark for row in tables(comparison(LORA))["Accuracy"].rows for cell in row)


def test_accuracy_by_task_and_method():
    table = tables(comparison(LORA, OURS))["Last by task"]
    assert table.head == ["method", "a", "b"]
    assert [cell.value for cell in table.rows[0][1:]] == [80.0, 82.0]
    assert [cell.mark for cell in table.rows[1]] == ["", "best", "best"]
    older = comparison(LORA | {"per_task": [{"seed": 0, "task": "a", "norm": 1.0}]})
    assert "Last by task" not in tables(older)


def test_markdown_has_the_best_in_bold():
    page = markdown(comparison(LORA, OURS))
    assert "**84.0 ± 1.4**" in page and "## Last by task" in page


def test_the_latex_table_can_be_published_as_it_is():
    text = latex_table(comparison(LORA, OURS))
    assert text.startswith(
        "% needs \\usepackage{booktabs}\n\\begin{table}[t]\n\\centering\n\\caption{2 methods on"
    )
    assert r"\texttt{my\_stream}" in text and r"\label{tab:my-stream}" in text
    assert r"Last $\uparrow$" in text and r"forgetting $\downarrow$" in text and "chosen" not in text
    assert r"\textbf{84.0} $\pm$ 1.4" in text and r"$-$1.5 $\pm$ 0.7" in text and "lora-r8 &" in text
    assert text.count("\\begin") == text.count("\\end") == 2
    assert not re.search(r"[^\x00-\x7f]", text)
    columns = re.search(r"\\begin{tabular}{(l+r+)}", text)[1]
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in rows} == {len(columns) - 1}
    swept = comparison(method("lora", [1.0], [0.0], [0.0], chosen=[("optimiser.lr", 0.001)]), OURS)
    assert "chosen" in latex_table(swept) and "lr=0.001" in latex_table(swept)


@pytest.mark.parametrize(
    "text, shown",
    [
        ("a_b{c}$d^e~f", r"a\_b\{c\}\$d\textasciicircum{}e\textasciitilde{}f"),
        ("back\\slash", r"back\textbackslash{}slash"),
        ("-1.5 [+0.2, -3.0]", "$-$1.5 [+0.2, $-$3.0]"),
        ("lora-8 lr=1e-05", "lora-8 lr=1e-05"),
        ("image→text ≥ 5 %", r"image$\to$text $\geq$ 5 \%"),
    ],
)
def test_names_are_escaped_and_signs_are_minus_signs(text, shown):
    assert escaped(text) == shown


def test_change_by_task_since_it_was_just_trained():
    table = tables(comparison(LORA, OURS))["Change by task"]
    assert table.head == ["method", "a"]  # the task trained last has had no time to change
    assert [row[1].text for row in table.rows] == ["-6.0 ± 0.0", "-6.0 ± 0.0"]
    older = comparison(LORA | {"per_task": [{"seed": 0, "task": t, "norm": 1.0} for t in "ab"]})
    assert "Change by task" not in tables(older)


def test_a_zero_has_no_sign():
    still = method("still", [80.0, 80.0], [0.0, 0.0], [-0.01, 0.0])
    still["differences"] = {"last": {"mean": -0.04, "low": -0.5, "high": 0.01, "verdict": "not shown"}}
    made = tables(comparison(LORA, still))
    told = [cell.text for row in (*made["Accuracy"].rows, *made["Paired differences"].rows) for cell in row]
    assert "0.0 [-0.5, 0.0]" in told and "0.0 ± 0.0" in told
    assert not any(re.search(r"[-+]0\.0\b", text) for text in told)


def test_what_was_not_swept_has_no_column():
    assert "chosen" not in tables(comparison(LORA, OURS))["Accuracy"].head
    swept = method("swept", [80.0, 80.0], [0.0, 0.0], [0.0, 0.0], {"optimiser.lr": 0.1}.items())
    table = tables(comparison(LORA, swept))["Accuracy"]
    assert [row[1].text for row in table.rows] == ["–", "lr=0.1"] and table.head[1] == "chosen"


def test_nothing_swept_leaves_no_table_of_a_sweep(tmp_path):
    (tmp_path / "comparison-sweep.csv").write_text("of an earlier comparison")
    written = save(comparison(LORA, OURS), tmp_path)
    assert not (tmp_path / "comparison-sweep.csv").exists()
    assert all(path.is_file() and path.stat().st_size > 1 for path in written)


def test_names_and_reasons_are_text_in_markdown():
    hostile = "a\\| <script>alert(1)</script>\n# [x](http://x) **b** \x1b[2J"
    strange = method(hostile, [80.0, 80.0], [0.0, 0.0], [0.0, 0.0]) | {"failed": [hostile]}
    text = markdown(comparison(LORA, strange, scenario=hostile))
    assert not re.search(r"<script|\x1b|^# \[|\*\*b|\]\(http", text, re.MULTILINE)
    rows = [line for line in text.partition("## Last")[0].splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 2 and len({row.count("|") for row in rows}) == 1
    assert "| **81.0 ± 1.4** |" in text
