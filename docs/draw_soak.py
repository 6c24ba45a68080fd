"""Draw a long run's cost of every task: python docs/draw_soak.py RUN docs/img/soak.svg

RUN is a run's folder; that of docs/reliability.md is what the long form of ``test_long_streams`` leaves.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure


def draw(run: Path, to: Path) -> None:
    """Seconds, bytes and resident memory against the task's number, from results.json."""
    details = json.loads((run / "results.json").read_text(encoding="utf-8"))["tasks_detail"]
    number = range(1, len(details) + 1)
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    time, size, memory = figure.subplots(1, 3)
    time.plot(number, [d["train_seconds"] for d in details], label="training", color="#0072b2")
    time.plot(number, [d["eval_seconds"] for d in details], label="measuring every task", color="#d55e00")
    time.set(ylabel="seconds", yscale="log")
    time.legend(frameon=False, fontsize=8)
    size.plot(number, [d["stored_bytes"] / 1e3 for d in details], color="#009e73")
    size.set(ylabel="delta, kB")
    memory.plot(number, [d["peak_memory_bytes"] / 1e6 for d in details], color="#cc79a7")
    memory.set(ylabel="peak resident memory, MB")
    for axes in (size, memory):
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
    for axes in (time, size, memory):
        axes.set_xlabel("task")
        axes.grid(alpha=0.3)
    figure.savefig(to)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
