"""Audits that were made before the run was finished say so."""

from __future__ import annotations

import json

import pytest

from builders.pages import read
from builders.reported import forgetful_run
from cl_complora.report.html import write_report

STATES = ["untouched model", "warm", "cold"]


@pytest.fixture
def audited(tiny_run, tmp_path):
    """Writes the three files as they are after so many tasks, and gives the text of the page."""
    folder = forgetful_run(tiny_run.folder, tmp_path / "my run")

    def told(tasks: int) -> str:
        states = STATES[: tasks + 1]
        explained = json.loads((folder / "explain.json").read_text()) | {"states": states}
        (folder / "explain.json").write_text(json.dumps(explained))
        (folder / "membership.json").write_text(json.dumps({"fpr": 0.01, "states": states, "tasks": []}))
        seen = [{"after": name, "sets": {}} for name in states]
        (folder / "regions.json").write_text(json.dumps({"states": seen, "images": {}}))
        return read(write_report(folder, tmp_path / "page.html")).text

    told.folder = folder
    return told


def test_an_audit_of_an_unfinished_run_is_not_shown_as_that_of_the_finished_one(audited):
    text = audited(1)
    for command in ("explain", "audit", "regions"):
        again = f"cl-complora {command} '{audited.folder}' makes it anew."
        assert f"This was made after 1 of 2 tasks, and now 2 are done; {again}" in text
    text = audited(2)
    assert "makes it anew" not in text and "Membership AUC" in text and "Accuracy after 'cold'" in text


def test_an_explanation_that_found_nothing_yet_says_so(audited):
    audited(1)
    (audited.folder / "explain.json").write_text(json.dumps({"states": STATES[:2], "pairs": []}))
    text = read(write_report(audited.folder)).text
    assert f"cl-complora explain '{audited.folder}' makes it anew" in text


def test_a_file_that_does_not_tell_its_states_says_nothing(audited):
    audited(2)
    found = json.loads((audited.folder / "explain.json").read_text())
    del found["states"]
    (audited.folder / "explain.json").write_text(json.dumps(found))
    assert "makes it anew" not in read(write_report(audited.folder)).text
