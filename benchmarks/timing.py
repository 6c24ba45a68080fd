"""Two or more sides of the same work, checked against one another and timed in turns."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

Size = Literal["tiny", "quick", "full"]


@dataclass(frozen=True)
class Check:
    """One thing that two sides both compute.

    Attributes:
        what: in words.
        difference: largest relative difference.
        tolerance: what is allowed.
    """

    what: str
    difference: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the difference is within the tolerance (NaN never is)."""
        return self.difference <= self.tolerance


@dataclass
class Side:
    """One way to do the work.

    Attributes:
        name: in the table and the JSON.
        work: does it once.
        checks: against ours; a peer without any is refused.
        before: what has to be put right before every repetition, not timed.
        bytes: memory, where the benchmark is about that.
    """

    name: str
    work: Callable[[], object]
    checks: Sequence[Check] = ()
    before: Callable[[], object] | None = None
    bytes: int | None = None


@dataclass
class Times:
    """Repetitions of one side: seconds on the clock and of the processor."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Of the clock."""
        return statistics.median(self.wall)

    def entry(self) -> dict[str, Any]:
        """What the JSON says of a side."""
        return {
            "median_s": self.median,
            "spread_s": [min(self.wall), max(self.wall)],
            "cpu_median_s": statistics.median(self.cpu),
            "repeats": len(self.wall),
        }


@dataclass
class Goal:
    """A figure that the project set itself: ``wanted`` at least, or at most."""

    name: str
    reached: float
    wanted: float
    at_most: bool = False
    bound_by: str = ""

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        return self.reached <= self.wanted if self.at_most else self.reached >= self.wanted

    def entry(self) -> dict[str, Any]:
        """What the JSON says of it."""
        return {
            "goal": self.name,
            "wanted": self.wanted,
            "reached": self.reached,
            "met": self.met,
            "bound_by": self.bound_by,
        }


@dataclass
class Case:
    """One work, measured.

    Attributes:
        benchmark, work: which, in words.
        ours: times and whatever else was measured of our side.
        peers: name → the same of a peer, with ``ratio`` (peer by ours, above 1 where ours takes less) and
            ``max_difference``.
        refused: name → what it computed otherwise.
        left_out: name → why it was not run.
        goals: what was wanted.
        load: runnable processes before and after, of everybody.
    """

    benchmark: str
    work: str
    ours: dict[str, Any]
    peers: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)
    load: tuple[float, float] = (0.0, 0.0)

    def entry(self) -> dict[str, Any]:
        """As written to the JSON file."""
        return {
            "benchmark": self.benchmark,
            "work": self.work,
            "ours": self.ours,
            "peers": self.peers,
            "refused": self.refused,
            "left_out": self.left_out,
            "goals": [goal.entry() for goal in self.goals],
            "load": list(self.load),
        }


def compare(
    benchmark: str,
    work: str,
    ours: Side,
    peers: Sequence[Side],
    repeats: int,
    warmups: int = 1,
    device: str = "cpu",
) -> Case:
    """Time all sides in turns, so that whatever else the machine does meets them alike.

    Args:
        benchmark, work: what the case says.
        ours: the side that the others are held against.
        peers: the others; one whose checks do not hold is refused and not timed.
        repeats, warmups: rounds that count and rounds before them.
        device: waited for before the clock is read.
    """
    case = Case(benchmark, work, {})
    accepted = []
    for peer in peers:
        fault = fault_of(peer)
        if fault is None:
            accepted.append(peer)
        else:
            case.refused[peer.name] = fault
    sides = [ours, *accepted]
    times = {side.name: Times() for side in sides}
    began = os.getloadavg()[0]
    for turn in range(warmups + repeats):
        for side in sides:
            if side.before is not None:
                side.before()
            wall, cpu = seconds_of(side.work, device)
            if turn >= warmups:
                times[side.name].wall.append(wall)
                times[side.name].cpu.append(cpu)
    case.load = (began, os.getloadavg()[0])
    case.ours = {"name": ours.name, **times[ours.name].entry()}
    for peer in accepted:
        case.peers[peer.name] = {
            **times[peer.name].entry(),
            "ratio": times[peer.name].median / times[ours.name].median,
            **agreement(peer.checks),
        }
    return case


def agreement(checks: Sequence[Check]) -> dict[str, Any]:
    """What the JSON says of the checks that held."""
    return {
        "max_difference": max(check.difference for check in checks),
        "checks": {
            check.what: {"difference": check.difference, "tolerance": check.tolerance} for check in checks
        },
    }


def fault_of(peer: Side) -> str | None:
    """What a peer computes otherwise than ours, or None."""
    if not peer.checks:
        return "nothing was checked"
    faults = [check for check in peer.checks if not check.holds]
    return (
        "; ".join(f"{c.what} differs by {c.difference:.1e}, allowed {c.tolerance:.0e}" for c in faults)
        or None
    )


def seconds_of(work: Callable[[], object], device: str = "cpu") -> tuple[float, float]:
    """Seconds on the clock and of the processor (all threads) that ``work`` takes."""
    _wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    _wait(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def relative(found: Tensor, wanted: Tensor) -> float:
    """‖found − wanted‖ / ‖wanted‖ (Frobenius), infinite where the shapes differ."""
    if found.shape != wanted.shape:
        return float("inf")
    found, wanted = found.detach().double().cpu(), wanted.detach().double().cpu()
    norm = float(wanted.norm())
    return float((found - wanted).norm()) / norm if norm else float(found.norm())


def worst(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """Largest :func:`relative` over all names; infinite where names are missing."""
    if set(found) != set(wanted) or not wanted:
        return float("inf")
    return max(relative(found[name], wanted[name]) for name in wanted)
