"""Published results of runs that are none: each has the results of one run, a little changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders.runs import STRATEGY
from cl_complora import metrics
from cl_complora.compare import study
from cl_complora.compare.by_image import kept_by
from cl_complora.compare.outcomes import Outcome
from cl_complora.compare.publishing import publish
from cl_complora.compare.study import Request, compare
from cl_complora.compare.updates import measure_updates
from cl_complora.config import load_scenario
from cl_complora.store.folder import RunDir


@pytest.fixture(scope="module")
def methods(tmp_path_factory) -> tuple[str, ...]:
    folder = tmp_path_factory.mktemp("methods")
    for name, rank in (("quick", 2), ("slow", 3)):
        text = STRATEGY.format(name=name).replace("rank: 2", f"rank: {rank}")
        (folder / f"{name}.yaml").write_text(text + "sweep: {optimiser.lr: [1e-3, 5e-3]}\n")
    return str(folder / "quick.yaml"), str(folder / "slow.yaml")


@pytest.fixture
def ran(monkeypatch, tiny_run, tiny_scenario):
    """Trials that were run: none really, since each has the results of one run, a little changed."""
    folder = RunDir(tiny_run.folder)
    updates = measure_updates(tiny_run.folder, load_scenario(str(tiny_scenario)))
    kept = kept_by(folder, tiny_run.results)
    labels: list[str] = []

    def outcome(t) -> Outcome:
        labels.append(t.label())
        rate = t.strategy.value.optimiser.lr
        *rows, last = tiny_run.results["accuracy"]
        rows.append([0.5 * value + 0.2 + 0.1 * rate + 0.01 * t.seed for value in last])
        changed = {"accuracy": rows, "seed": t.seed, "strategy": t.strategy.value.name}
        results = tiny_run.results | changed | metrics.summarize(rows)
        return Outcome(results, *((None, {}) if t.validation else (updates, kept)))

    class Fake:
        def __init__(self, *words): ...
        def __enter__(self):
            return self

        def __exit__(self, *words): ...
        def run(self, trials, report):
            return [outcome(t) for t in trials]

    monkeypatch.setattr(study, "open_workers", Fake)
    return labels


def asked(scenario, methods, seeds=(0, 1)) -> Request:
    return Request(str(scenario), methods, seeds, sweep={}, validation_shots=2, reference="slow")


def published(scenario, methods, folder: Path, seeds=(0, 1), tell=lambda line: None):
    found = compare(asked(scenario, methods, seeds), results=folder)
    publish(found, load_scenario(str(scenario)), folder, tell)
    return found
