"""What a run loads before its first step, with and without the libraries that are deferred."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .timing import Case, Check, Size, agreement

OURS, WHOLE = "a run (ours)", "nothing deferred"
RUN = """
import sys, warnings
warnings.simplefilter("ignore")
import cl_complora.cli, cl_complora.run.stream, cl_complora.run.trainer, cl_complora.run.learner
import cl_complora.run.measuring, cl_complora.analysis.observer
import torch
torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # which loads the rest of torch
print(sum(name.startswith("cl_complora") for name in sys.modules))
"""
# What is loaded already is not deferred.
PROGRAMS = {OURS: RUN, WHOLE: f"import timm, torchmetrics, matplotlib.figure, matplotlib.pyplot\n{RUN}"}
_REPEATS: dict[Size, int] = {"tiny": 1, "quick": 3, "full": 7}


def measure(size: Size, device: str = "cpu") -> Iterator[Case]:
    """One case; compare processor seconds where the machine is not quiet."""
    repeats, warmups = _REPEATS[size], int(size != "tiny")
    wall, used = ({name: [] for name in PROGRAMS} for _ in range(2))
    loaded, began = {}, os.getloadavg()[0]
    for turn in range(warmups + repeats):
        for name, program in PROGRAMS.items():
            clock, before = time.perf_counter(), os.times()
            done = subprocess.run(
                [sys.executable, "-c", program],
                cwd=Path(__file__).parents[1],
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            )
            after = os.times()
            loaded[name] = int(done.stdout)
            if turn >= warmups:
                wall[name].append(time.perf_counter() - clock)
                children = after.children_user + after.children_system
                used[name].append(children - before.children_user - before.children_system)
    sides = {
        name: {
            "median_s": statistics.median(wall[name]),
            "spread_s": [min(wall[name]), max(wall[name])],
            "cpu_median_s": statistics.median(used[name]),
            "repeats": repeats,
        }
        for name in PROGRAMS
    }
    case = Case("start", "all that a run imports", {"name": OURS, **sides[OURS]})
    case.load = (began, os.getloadavg()[0])
    same = Check("modules of ours", abs(loaded[WHOLE] - loaded[OURS]) / loaded[OURS], 0.0)
    ratio = sides[WHOLE]["cpu_median_s"] / sides[OURS]["cpu_median_s"]
    case.peers[WHOLE] = {**sides[WHOLE], "ratio": ratio, **agreement([same])}
    yield case
