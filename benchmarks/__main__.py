"""python -m benchmarks NAME [--quick] [--json FILE] [--device cpu|cuda]"""

from __future__ import annotations

import importlib
import json
import os
import platform
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

import cl_complora.engine  # noqa: F401 - imports Avalanche with the warnings of its import silenced

from .timing import Case

MODULES = {
    "step": "step",
    "subspace": "subspace",
    "eval": "evaluation",
    "rate": "evaluation_rate",
    "memory": "memory",
    "stream": "stream",
    "scaling": "scaling",
    "busy": "busy",
    "start": "start",
    "graph": "graph",
    "mtil": "mtil_stream",
}
_VERSIONS = ("torch", "open_clip_torch", "avalanche-lib", "peft", "cl_complora")


def main(
    name: Annotated[str, typer.Argument(help=f"{', '.join(MODULES)}, or all.")],
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: a minute or two.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Run a benchmark, print its tables, fail where a side computes something else."""
    if name != "all" and name not in MODULES:
        raise typer.BadParameter(f"there is no benchmark {name!r}; there are {', '.join(MODULES)} and all")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise typer.BadParameter("this machine has no CUDA device")
    console = Console(width=None if os.isatty(1) else 140)
    console.print(f"{machine()}; {', '.join(f'{k} {v}' for k, v in versions().items())}; {date.today()}")
    entries, refused = {}, False
    for each in MODULES if name == "all" else [name]:
        cases = []
        measure = importlib.import_module(f"benchmarks.{MODULES[each]}").measure
        for case in measure("quick" if quick else "full", device):
            show(console, case)
            refused |= bool(case.refused)
            cases.append(case)
            entries[each] = report(cases)
            # After every case, because all of them take an hour.
            if json_file is not None:
                content = entries[name] if name != "all" else list(entries.values())
                json_file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if refused:
        raise typer.Exit(1)


def report(cases: list[Case]) -> dict[str, Any]:
    """The first case that goals are about, with the machine and the further cases beside it."""
    first, *others = [case.entry() for case in sorted(cases, key=lambda case: not case.goals)]
    return first | {
        "further": others,
        "machine": machine(),
        "versions": versions(),
        "date": str(date.today()),
    }


def machine() -> str:
    """Processor, cores, threads used."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    cuda = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads used{cuda}"


def versions() -> dict[str, str]:
    """Of what takes part."""
    found = {"python": platform.python_version()}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def show(console: Console, case: Case) -> None:
    """One table."""
    table = Table(title=f"{case.benchmark}: {case.work}", title_justify="left")
    memory = "bytes" in case.ours
    unit = "MB" if memory else "median s"
    for column in ("", unit, "spread", "processor s", "ratio", "largest difference"):
        table.add_column(column, justify="left" if not column else "right")
    _row(table, case.ours["name"], case.ours, "", "", memory)
    for name, peer in case.peers.items():
        _row(table, name, peer, f"{peer['ratio']:.2f}", f"{peer['max_difference']:.1e}", memory)
    console.print(table)
    for name, why in case.refused.items():
        console.print(f"  REFUSED {name}: computes something else: {why}")
    for name, why in case.left_out.items():
        console.print(f"  not run: {name}: {why}")
    for goal in case.goals:
        told = "at most" if goal.at_most else "at least"
        state = "met" if goal.met else f"MISSED{f', bound by {goal.bound_by}' if goal.bound_by else ''}"
        console.print(f"  goal: {goal.name}: {goal.reached:.2f}, wanted {told} {goal.wanted:g}: {state}")
    console.print(
        f"  load of the machine {case.load[0]:.1f} before, {case.load[1]:.1f} after (this benchmark"
        " included)\n"
    )


def _row(table: Table, name: str, side: dict[str, Any], ratio: str, difference: str, memory: bool) -> None:
    if memory:
        table.add_row(name, f"{side['bytes'] / 1e6:.1f}", "", "", ratio, difference)
        return
    low, high = side["spread_s"]
    table.add_row(
        name,
        f"{side['median_s']:.4g}",
        f"{low:.4g} … {high:.4g}",
        f"{side['cpu_median_s']:.4g}",
        ratio,
        difference,
    )


if __name__ == "__main__":
    typer.run(main)
