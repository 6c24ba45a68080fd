"""The pages as a browser shows them: at three widths, in the dark, on paper."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import browser
from builders.boards import board
from builders.pages import HOSTILE
from builders.reported import made_run
from cl_complora.compare.method import METRICS, Method
from cl_complora.compare.study import Comparison, Request
from cl_complora.files import write_json
from cl_complora.report.html import write_report
from cl_complora.report.leaderboard import leaderboard_page

pytestmark = pytest.mark.skipif(
    browser.found() is None, reason=f"no browser: none of {', '.join(browser.NAMES)} is installed"
)
WIDTHS = (1600, 900, 400)
# What stands further right than the window and cannot be scrolled to, but for what is not to be seen.
_CUT = """
[...document.querySelectorAll("body *")].filter(part =>
  !part.closest(".unseen, .skip") && !(part.closest(".scroll") && !part.matches(".scroll")) &&
  part.getBoundingClientRect().right > document.documentElement.clientWidth + 1
).map(part => part.outerHTML.slice(0, 80))
"""
_FROZEN = """
[...document.querySelectorAll(".scroll:has(table)")].filter(box => {
  box.scrollLeft = 60;
  box.scrollTop = 60;
  const outer = box.getBoundingClientRect(), head = box.querySelector("thead tr > :first-child");
  const side = box.querySelector("tbody th").getBoundingClientRect();
  return (box.scrollLeft && Math.abs(side.left - outer.left) > 1)
    || (box.scrollTop && Math.abs(head.getBoundingClientRect().top - outer.top) > 1);
}).length
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """A page of every kind, with long names and many rows."""
    root = tmp_path_factory.mktemp("pages")
    names = [f"a rather long task name {n}" for n in range(11)]
    run = made_run(root / "run", names, [*HOSTILE, *(f"class {n}" for n in range(40))], (6, 3), 40).root
    methods = [Method(f"a method with a long name {n}") for n in range(14)]
    for place, method in enumerate(methods):
        method.figures = {metric: [50.0 + place, 51.0 + place] for metric in METRICS}
    request = Request("tiny", tuple(m.name for m in methods), (0, 1), reference=methods[0].name)
    (root / "tiny").mkdir()
    write_json(
        root / "tiny" / "comparison.json", Comparison(request, "tiny", methods[0].name, methods).content()
    )
    leaders = root / "leaderboard.html"
    leaders.write_text(leaderboard_page([board(45)]).html(), encoding="utf-8")
    return {"run": write_report(run), "comparison": write_report(root / "tiny"), "leaderboard": leaders}


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    opened = browser.Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["run", "comparison", "leaderboard"])
def test_a_page_fits_its_window(pages, tab, kind, width):
    tab.open(pages[kind], width)
    assert tab.value("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert tab.value("innerWidth") == width
    tab.value("for (const part of document.querySelectorAll('details')) part.open = true")
    assert tab.value(_CUT) == []
    assert tab.value("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert tab.value(_FROZEN) == 0
    assert tab.complaints == []


@pytest.mark.parametrize("kind", ["run", "comparison", "leaderboard"])
def test_paper_has_all_of_a_table_and_says_what_is_folded(pages, tab, kind):
    tab.open(pages[kind], 760)
    tab.paper()
    boxes = "[...document.querySelectorAll('main > section > .scroll')]"
    assert tab.value(f"{boxes}.every(box => getComputedStyle(box).overflowY === 'visible')")
    assert tab.value(f"{boxes}.every(box => box.clientHeight >= box.firstElementChild.offsetHeight)")
    said = "[...document.querySelectorAll('summary')].map(one => getComputedStyle(one, '::after').content)"
    assert all("folded" in text for text in tab.value(said))


def test_dark_where_the_reader_wants_it(pages, tab):
    ground = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    tab.open(pages["run"], 900, dark=True)
    assert max(tab.value(ground)) < 60
    tab.open(pages["run"], 900)
    assert min(tab.value(ground)) > 200


def test_a_table_is_sorted_and_filtered(pages, tab):
    tab.open(pages["leaderboard"], 1600)
    first = "document.querySelector('tbody').rows[0].cells[0].textContent"
    before = tab.value(first)
    tab.value("document.querySelectorAll('thead button')[1].click()")
    tab.value("document.querySelectorAll('thead button')[1].click()")
    assert tab.value(first) != before
    shown = "[...document.querySelector('tbody').rows].filter(row => row.offsetHeight).length"
    everything = tab.value(shown)
    tab.value(
        "{ const one = document.querySelector('select'); one.value = one.options[1].value;"
        " one.dispatchEvent(new Event('change')); }"
    )
    assert 0 < tab.value(shown) < everything
