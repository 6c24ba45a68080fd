"""The bound of spinning: set before torch loads, and only where the environment says nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cl_complora.run.ray_cluster import environment_of
from cl_complora.run.spinning import SPINS, bound_spinning, spinning


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({}, {"GOMP_SPINCOUNT": str(SPINS)}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_the_environment_decides(said, found, monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert spinning() == found and environment_of(3) == {"OMP_NUM_THREADS": "3", **found}
    bound_spinning()
    assert {name: os.environ[name] for name in found} == found
    monkeypatch.undo()


def test_the_command_sets_it_before_torch_loads():
    code = (
        "import os, sys\n"
        "import cl_complora.cli as cli\n"
        "cli._answer = lambda: print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)\n"
        "cli.main()\n"
    )
    clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True)
    assert done.stdout.split() == [str(SPINS), "False"], done.stderr
