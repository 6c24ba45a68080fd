"""A training step beside other work: bounds of spinning, and one thread, with busy processes on every core.

Every way is a process of its own, since OpenMP reads its environment when torch loads; all of them wait, and
take turns.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cl_complora.compare.workers import cores
from cl_complora.run.spinning import SPINS, bound_spinning

from .timing import Case, Check, Goal, Size, agreement

# Environment of every way; ours is what the command sets.
OURS = f"as a run begins ({SPINS} spins)"
WAYS: dict[str, dict[str, str]] = {
    OURS: {},
    "torch's default": {"GOMP_SPINCOUNT": "300000"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=100000": {"GOMP_SPINCOUNT": "100000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
DEFAULT = "torch's default"
# Of the quiet default speed: at least so much with so many busy processes a core.
WANTED = {0: 0.97, 1: 0.4, 2: 0.2}
BATCH = 32
SEED_LOSS = 1e-3


@dataclass(frozen=True)
class _Work:
    ways: Sequence[str]
    steps: int
    repeats: int
    loads: Sequence[int]


_WORK: dict[Size, _Work] = {
    "tiny": _Work((OURS, DEFAULT), 1, 1, (0, 1)),
    "quick": _Work(tuple(WAYS), 10, 3, (0, 1, 2)),
    "full": _Work(tuple(WAYS), 40, 7, (0, 1, 2)),
}


def measure(size: Size, device: str = "cpu") -> Iterator[Case]:
    """One case for each number of busy processes a core; the steps run on the CPU."""
    work = _WORK[size]
    with ExitStack() as opened:
        ways = {name: opened.enter_context(_process(WAYS[name], work.steps)) for name in work.ways}
        losses = {name: _turn(process)[2] for name, process in ways.items()}  # the first turn warms up
        quiet = None
        for busy in work.loads:
            case = _beside(ways, losses, work, busy)
            speeds = {case.ours["name"]: case.ours, **case.peers}
            quiet = quiet or speeds[DEFAULT]["images_per_s"]
            told = f"images a second with {busy} busy processes a core, of the quiet default"
            case.goals.append(Goal(told, case.ours["images_per_s"] / quiet, WANTED[busy]))
            yield case


def _beside(
    ways: Mapping[str, subprocess.Popen], losses: Mapping[str, float], work: _Work, busy: int
) -> Case:
    """All ways in turns beside so many busy processes a core."""
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    began = os.getloadavg()[0]
    with _busy(busy * cores()):
        for _ in range(work.repeats):
            for name, process in ways.items():
                turns[name].append(_turn(process)[:2])
    sides = {name: _entry(times, work.steps) for name, times in turns.items()}
    told = f"LoRA step of the embedded model, {BATCH} images, {cores()} cores, {busy} busy processes a core"
    ours = {"name": OURS, **sides.pop(OURS)}
    case = Case("busy", told, ours, load=(began, os.getloadavg()[0]))
    for name, side in sides.items():
        difference = abs(losses[name] - losses[OURS]) / abs(losses[OURS])
        same = Check("loss after the first steps", difference, SEED_LOSS)
        case.peers[name] = {**side, "ratio": side["median_s"] / ours["median_s"], **agreement([same])}
    return case


def _entry(times: Sequence[tuple[float, float]], steps: int) -> dict[str, Any]:
    wall = [one for one, _ in times]
    return {
        "median_s": statistics.median(wall),
        "spread_s": [min(wall), max(wall)],
        "cpu_median_s": statistics.median(used for _, used in times),
        "images_per_s": BATCH * steps / statistics.median(wall),
        "repeats": len(times),
    }


@contextmanager
def _process(changes: Mapping[str, str], steps: int) -> Iterator[subprocess.Popen]:
    """A process that trains so many steps whenever it is told to."""
    left_out = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
    environment = {k: v for k, v in os.environ.items() if k not in left_out} | changes
    bound_spinning(environment)
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.busy", str(steps)],
        cwd=Path(__file__).parents[1],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _turn(process: subprocess.Popen) -> tuple[float, float, float]:
    """Seconds on the clock, of the processor, and the loss."""
    print(file=process.stdin, flush=True)
    wall, used, loss = process.stdout.readline().split()
    return float(wall), float(used), float(loss)


@contextmanager
def _busy(count: int) -> Iterator[None]:
    """So many processes that do nothing, as fast as they can."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.2 * bool(count))
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _train(steps: int) -> None:
    """What the processes do: a turn for every line of standard input."""
    import torch
    from torch.nn import functional as F

    from cl_complora.clip.model import load_clip
    from cl_complora.config.scenario import Model
    from cl_complora.engine.constraints import Constraint

    from .clips import image_size
    from .peers import Engine

    torch.manual_seed(0)
    loaded = load_clip(Model())
    clip = loaded.model
    side = Engine(OURS, clip, Constraint(select="none"), tokenize=loaded.tokenizer)
    images = torch.randn(BATCH, 3, image_size(clip), image_size(clip))
    labels = torch.arange(BATCH) % 10
    side.show(images, labels, 10)
    side.start()
    for _ in sys.stdin:
        wall, used = time.perf_counter(), time.process_time()
        for _ in range(steps):
            side.step()
        wall, used = time.perf_counter() - wall, time.process_time() - used
        print(wall, used, float(F.cross_entropy(side.logits, labels)), flush=True)


if __name__ == "__main__":
    _train(int(sys.argv[1]))
