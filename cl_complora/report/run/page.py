"""The report of a run: what was learned, forgotten and retained, and how it came to be."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

import numpy as np

from ... import metrics
from ...analysis.paired import PairedChanges, paired_changes, set_curve
from ...files import yaml_text
from ...store.elsewhere import told
from ...store.loaded_run import LoadedRun
from ...store.moved import config_now
from ...version import __version__
from ..elements import (
    NOTHING,
    Cell,
    Code,
    Figure,
    Fold,
    Gallery,
    Notice,
    Page,
    Section,
    Table,
    Terms,
    Text,
    number,
    percent,
)
from ..heat_map import shaded
from ..reproduce import run_command
from ..tensorboard.layout import LEGIBLE
from . import figures
from .audits import curvatures, leaks, places
from .causes import changed_answers, explanation
from .facts import count_head, facts, model_of
from .forgetting import forgetting
from .head_drift_table import head_drift_table
from .paired_changes import change_table
from .precision import multi_label
from .recall import retrieval
from .shots_table import by_shots_table
from .step_curves import step_curves
from .summary import interval_of, summary
from .weights import moved_weights


def run_page(run: LoadedRun, links: Sequence[Cell] = ()) -> Page:
    """All that is known of a run, on one page.

    Args:
        run: the run.
        links: to other reports.
    """
    results = run.results
    paired = paired_changes(run.folder, results)
    change = "Gains" if run.independent or run.at_once else "Forgetting"
    sections = [
        Section("summary", "In short", summary(run, paired)),
        Section("accuracy", "Accuracy after every task", _accuracy(run)),
        Section("zero-shot", "Zero-shot accuracy", _zero_shot(run, paired)),
        Section("retrieval", "Retrieval", retrieval(run, paired)),
        Section("multi-label", "Several classes at once", multi_label(run)),
        Section("forgetting", change, forgetting(run, paired)),
        Section("answers", "New mistakes", changed_answers(run)),
        Section("why", "Why it was forgotten", explanation(run)),
        Section("geometry", "Where the weights moved", moved_weights(run)),
        Section("training", "Training", step_curves(run)),
        Section("membership", "What it gives away", leaks(run)),
        Section("regions", "What it sees where", places(run)),
        Section("curvature", "How curved the loss is", curvatures(run)),
        Section("cost", "Tasks and what they cost", _costs(run)),
        Section("origin", "How to repeat it", _origin(run)),
    ]
    kicker = f"{results['scenario']} · seed {results['seed']}"
    made_by = f"cl_complora {__version__} · {run.folder.root}"
    return Page(str(results["strategy"]), kicker, facts(run), sections, made_by, links)


def _accuracy(run: LoadedRun) -> list:
    if not run.results["accuracy"]:
        return []
    blocks: list = [_matrix(run), *by_shots_table(run), *head_drift_table(run)]
    if run.measured and run.trained and not run.independent:
        blocks.append(_task_curves(run))
        if run.trained > 1 and not run.at_once:  # trained together, none comes before another
            blocks.append(_means_so_far(run))
    return blocks


def _matrix(run: LoadedRun) -> Table:
    rows, learned_in = [], run.learned_in
    for index, accuracies in enumerate(run.rows):
        cells = [Cell(run.tasks[index - 1] if index else "untouched model")]
        for column, value in enumerate(accuracies):
            trained = index == learned_in[column]
            cells.append(
                shaded(percent(value), value, "trained" if trained else "", "just trained" if trained else "")
            )
        if not run.independent:
            cells.append(shaded(percent(mean := float(np.mean(accuracies))), mean))
        cells += [shaded(percent(v := _at(run.results["zero_shot"][name], index)), v) for name in run.sets]
        rows.append(cells)
    measures = run.results.get("task_measures", {})
    tasks = [f"{name} (R@1)" if name in measures else name for name in run.tasks]
    mean = [] if run.independent else ["mean"]
    head = ["after", *tasks, *mean, *(f"{name} (zero-shot)" for name in run.sets)]
    note = (
        "Percent of the images of a column's task that are right after a row's task was trained; the first"
        " row is the untouched model. "
    )
    if run.at_once:
        note += "Framed: all tasks, trained together in place of the first; nothing is trained after it."
    elif run.independent:
        note += "Framed: the one task that a row's model was trained on; every row is a model of its own."
    elif len(run.tasks) > 1:
        note += (
            "Framed: the task trained last. Left of the frame tasks may be forgotten, right of it they have"
            " not been trained yet."
        )
    if not run.independent:
        note += " Mean: of all tasks, trained or not; after the whole stream it is Last."
    for name, measure in measures.items():
        note += f" Of '{name}', which has captions and no classes, it is the {measure}."
    return Table("Accuracy matrix", head, rows, note, sortable=False, heat=True)


def _at(values: Sequence[float | None], index: int) -> float:
    return math.nan if values[index] is None else values[index]


def _task_curves(run: LoadedRun) -> Gallery:
    drawn = [
        Figure(name, figures.task_curve(run.rows, place, run.tasks, f"task-{place}", learned_in))
        for place, (name, learned_in) in enumerate(zip(run.tasks, run.learned_in, strict=True))
    ]
    behind = ", with the other tasks behind it" if len(run.tasks) <= LEGIBLE else ""
    note = (
        f"Accuracy in percent on each task after 0, 1, 2 … tasks{behind}. The dot is its own training;"
        " dashed: not trained yet; dotted: the untouched model."
    )
    return Gallery(drawn, "small", note)


def _means_so_far(run: LoadedRun) -> Gallery:
    seen = [metrics.so_far(run.rows[: count + 2]) for count in range(run.trained)]
    level = {name: [s[name.lower()] for s in seen] for name in ("Last", "Average")}
    change = {"forgetting": [s["forgetting"] for s in seen[1:]], "BWT": [s["bwt"] for s in seen[1:]]}
    change = {
        name: [0.0, *values] for name, values in change.items()
    }  # after one task there is nothing to forget
    title = "Accuracy on the tasks trained so far"
    drawn = [
        Figure(f"{title}, %", figures.so_far_curves(level, len(run.tasks), "level", False, title)),
        Figure(
            "Forgetting and backward transfer so far, points",
            figures.so_far_curves(
                change, len(run.tasks), "change", True, "Forgetting and backward transfer so far"
            ),
        ),
    ]
    return Gallery(drawn, "middle", "Means over the tasks trained until then.")


def _zero_shot(run: LoadedRun, paired: PairedChanges) -> list:
    if not run.sets or not run.results["accuracy"]:
        return []
    drawn, rows, unpaired = [], [], False
    for place, name in enumerate(run.sets):
        values = [_at(run.results["zero_shot"][name], index) for index in range(len(run.rows))]
        images = (run.results.get("zero_shot_images") or {}).get(name)
        finite = bool(np.isfinite(values).all())
        if finite and not run.independent:
            curve = set_curve(run.folder, run.config, run.results, name)
            if curve is None:
                bounds = [metrics.interval(v, images) if images else (v, v) for v in values]
            else:
                bounds = [(values[0],) * 2, *((values[0] + c.low, values[0] + c.high) for c in curve)]
            unpaired |= curve is None
            svg = figures.band(values, *zip(*bounds, strict=True), len(run.tasks), name, f"zero-shot-{place}")
            drawn.append(Figure(f"{name}, %", svg))
        for index, value in enumerate(values):
            after = run.tasks[index - 1] if index else "untouched model"
            change = percent(value - values[0], signed=True) if index else Cell(NOTHING)
            shown = Cell(interval_of(value, images) if images and finite else NOTHING)
            rows.append([Cell(name), number(index, 0), Cell(after), percent(value), shown, change])
    note = "Accuracy on images of no task; dotted: where it began; band: " + (
        "95 % interval of each accuracy by itself (this run kept no answers to compare image by image)."
        if unpaired
        else "95 % interval of the change on the same images: where it does not reach the dotted line, the"
        " change is more than chance."
    )
    head = ["set", count_head(run), "after", "accuracy %", "95 % interval", "change, points"]
    table = Table("Zero-shot accuracy after every task", head, rows)
    changed = [change_table("Change since the untouched model", "set", paired.sets)] if paired.sets else []
    return [Gallery(drawn, "middle", note), *changed, Fold("The numbers", [table])] if drawn else [table]


def _costs(run: LoadedRun) -> list:
    learned, costs = [], []
    for d in run.results["tasks_detail"]:
        shots = d.get("shots")
        told = "–".join(map(str, sorted({min(shots), max(shots)}))) if isinstance(shots, list) else shots
        shown = (
            Cell(str(told), shots if isinstance(shots, int) else None) if told is not None else Cell("all")
        )
        images = [number(d.get(key), 0) for key in ("train_images", "test_images", "steps")]
        moved, name = number(d.get("delta_norm"), 3), Cell(str(d.get("name")))
        learned.append([name, number(d.get("classes"), 0), shown, *images, moved])
        times = [number(d.get(key), 1) for key in ("train_seconds", "eval_seconds")]
        memory = number(d.get("peak_memory_bytes"), 0, scale=1e-6)
        sizes = [number(d.get(key), 2, scale=1e-6) for key in ("stored_bytes", "carried_bytes")]
        costs.append([name, number(d.get("trainable_parameters"), 0), *times, memory, *sizes])
    if not learned:
        return []
    # Two tables: one of all the columns is wider than any screen.
    head = ["task", "classes", "shots", "training images", "test images", "steps", "‖ΔW‖"]
    dear = [
        "task",
        "parameters trained",
        "training s",
        "measuring s",
        "peak memory MB",
        "delta MB",
        "carried MB",
    ]
    note = (
        "Delta: the file of what the task added to the weights; carried: what the method keeps for later"
        " tasks; peak memory: the device's on CUDA, the whole process's on the CPU."
    )
    moved = "‖ΔW‖: length of what the task added to all weights together."
    return [Table("Tasks", head, learned, moved), Table("What they cost", dear, costs, note)]


def _origin(run: LoadedRun) -> list:
    blocks: list = []
    if run.config and run.config.get("evaluate") is False:
        how = "cl_complora.run(…, evaluate=False) in Python, which no command says"
        blocks.append(Notice([f"This run measured nothing; the settings below are its own: {how}."]))
    elif run.config and run.config.get("strategy"):
        command = run_command(config_now(run.folder.root, run.config), run.folder.root)
        if command is None:
            gone = "The files that this run was made from are gone or say something else now"
            blocks.append(Notice([f"{gone}; the settings below are what they said."]))
        else:
            note = (
                "With the same versions, the same data and the same kind of device it gives the same numbers."
            )
            blocks += [Code("Run it again", command), Text([note])]
    blocks.append(
        Code("Write this report again", shlex.join(["cl-complora", "report", str(run.folder.root)]))
    )
    versions = {name: str(version) for name, version in run.results["software"].items()}
    terms = {
        "Model": model_of(run),
        "SHA-256 of its weights": str(run.results["model"].get("sha256", NOTHING)),
        "Device": str(run.results["device"]),
    }
    if run.config and run.config.get("threads"):
        terms["Threads"] = str(run.config["threads"])
    for step in run.results.get("elsewhere", ()):
        term = f"Gone on elsewhere from {step['from_task']} on"  # more than once, where it had to go back
        terms[term] = "; ".join(filter(None, (terms.get(term), told(step["changed"]))))
    blocks.append(Terms(terms | versions))
    splits = (run.config or {}).get("splits") or {
        d["name"]: d["split_sha256"] for d in run.results["tasks_detail"] if "split_sha256" in d
    }
    if splits:
        rows = [[Cell(name), Cell(str(digest), mark="code")] for name, digest in splits.items()]
        note = "Fingerprint of the chosen images and their classes; the same fingerprint is the same data."
        blocks.append(Table("Splits", ["set", "SHA-256"], rows, note, sortable=False))
    if run.config:
        text = yaml_text(run.config)
        blocks.append(Fold("All settings, as the run resolved them", [Code("config.yaml", text)]))
    return blocks
