"""The shipped scenarios and strategies load and open with the command that runs them."""

from __future__ import annotations

import pytest

from builders.configs import TEXTS, check
from cl_complora.config import load_scenario, load_strategy
from cl_complora.config.catalog import shipped

# Shipped files
SHIPPED = [(kind, path) for kind in TEXTS for path in shipped(kind).values()]


@pytest.mark.parametrize("kind, path", SHIPPED, ids=lambda value: getattr(value, "stem", value))
def test_shipped_files_load_and_open_with_the_command_that_runs_them(kind, path):
    located = {"scenario": load_scenario, "strategy": load_strategy}[kind](path.stem)
    needs_data = [e for e in getattr(located.value, "tasks", ()) if e.source.kind in ("dataset", "folder")]
    if not needs_data:  # what others hold is not part of the project
        check(kind, path.stem)
    comment, command = path.read_text(encoding="utf-8").splitlines()[0].split("Run: ")
    assert comment.startswith("# ")
    program, run, *arguments = command.split()
    assert (program, run) == ("cl-complora", "run")
    named = {"scenario": "embedded", "strategy": "complora"}
    named |= (
        {"strategy": arguments[1]}
        if arguments[:1] == ["--strategy"]
        else dict(zip(["scenario"], arguments, strict=False))
    )
    assert named[kind] == path.stem
