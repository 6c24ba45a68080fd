"""The pages of docs/ that scripts write are what the scripts write today."""

from __future__ import annotations

import importlib.util
import re
import sys

import pytest

from builders.places import ROOT

DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", ["strategies", "reference", "python"])
def test_the_page_is_not_stale(name, tmp_path, monkeypatch):
    written = tmp_path / f"{name}.md"
    monkeypatch.setattr(sys, "argv", [f"write_{name}.py", str(written)])
    monkeypatch.syspath_prepend(str(DOCS))
    script = importlib.util.spec_from_file_location(f"write_{name}", DOCS / f"write_{name}.py")
    script.loader.exec_module(importlib.util.module_from_spec(script))
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert written.read_text(encoding="utf-8") == page, (
        f"docs/{name}.md is stale: python docs/write_{name}.py"
    )


def test_the_reference_links_to_its_own_headings_and_says_what_every_key_means():
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]*)\)", text)) <= anchors
    rows = [re.split(r"(?<!\\) \| ", line) for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 300 and all(len(row) == 5 and len(row[4]) > 5 for row in rows)
    assert "``" not in text
