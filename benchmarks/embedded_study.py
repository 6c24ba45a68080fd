"""The table of docs/embedded-world.md: methods on the embedded stream, learning rates chosen on validation shots.

    python benchmarks/embedded_study.py --out runs/study --jobs 2

For every method each learning rate of its YAML's sweep is run once (seed 0) with four validation shots a class and no
test image; the one with the best mean validation accuracy at the end of the stream is then run with every seed and
tested. With --floor -10 only rates that lose at most ten points of zero-shot accuracy in the sweep are eligible.
Finished runs are reused, so the study can be interrupted. Retention is measured on the same zero-shot images in sweep
and test. Writes study.json and study.md into --out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from cl_complora.config import load_strategy
from cl_complora.files import write_json, write_text

RATE = "optimiser.lr"
VALIDATION = ("validation_shots=4", "measure=validation")
COLUMNS = ("average", "last", "forgetting", "transfer")


def run(scenario: str, method: str, seed: int, out: Path, settings: tuple[str, ...]) -> dict:
    """One run in a process of its own with one thread; its results.json."""
    folder = out / scenario / method / f"seed{seed}"
    command = [
        sys.executable,
        "-m",
        "cl_complora",
        "run",
        scenario,
        "--strategy",
        method,
        "--seed",
        str(seed),
        "--out",
        str(out),
    ]
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def rates(method: str) -> list[float]:
    """Learning rates that the method's YAML declares worth trying."""
    return [float(rate) for rate in load_strategy(method).value.sweep.get(RATE, [])]


def study(scenario: str, methods: list[str], seeds: list[int], out: Path, jobs: int, floor: float) -> dict:
    """Sweep, choose, repeat; all figures of all methods."""
    found: dict = {"scenario": scenario, "seeds": seeds, "floor": floor, "methods": {}}
    with ThreadPoolExecutor(jobs) as pool:
        trials = {
            (method, rate): pool.submit(
                run, scenario, method, 0, out / f"validation-{rate:g}", (*VALIDATION, f"{RATE}={rate:g}")
            )
            for method in methods
            for rate in rates(method)
        }
        curves: dict[str, dict[str, dict]] = {method: {} for method in methods}
        for (method, rate), trial in trials.items():
            results = trial.result()
            curves[method][f"{rate:g}"] = {"validation_last": results["last"], "retention": results["retention"]}
            print(
                f"{method} {RATE}={rate:g}: validation last {100 * results['last']:.1f}, {results['retention']}",
                flush=True,
            )
        chosen = {method: choose(curves[method], floor) for method in methods}
        tests = {}
        for method in methods:
            rate = chosen[method]
            settings = (f"{RATE}={rate}",) if rate else ()
            tests[method] = [pool.submit(run, scenario, method, seed, out / f"test-{rate}", settings) for seed in seeds]
        for method in methods:
            results = [test.result() for test in tests[method]]
            found["methods"][method] = {
                "chosen": chosen[method],
                "curve": curves[method],
                **{key: [r[key] for r in results] for key in COLUMNS},
                "learned": [float(np.mean([r["accuracy"][i + 1][i] for i in range(len(r["tasks"]))])) for r in results],
                "retention": [next(iter(r["retention"].values())) for r in results],
                "delta_norm": [float(np.mean([d["delta_norm"] for d in r["tasks_detail"]])) for r in results],
                "parameters": results[0]["tasks_detail"][0]["trainable_parameters"],
            }
    return found


def choose(curve: dict[str, dict], floor: float) -> str | None:
    """The rate with the best validation accuracy among those whose zero-shot loss stays above the floor."""
    eligible = [rate for rate, f in curve.items() if min(f["retention"].values()) >= floor]
    return max(eligible or curve, key=lambda rate: curve[rate]["validation_last"]) if curve else None


def sweeps(found: dict) -> str:
    """Every rate of every sweep as Markdown."""
    lines = ["| method | learning rate | validation accuracy at the end | retention (points) |", "|---|---|---|---|"]
    for method, f in found["methods"].items():
        for rate, point in f["curve"].items():
            retained = ", ".join(f"{value:+.1f}" for value in point["retention"].values())
            lines.append(f"| {method} | {rate} | {100 * point['validation_last']:.1f} | {retained} |")
    return "\n".join(lines) + "\n"


def table(found: dict) -> str:
    """The figures as Markdown, mean ± standard deviation over seeds."""
    names = ("method", "learning rate", "learned", "Last", "forgetting", "Average", "Transfer", "retention (points)")
    lines = [f"| {' | '.join((*names, '‖ΔW‖ a task', 'trained'))} |", "|---" * 10 + "|"]
    for method, f in found["methods"].items():
        cells = [_cell(f[key], 100) for key in ("learned", "last", "forgetting", "average", "transfer")]
        cells += [_cell(f["retention"], 1, sign=True), _cell(f["delta_norm"], 1, digits=2), f"{f['parameters']:,}"]
        lines.append(f"| {method} | {f['chosen'] or '–'} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(values: list[float], scale: float, sign: bool = False, digits: int = 1) -> str:
    mean, spread = scale * float(np.mean(values)), scale * float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return f"{mean:{'+' if sign else ''}.{digits}f} ± {spread:.{digits}f}"


def main(
    out: Annotated[Path, typer.Option(help="Where runs and tables go.")] = Path("runs/study"),
    scenario: Annotated[str, typer.Option(help="Scenario.")] = "embedded",
    methods: Annotated[str, typer.Option(help="Strategies, separated by commas.")] = "zeroshot,finetune,lora,complora",
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2",
    jobs: Annotated[int, typer.Option(help="Runs at a time, one thread each.")] = 2,
    floor: Annotated[float, typer.Option(help="Smallest retention, in points, that an eligible rate may have.")] = -100,
) -> None:
    """Run the study and write its tables."""
    found = study(scenario, methods.split(","), [int(seed) for seed in seeds.split(",")], out, jobs, floor)
    name = "study" if floor <= -100 else f"study{floor:g}"
    write_json(out / f"{name}.json", found)
    write_text(out / f"{name}.md", f"{table(found)}\n{sweeps(found)}")
    print(table(found), sweeps(found), sep="\n")


if __name__ == "__main__":
    typer.run(main)
