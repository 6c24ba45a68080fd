"""The site of the docs: every page has its place in it, and it builds without a warning."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from builders.places import ROOT

without = pytest.mark.skipif(
    find_spec("mkdocs") is None or find_spec("material") is None, reason="mkdocs-material is not installed"
)


def places(part) -> list[str]:
    """File names of a navigation, in its order."""
    if isinstance(part, str):
        return [part]
    return [name for inner in (part.values() if isinstance(part, dict) else part) for name in places(inner)]


def test_every_page_has_one_place_in_the_navigation():
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    named = Counter(places(settings["nav"]))
    assert set(named) == {page.name for page in ROOT.glob("docs/*.md")} and set(named.values()) == {1}
    assert list(named)[0] == "README.md" and settings["strict"]
    assert all((ROOT / "docs" / file).is_file() for file in settings["extra_css"])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(words, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@without
def test_the_site_builds_without_a_warning(site):
    pages = {path.parent.name for path in site.glob("*/index.html")}
    assert {page.stem for page in ROOT.glob("docs/*.md")} - {"README"} <= pages
    assert not list(site.rglob("*.py"))


@without
def test_links_are_called_by_titles_and_none_leads_out_of_the_site(site):
    index = (site / "index.html").read_text(encoding="utf-8")
    main = index[index.index("<article") : index.index("</article")]
    assert ">Your own pictures</a>" in main and ">tutorial.md</a>" not in main
    assert "README.md" in main and "../README.md" not in main
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        links = re.findall(r'href="(?!https?:|mailto:|#|data:)([^"#?]+)', text[text.index("<body") :])
        lost = [link for link in links if not _leads(page.parent, link, site)]
        assert page.name == "404.html" or not lost, (page, lost)


def _leads(folder: Path, link: str, site: Path) -> bool:
    target = (folder / link).resolve()
    return site.resolve() in (target, *target.parents) and target.exists()
