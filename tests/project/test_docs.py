"""The pages of docs/: what they link to and name is there, the index knows every page, lines stay short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from builders.places import PACKAGE, ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(ROOT.glob("docs/*.md"))]
page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
WIDTH = 120


def prose(text: str) -> list[str]:
    """Lines that are no table, no code and no picture."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [line for line in text.splitlines() if not line.startswith(("|", "    ", "!["))]


@page
def test_links_lead_somewhere(page: Path):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


@page
def test_modules_and_tests_that_are_named_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.py)?)`", text)
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    missing = [
        name
        for name in named
        if name.split("/")[0] in {*rooms, "cl_complora", "tests", "docs", "benchmarks"}
        and not (PACKAGE / name).exists()
        and not (ROOT / name).exists()
    ]
    # What a run folder holds has names of its own.
    assert [name for name in missing if name.endswith(".py") or name.startswith("tests/")] == []


@page
def test_lines_are_short(page: Path):
    long = [line for line in prose(page.read_text(encoding="utf-8")) if len(line) > WIDTH]
    assert not long


def test_the_study_stays_short():
    assert len((ROOT / "docs" / "study.md").read_text(encoding="utf-8").split()) <= 1500


def test_the_index_knows_every_page():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    missing = [p.name for p in ROOT.glob("docs/*.md") if p.name != "README.md" and f"({p.name})" not in index]
    assert not missing


def test_the_architecture_page_knows_every_room():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    picture = (ROOT / "docs" / "draw_architecture.py").read_text(encoding="utf-8")
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    loose = {path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")}
    assert not [room for room in rooms if f"`{room}/`" not in text or f'"{room}/"' not in picture]
    assert not [name for name in loose if f"`{name}`" not in text or name not in picture]
