"""Parts of a page: curves, numbers, colours."""

from __future__ import annotations

import re

import numpy as np
import pytest

from cl_complora.report.comparison.tables import front
from cl_complora.report.elements import MOST_ROWS, TEMPLATES, Cell, Fold, Page, Section, Table, number
from cl_complora.report.heat_map import shaded
from cl_complora.report.run.figures import MOST_POINTS, thinned
from cl_complora.report.svg import plain


def test_long_curves_are_averaged_and_keep_their_mean():
    values = np.random.default_rng(0).uniform(size=4000)
    steps, means = thinned(values)
    assert len(means) == MOST_POINTS and means.mean() == pytest.approx(values.mean())
    assert steps[0] == 5.5 and thinned(values[:7])[1].tolist() == values[:7].tolist()


def test_numbers_are_told_plainly():
    assert [number(v, 1, True).text for v in (1.26, -0.04, 0.0, -3.0, None, float("nan"))] == [
        "+1.3", "0.0", "0.0", "−3.0", "–", "–"
    ]  # fmt: skip
    assert plain("a\x00b" + "c" * 30, 8) == "abccccc…"
    assert front([(0, 1), (1, 0), (0, 0)]) == [(0, 1), (1, 0)]


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        colour = "#" + "".join(2 * c for c in colour[1:]) if len(colour) == 4 else colour
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return float(np.dot(parts, (0.2126, 0.7152, 0.0722)))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_told_apart_and_read():
    style = (TEMPLATES / "page.css").read_text()
    themes = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(themes) == 3
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): (#\w+)", theme))
        for paper in ("paper", "raised"):
            assert all(contrast(colours[name], colours[paper]) >= 4.5 for name in ("ink", "muted", "accent"))
        assert all(
            contrast(colours[name], colours["paper"]) >= 3
            for name in ("blue", "red", "green", "purple", "sky")
        )
    cells = [shaded(number(share), share) for share in np.linspace(0, 1, 101)]
    assert all(contrast(cell.ink, cell.shade) >= 4.5 for cell in cells)


def test_wide_tables_scroll_below_a_frozen_first_column():
    """Every table, a folded one too, stands in a box that scrolls, with a first column of heads and a
    caption that stay; the script shades an edge behind which there is more."""
    wide = Table("wide <b>", ["name", *map(str, range(40))], [[Cell("one"), *[number(1.0)] * 40]])
    page = Page("t", "k", {}, [Section("s", "S", [wide, Fold("more", [wide])])], "x").html()
    boxes = re.findall(r'<div class="scroll"[^>]*>\s*<table[^>]*>\s*<caption[^>]*><span>[^<]*</span>', page)
    assert len(boxes) == page.count("<table") == 2
    assert page.count('<th scope="row">') == 2
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    frozen = [rule for rule in re.findall(r"([^{}]+)\{([^{}]*)\}", style) if "sticky" in rule[1]]
    names = " ".join(name.strip() for name, _ in frozen)
    assert "thead tr > :first-child" in names and "tbody th" in names and "caption span" in names
    assert all("var(--paper)" in rule for name, rule in frozen if "tbody th" in name or "thead" in name)
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    assert 'toggle("more"' in script and ".scroll.more {" in style and ".scroll.more:focus-visible" in style


def test_what_is_folded_says_so_on_paper_and_no_table_is_cut():
    """Closed parts are not printed, so they are told; a table that fits a page is not torn between two."""
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    paper = style[style.index("@media print") :]
    assert "summary::after" in paper and "folded" in paper
    assert re.search(r"\.scroll:not\(\.tall\)[^{]*\{[^}]*break-inside: avoid", paper)
    assert re.search(r"\.scroll, \.scroll\.tall \{[^}]*overflow: visible[^}]*max-height: none", paper)


def test_a_long_table_scrolls_below_its_head():
    rows = [[Cell(str(n)), number(1.0)] for n in range(MOST_ROWS + 1)]
    for table, tall in ((Table("t", ["a", "b"], rows), True), (Table("t", ["a", "b"], rows[1:]), False)):
        page = Page("t", "k", {}, [Section("s", "S", [table])], "x").html()
        assert ('<div class="scroll tall"' in page) is tall
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    assert re.search(r"\.tall thead[^{]*\{[^}]*position: sticky; top: 0", style)
