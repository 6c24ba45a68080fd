"""The page of the leaderboard: what it names, what it marks, what it leaves out of the drawing."""

from __future__ import annotations

import re

import pytest

from builders.boards import board
from builders.pages import Reader
from cl_complora.report.comparison import figures
from cl_complora.report.leaderboard import leaderboard_page, markdown

COSTS = "Against the best, and what they cost on tiny"


def test_two_tables_instead_of_one_that_no_screen_holds():
    page = Reader(leaderboard_page([board(4)]).html())
    results, costs = page.tables["Methods on tiny"], page.tables[COSTS]
    heads = [text for text, _ in results[0]]
    # What says which methods differ is seen in a narrow window too.
    assert heads[:3] == ["method", "Last", "Last minus method-2"] and heads[-2:] == ["retention", "kind"]
    assert [text for text, _ in costs[0]][:4] == ["method", "kind", "Last minus method-1", "‖ΔW‖"]
    assert [row[0] for row in results[1:]] == [row[0] for row in costs[1:]]
    # Both can be filtered by kind.
    html = leaderboard_page([board(4)]).html()
    assert re.findall(r'data-table="[^"]+" data-column="(\d+)"', html) == [str(len(heads) - 1), "1"]


def test_nothing_is_compared_with_one_method_twice():
    same = board(4) | {"best": "method-2"}
    page = Reader(leaderboard_page([same]).html())
    assert [text for text, _ in page.tables["Methods on tiny"][0]].count("Last minus method-2") == 1
    assert [text for text, _ in page.tables["What they cost on tiny"][0]][:3] == ["method", "kind", "‖ΔW‖"]
    heads = [line for line in markdown([same]).splitlines() if line.startswith("| method")]
    assert sum(head.count("Last minus") for head in heads) == 1


def test_without_a_reference_the_best_is_what_they_are_compared_with():
    page = Reader(leaderboard_page([board(4) | {"reference": None}]).html())
    heads = [text for text, _ in page.tables["Methods on tiny"][0]]
    assert heads[:3] == ["method", "Last", "Last minus method-1"] and heads.count("kind") == 1
    assert [text for text, _ in page.tables["What they cost on tiny"][0]][:3] == ["method", "kind", "‖ΔW‖"]


def test_the_best_is_bold_and_no_bound_is():
    html = leaderboard_page([board(4)]).html()
    bold = re.findall(r'<td class="number best"[^>]*><data value="([\d.-]+)"', html)
    assert [float(value) for value in bold] == [89.5, 89.5, 0.1, -0.25]  # of method-1: method-0 is a bound


def test_what_was_set_by_hand_is_not_called_shipped():
    made = board(4)
    made["rows"][0]["set"] = "lr=0.002"
    made["rows"][1] |= {"set": "rank=4", "chosen": "lr=0.01", "swept": True}
    rows = {line.split("|")[1].split()[0]: line for line in markdown([made]).splitlines() if "| " in line}
    cells = [rows[f"method-{place}"].rstrip("| ").rpartition("|")[2].strip() for place in range(3)]
    assert cells == ["lr=0.002", "rank=4, lr=0.01", "as shipped"]
    text = " ".join(markdown([made]).split())
    assert "Run with the settings in the last column, not chosen here: method-0." in text
    assert "settings that ship, which were not chosen here: method-2, method-3." in text


@pytest.mark.parametrize("count", [4, 20, 45])
def test_every_point_of_the_drawing_can_be_told(count):
    html = leaderboard_page([board(count)]).html()
    drawn = " ".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    if count == 20:
        assert "1: method-0, 2: method-1" in html
    elif count == 45:
        assert "Names where there is room" in html and "method-1" in drawn
        assert "Too far below to be drawn: method-44 (Last 68.0, retention −80.0)" in html
        assert (
            "44 of 45 methods" not in html and "45 of 45 methods" in html
        )  # one seed each: counted, not listed
    else:
        assert all(f"method-{place}" in drawn for place in range(count))


def test_only_of_very_many_anything_is_left_out():
    many = [figures.Tested(str(n), -0.1 * n, 80 - 0.1 * n, 0, 0) for n in range(figures.MOST_NUMBERS)]
    away = figures.Tested("away", -90.0, 20.0, 0, 0)
    assert figures.far_off([*many, away]) == [away] and figures.far_off(many) == []
    assert figures.far_off([*many[:5], away]) == []


HOSTILE = "a\\| <script>alert(1)</script>\n# [x](http://x) **b** \x1b[2J"


def test_names_are_text_in_every_line_and_cell_of_the_markdown():
    made = board(4)
    made["scenario"] = HOSTILE
    made["rows"][1] |= {"name": HOSTILE, "kind": HOSTILE, "chosen": HOSTILE, "seeds": [0, 1]}
    made["rows"][2]["name"] = "my_method"
    text = markdown([made])
    assert not re.search(r"<script|\x1b|^# \[|\*\*b|\]\(http", text, re.MULTILINE)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 4 and len({row.count("|") for row in rows}) == 1
    assert "| my_method |" in text
