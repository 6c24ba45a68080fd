"""What a run takes until its first step, and what of that are imports: with and without the libraries that
are deferred, and the first of a machine, which finds neither pictures nor answers of the untouched model."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .timing import Case, Check, Goal, Size, agreement

OURS, WHOLE, FIRST = "a run (ours)", "nothing deferred", "the first run of a machine"
# Seconds to the first step on a quiet machine that has seen another run of the scenario.
GOAL = 6.0
TELL = """
import json, os, time
def tell(same, **more):
    used = os.times()
    told = {"at": time.time(), "used": used.user + used.system, "same": same, **more}
    print("told:", json.dumps(told), flush=True)
"""
IMPORTS = """
import sys, warnings
warnings.simplefilter("ignore")
import cl_complora.cli
from cl_complora.run.allocator import uncollected
with uncollected():
    import cl_complora.run.stream, cl_complora.run.trainer, cl_complora.run.learner
    import cl_complora.run.measuring, cl_complora.analysis.observer
import torch
from cl_complora.run.without_compiler import compiler_left_out
with compiler_left_out():
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # which otherwise loads the rest of torch
tell(sum(name.startswith("cl_complora") for name in sys.modules))
"""
# The protocol measures the untouched model before the first step, so that this is part of the way there.
RUN = """
import importlib, os, sys, tempfile, time
from cl_complora.cli import main
stream = importlib.import_module("cl_complora.run.stream")
observers, measured = stream._observers, {}
def hooked(*inputs):
    # By now everything is imported, in the way that a run does it.
    from cl_complora.engine.clip_strategy import ClipStrategy
    from cl_complora.run.measuring import Measuring
    untouched, step = Measuring.untouched, ClipStrategy.optimizer_step
    def measure(self):
        clock, before = time.perf_counter(), sum(os.times()[:2])
        found = untouched(self)
        spent = sum(os.times()[:2]) - before
        measured.update(same=sum(found.row), clock=time.perf_counter() - clock, used=spent)
        return found
    def first(self):
        step(self)
        tell(measured["same"], measuring_s=measured["clock"], measuring_cpu_s=measured["used"])
        os._exit(0)
    Measuring.untouched, ClipStrategy.optimizer_step = measure, first
    return observers(*inputs)
stream._observers = hooked
with tempfile.TemporaryDirectory() as out:
    sys.argv = ["cl-complora", "run", "embedded", "-s", "lora", "--set", "training.steps=2", "--out", out]
    main()
"""
# What is loaded already is not deferred.
LOADED = (
    "import timm, torchmetrics, wandb, matplotlib.figure, matplotlib.pyplot, sklearn.linear_model,"
    " torch._dynamo\n"
)
_REPEATS: dict[Size, int] = {"tiny": 1, "quick": 3, "full": 7}


def measure(size: Size, device: str = "cpu") -> Iterator[Case]:
    """Two cases; compare processor seconds where the machine is not quiet."""
    sides = {OURS: "", WHOLE: LOADED}
    yield _measured("all that a run imports", IMPORTS, "modules of ours", size, sides)
    work = "lora on the embedded stream, to its first step"
    case = _measured(work, RUN, "accuracy before it", size, {**sides, FIRST: ""})
    case.goals = [Goal("seconds to the first step", case.ours["median_s"], GOAL, at_most=True)]
    yield case


def _measured(work: str, program: str, same: str, size: Size, sides: Mapping[str, str]) -> Case:
    """One program after each of several beginnings, in turns."""
    repeats, warmups = _REPEATS[size], int(size != "tiny")
    told: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    began = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as seen:
        for turn in range(warmups + repeats):
            for name, beginning in sides.items():
                with tempfile.TemporaryDirectory() as empty:
                    one = _told(TELL + beginning + program, empty if name == FIRST else seen)
                if turn >= warmups:
                    told[name].append(one)
    found = {name: _medians(each) | {"repeats": repeats} for name, each in told.items()}
    case = Case("start", work, {"name": OURS, **found[OURS]})
    case.load = (began, os.getloadavg()[0])
    ours = told[OURS][0]["same"]
    for name in list(sides)[1:]:
        ratio = found[name]["cpu_median_s"] / found[OURS]["cpu_median_s"]
        checks = agreement([Check(same, abs(told[name][0]["same"] - ours) / ours, 0.0)])
        case.peers[name] = {**found[name], "ratio": ratio, **checks}
    return case


def _told(source: str, cache: str) -> dict[str, Any]:
    """What a program tells, with the seconds since it was started.

    Args:
        source: the program.
        cache: folder of what is kept from run to run.
    """
    root = Path(__file__).parents[1]
    environment = {**os.environ, "CL_COMPLORA_CACHE": cache}
    started = time.time()
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("told:")]
    told = json.loads(lines[-1].removeprefix("told:"))
    return told | {"clock": told["at"] - started}


def _medians(told: list[Mapping[str, Any]]) -> dict[str, Any]:
    by_key = defaultdict(list)
    for one in told:
        for key, value in one.items():
            by_key[key].append(value)
    measuring = {
        key: statistics.median(values) for key, values in by_key.items() if key.startswith("measuring")
    }
    return {
        "median_s": statistics.median(by_key["clock"]),
        "spread_s": [min(by_key["clock"]), max(by_key["clock"])],
        "cpu_median_s": statistics.median(by_key["used"]),
        **measuring,
    }
