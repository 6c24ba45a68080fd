"""What holds for the whole suite: its processes, what they share, and the order of the files.

The fixtures are in ``builders/fixtures.py``: the process that only hands out tests (``pytest -n``) does
without their imports, which take seconds.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from builders import fork_server
from builders.places import TESTS

# Decoded images of the tests are no business of the user's cache; subprocesses read the same variable.
_CACHE = tempfile.TemporaryDirectory(prefix="cl_complora-test-cache-")
os.environ["CL_COMPLORA_CACHE"] = _CACHE.name
# Nothing is asked of a hub, which some machines wait for in vain.
os.environ["HF_HUB_OFFLINE"] = "1"

# The files that take longest, from two minutes down to ten seconds: begun first, so that no process is left
# alone with one at the end.
LONGEST = (
    "test_strategies",
    "test_inside",
    "test_compare",
    "test_faults",
    "test_run",
    "test_board",
    "test_readme",
    "test_cli",
    "test_tutorial",
    "test_plugin",
    "test_output",
    "test_export",
    "test_lock",
    "test_hostile_yaml",
    "test_frozen_beginning",
    "test_computing",
    "test_explain",
    "test_moved_projects",
    "test_notebook_objects",
    "test_listing",
)


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a test often waits for a child, a lock or a disk."""
    return int(os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS", len(os.sched_getaffinity(0)) + 1))


def hands_out(config: pytest.Config) -> bool:
    """Whether this process runs no test itself, but has others that do."""
    return (
        config.getoption("dist", "no") != "no"
        and not config.getoption("collectonly")
        and not hasattr(config, "workerinput")
    )


def pytest_configure(config: pytest.Config) -> None:
    if hands_out(config):
        fork_server.begin()
    else:
        config.pluginmanager.import_plugin("builders.fixtures")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Of several processes, each first imports its share of the test files, which the others then find
    compiled."""
    given = getattr(session.config, "workerinput", None)
    chosen = [Path(argument).resolve() for argument in session.config.args]
    if given is None or chosen != [TESTS] or sys.dont_write_bytecode:
        return
    files = sorted(TESTS.glob("*/test_*.py"))
    sys.path[:0] = sorted({str(file.parent) for file in files} - set(sys.path))
    for file in files[int(given["workerid"].removeprefix("gw")) :: given["workercount"]]:
        # Which one fails or is left out, collecting it tells.
        with suppress(Exception, pytest.skip.Exception):
            importlib.import_module(file.stem)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
