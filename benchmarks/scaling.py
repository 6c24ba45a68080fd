"""How time and memory of ours grow with tasks, classes, shots and model size, with two laws fitted to each.

Plot of a written JSON file: python -m benchmarks.scaling FILE.json docs/img/scaling.svg
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from avalanche.training.plugins import SupervisedPlugin

from cl_complora.clip.classifier import ClipClassifier
from cl_complora.config.penalties import Ewc, Lwf
from cl_complora.config.training import Optimiser, Training
from cl_complora.data.labels import LabelSpace
from cl_complora.engine.clip_strategy import ClipStrategy
from cl_complora.engine.constraints import Constraint
from cl_complora.engine.experience import ClipExperience
from cl_complora.engine.penalties.distillation import LwfPlugin
from cl_complora.engine.penalties.ewc import EwcPlugin
from cl_complora.engine.training.optimisers import optimizer_factory
from cl_complora.engine.updates.complora import CompLoRAPlugin
from cl_complora.store.provenance import PeakMemory

from .clips import class_names, image_size, pictures, random_clip, task_of, tokenizer
from .memory import apart
from .peers import Engine
from .timing import Case, Size, seconds_of

_TASKS: dict[Size, int] = {"tiny": 2, "quick": 10, "full": 100}
_CLASSES: dict[Size, Sequence[int]] = {"tiny": (5, 10), "quick": (10, 100), "full": (10, 30, 100, 300, 1000)}
_SHOTS: dict[Size, Sequence[int]] = {"tiny": (1, 2), "quick": (1, 4, 16), "full": (1, 2, 4, 8, 16, 32, 64)}
_MODELS: dict[Size, Sequence[str]] = {
    "tiny": ("tiny",),
    "quick": ("small-224", "ViT-B-32"),
    "full": ("ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-H-14"),
}


def measure(size: Size, device: str = "cpu") -> Iterator[Case]:
    """One case for each thing that grows."""
    for name in _METHODS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case = _tasks(name, size, device)
        yield case
    step = [_point(n, lambda n=n: _step_of(n, 4, device)) for n in _CLASSES[size]]
    yield _case("a step of the tiny model against classes", step)
    shots = [_point(n, lambda n=n: _drawing(n), scale=1 / 4) for n in _SHOTS[size]]
    yield _case("a step's batch of 32, drawn and augmented, 10 classes at 64 px, against shots", shots)
    yield _models(_MODELS[size], device)


def _case(work: str, points: list[dict[str, Any]]) -> Case:
    seconds = [point["median_s"] for point in points]
    ours = {"name": "ours", "median_s": float(np.median(seconds)), "spread_s": [min(seconds), max(seconds)]}
    ours |= {"cpu_median_s": float(np.median([point["cpu_s"] for point in points])), "repeats": 1}
    return Case(
        "scaling", work, ours | {"points": points, "fit": fit(points)}, load=(os.getloadavg()[0],) * 2
    )


def fit(points: Sequence[dict[str, Any]]) -> dict[str, float] | None:
    """The processor's time as ``factor · x^exponent`` and as ``constant + slope · x``.

    Both by least squares of relative errors (the power law on logarithms), each with its R² on logarithms.
    """
    if len(points) < 3:
        return None
    x, y = (np.array([point[key] for point in points], dtype=float) for key in ("x", "cpu_s"))
    exponent, offset = np.polyfit(np.log(x), np.log(y), 1)
    (constant, slope), *_ = np.linalg.lstsq(np.stack([1 / y, x / y], 1), np.ones(len(x)), rcond=None)
    return {
        "exponent": float(exponent),
        "factor": float(np.exp(offset)),
        "r2": _determined(y, np.exp(offset) * x**exponent),
        "constant": float(constant),
        "slope": float(slope),
        "affine_r2": _determined(y, np.maximum(constant + slope * x, 1e-12)),
    }


def _determined(y: np.ndarray, fitted: np.ndarray) -> float:
    residual, spread = np.log(y) - np.log(fitted), np.log(y) - np.log(y).mean()
    whole = float((spread**2).sum())
    return 1 - float((residual**2).sum()) / whole if whole else 1.0


def _point(x: float, prepare: Callable[[], Callable[[], object]], scale: float = 1.0) -> dict[str, Any]:
    work = prepare()
    work()
    times = [seconds_of(work) for _ in range(3)]
    wall, cpu = (float(np.median(part)) * scale for part in zip(*times, strict=True))
    return {"x": x, "median_s": wall, "cpu_s": cpu}


# -- tasks
# -----------------------------------------------------------------------------------------------------------


def _methods() -> dict[str, tuple[Constraint, Callable[[CompLoRAPlugin], list[SupervisedPlugin]]]]:
    ewc, lwf = Ewc(kind="ewc", strength=1.0, online=False, samples=4), Lwf(kind="lwf", strength=1.0)
    return {
        "Comp-LoRA": (Constraint(), lambda adapter: []),
        "Comp-LoRA that protects updates": (Constraint(updates=True), lambda adapter: []),
        "LoRA with EWC": (Constraint(select="none"), lambda adapter: [EwcPlugin(ewc, adapter, 0)]),
        "LoRA with LwF": (Constraint(select="none"), lambda adapter: [LwfPlugin(lwf, adapter, 0)]),
    }


_METHODS = _methods()


def _tasks(name: str, size: Size, device: str) -> Case:
    constraint, extra = _METHODS[name]
    clip = random_clip("tiny")
    classifier = ClipClassifier(clip, tokenizer()).to(device)
    adapter = CompLoRAPlugin(rank=2, constraint=constraint)
    plugins = extra(adapter)
    strategy = ClipStrategy(
        model=classifier,
        make_optimizer=optimizer_factory(Optimiser(name="adamw", lr=1e-3), adapter, classifier),
        training=Training(steps=4, batch_size=10),
        device=device,
        plugins=[adapter, *plugins],
    )
    points, stored = [], 0
    for index in range(_TASKS[size]):
        names = tuple(f"{word} {index}" for word in class_names(5))
        images = pictures(10, image_size(clip), 5, index)
        task = task_of(images, LabelSpace.from_templates(names, ["a photo of a {}."]), index)
        wall, cpu = seconds_of(
            lambda task=task: strategy.train(ClipExperience([task], task.index), eval_streams=[])
        )
        stored += sum(t.nbytes for t in adapter.deltas[-1].tensors().values())
        carried = sum(t.nbytes for plugin in plugins for t in plugin.tensors().values())
        points.append(
            {"x": index + 1, "median_s": wall, "cpu_s": cpu, "stored_bytes": stored, "carried_bytes": carried}
        )
    case = _case(f"{name}: a task of 4 steps of the tiny model against its place in the stream", points)
    case.ours["decompositions"] = adapter.subspaces.decompositions
    return case


# -- classes, shots, models
# ------------------------------------------------------------------------------------------


def _step_of(classes: int, batch: int, device: str, model: str = "tiny") -> Callable[[], object]:
    clip = random_clip(model)
    side = Engine("ours", clip, Constraint(select="none"), device)
    images = pictures(batch, image_size(clip), batch).pixels.to(device)
    side.show(images, (torch.arange(batch) % classes).to(device), classes)
    return side.step


def _drawing(shots: int) -> Callable[[], object]:
    from cl_complora.config.scenario import Augmentation
    from cl_complora.engine.experience import TrainingBatches

    images = pictures(10 * shots, 64, 10)
    task = task_of(images, LabelSpace.from_templates(class_names(10), ["{}"]))
    task.augment = Augmentation(crop=[0.5, 1.0], flip=True)
    return lambda: list(TrainingBatches(ClipExperience([task], 0), 4, 32, 0))


def _models(models: Sequence[str], device: str) -> Case:
    points, left_out = [], {}
    for model in models:
        try:
            points.append(apart(_of_model, model, device))
        except Exception as error:  # the child was killed for its memory, or torch says that there is none
            left_out[model] = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
    case = _case("a step of batch 2, 10 classes, against million parameters", points)
    case.left_out = left_out
    return case


def _of_model(model: str, device: str) -> dict[str, Any]:
    clip = random_clip(model)
    million = sum(p.numel() for p in clip.parameters()) / 1e6
    del clip
    step = _step_of(10, 2, device, model)
    mark = PeakMemory(device)
    return {**_point(million, lambda: step), "name": model, "peak_bytes": mark.bytes()}


def plot(report: dict[str, Any], path: Path) -> None:
    """All cases of a report as small log–log panels."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, NullFormatter

    cases = [report, *report["further"]]
    columns = 4
    figure, axes = plt.subplots(-(-len(cases) // columns), columns, figsize=(14, 6), squeeze=False)
    for place, axis in enumerate(axes.flat):
        if place >= len(cases):
            axis.axis("off")
            continue
        points, law = cases[place]["ours"]["points"], cases[place]["ours"]["fit"]
        x = np.array([point["x"] for point in points])
        axis.loglog(x, [point["cpu_s"] for point in points], "o", markersize=3)
        if law is not None:
            line = np.geomspace(x.min(), x.max(), 100)
            if law["affine_r2"] > law["r2"]:
                axis.loglog(line, law["constant"] + law["slope"] * line, label=_affine(law))
            else:
                told = f"x^{law['exponent']:.2f}, R² {law['r2']:.2f}"
                axis.loglog(line, law["factor"] * line ** law["exponent"], label=told)
            axis.legend(frameon=False, fontsize=8)
        # Ten times at least, so that what does not grow looks as if it did not.
        low, high = axis.get_ylim()
        room = max(1.0, np.sqrt(10 / (high / low)))
        axis.set_ylim(low / room, high * room)
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_minor_formatter(NullFormatter())
        for scale in (axis.xaxis, axis.yaxis):
            scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        words = cases[place]["work"].split()
        lines = [" ".join(words[i : i + 5]) for i in range(0, len(words), 5)]
        axis.set_title("\n".join(lines), fontsize=8)
        axis.set_ylabel("processor s", fontsize=8)
        axis.tick_params(labelsize=7)
    figure.tight_layout()
    figure.savefig(path)


def _affine(law: dict[str, float]) -> str:
    return f"{law['constant']:.2g} + {law['slope']:.2g} x, R² {law['affine_r2']:.2f}"


if __name__ == "__main__":
    plot(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
