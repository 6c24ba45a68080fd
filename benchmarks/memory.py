"""What training takes in memory: the peak of a step, and what EWC and LwF hold, each side in a process of its
own."""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .timing import Case, Check, Side, Size, agreement, fault_of, relative, worst

TASKS = 11
LOGITS = 1e-4


@dataclass(frozen=True)
class Work:
    """Model, batch and classes of the step."""

    model: str
    batch: int
    classes: int


_WORK: dict[Size, Work] = {
    "tiny": Work("tiny", 4, 5),
    "quick": Work("ViT-B-32", 4, 10),
    "full": Work("ViT-B-16", 32, 100),
}


def measure(size: Size, device: str = "cpu") -> Iterator[Case]:
    """The step, EWC, LwF."""
    work = _WORK[size]
    for of in (lambda: _step(work, device), lambda: _ewc(work), lambda: _lwf(work)):
        case = of()
        case.load = (os.getloadavg()[0],) * 2
        yield case


# -- one step
# ----------------------------------------------------------------------------------------------------


def _step(work: Work, device: str) -> Case:
    from .peers import PEFT_MISSING, has_peft

    names = ["ours", "dense", "full", *(["peft"] if has_peft() else [])]
    found = {name: apart(_peak_of_step, name, work, device) for name in names}
    ours = found.pop("ours")
    case = Case(
        "memory",
        f"peak of a training step beyond the libraries, {work.model}, batch {work.batch}, {work.classes}"
        " classes",
        {key: ours[key] for key in ("name", "bytes", "median_s")},
    )
    for side in found.values():
        _add(case, side, [Check("logits before the step", relative(side["logits"], ours["logits"]), LOGITS)])
    if not has_peft():
        case.left_out["PEFT"] = PEFT_MISSING
    return case


def _peak_of_step(name: str, work: Work, device: str) -> dict[str, Any]:
    from cl_complora.engine.constraints import Constraint
    from cl_complora.store.provenance import PeakMemory

    from .clips import image_size, pictures, random_clip
    from .peers import ClipLoRALoop, Engine, FullAvalanche, PeftStep

    make: dict[str, Callable] = {
        "ours": lambda clip: Engine("Comp-LoRA (ours)", clip, Constraint(), device),
        "dense": lambda clip: ClipLoRALoop(clip, device),
        "full": lambda clip: FullAvalanche(clip, device),
        "peft": lambda clip: PeftStep(clip, device),
    }
    before = _resident() if device == "cpu" else 0
    clip = random_clip(work.model)
    side = make[name](clip)
    images = pictures(work.batch, image_size(clip), work.batch).pixels.to(device).float() / 128 - 1
    side.show(images, (torch.arange(work.batch) % work.classes).to(device), work.classes)
    side.step()  # from the second step on the optimiser has its state
    logits = side.logits
    gc.collect()
    mark, began = PeakMemory(device), time.perf_counter()
    side.step()
    seconds = time.perf_counter() - began
    return {"name": side.name, "bytes": mark.bytes() - before, "median_s": seconds, "logits": logits.cpu()}


def _resident() -> int:
    from cl_complora.store.provenance import PeakMemory

    return PeakMemory("cpu").bytes()


# -- EWC
# ----------------------------------------------------------------------------------------------------


def _ewc(work: Work) -> Case:
    ours, stock = apart(_ewc_ours, work), apart(_ewc_stock, work)
    case = Case(
        "memory",
        f"EWC on {work.model} after {TASKS} tasks (ours: q, k, v of both towers; Avalanche's: every"
        f" parameter, one task run and counted {TASKS} times)",
        {key: ours[key] for key in ("name", "bytes", "median_s")},
    )
    anchors = {name: stock["anchors"][name] for name in ours["anchors"]}
    _add(case, stock, [Check("anchor of every adapted weight", worst(anchors, ours["anchors"]), 1e-6)])
    return case


def _ewc_ours(work: Work) -> dict[str, Any]:
    from cl_complora.config.penalties import Ewc
    from cl_complora.engine.penalties.ewc import EwcPlugin

    from .clips import random_clip

    strategy, adapter = _strategy(work, random_clip(work.model))
    plugin = EwcPlugin(Ewc(kind="ewc", strength=1.0, online=False, samples=1), adapter, 0)
    began = time.perf_counter()
    plugin.after_training_exp(strategy)
    seconds = time.perf_counter() - began
    for _ in range(TASKS - 1):  # the same Fisher again: what is held does not depend on its values
        plugin.add(plugin.fisher, plugin.centre)
    held = sum(value.nbytes for value in plugin.tensors().values())
    anchors = {slot.name: plugin.centre[slot.key] for slot in adapter.slots}
    return {"name": "EwcPlugin (ours)", "bytes": held, "median_s": seconds, "anchors": anchors}


def _ewc_stock(work: Work) -> dict[str, Any]:
    from avalanche.training.plugins import EWCPlugin
    from torch import nn

    from cl_complora.data.tasks import Images
    from cl_complora.engine.experience import as_avalanche

    from .clips import PlainClassifier, random_clip, space_of

    clip = random_clip(work.model)
    model = PlainClassifier(clip, space_of(3).class_names)
    data = as_avalanche(Images(*_normalised(clip)))
    plugin = EWCPlugin(1.0)
    parts = {
        "model": model,
        "_criterion": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "experience": type("Experience", (), {"dataset": data})(),
        "device": "cpu",
        "train_mb_size": 1,
        "clock": type("Clock", (), {"train_exp_counter": 0})(),
    }
    began = time.perf_counter()
    plugin.after_training_exp(type("Strategy", (), parts)())
    seconds = time.perf_counter() - began
    held = sum(p.data.nbytes for by in (plugin.saved_params, plugin.importances) for p in by[0].values())
    anchors = {}
    for name, value in plugin.saved_params[0].items():
        if name.endswith("in_proj_weight"):
            path = name.removeprefix("clip.").removesuffix(".in_proj_weight")
            anchors |= {
                f"{path}.{m}": part.clone() for m, part in zip("qkv", value.data.chunk(3), strict=True)
            }
    return {
        "name": "EWCPlugin, separate (Avalanche)",
        "bytes": TASKS * held,
        "median_s": seconds,
        "anchors": anchors,
    }


# -- LwF
# ----------------------------------------------------------------------------------------------------


def _lwf(work: Work) -> Case:
    ours, stock = apart(_lwf_ours, work), apart(_lwf_stock, work)
    case = Case(
        "memory",
        f"LwF on {work.model}: what is kept as the teacher",
        {key: ours[key] for key in ("name", "bytes", "median_s")},
    )
    _add(case, stock, [Check("the teacher's logits", relative(stock["logits"], ours["logits"]), LOGITS)])
    return case


def _lwf_ours(work: Work) -> dict[str, Any]:
    from cl_complora.config.penalties import Lwf
    from cl_complora.engine.penalties.distillation import LwfPlugin

    from .clips import random_clip

    clip = random_clip(work.model)
    strategy, adapter = _strategy(work, clip)
    plugin = LwfPlugin(Lwf(kind="lwf", strength=1.0), adapter, 0)
    plugin.after_training_exp(strategy)
    adapter.attach(strategy.model)
    with torch.no_grad():
        for block in adapter.blocks.values():  # the student has moved on, the teacher is what it was
            block.B.fill_(0.01)
    began = time.perf_counter()
    plugin.before_training_exp(strategy)
    with torch.no_grad(), adapter.previous():
        features = strategy.model.image_features(_normalised(clip)[0])
        logits = strategy.model.scores(features, plugin._held[0][1])
    seconds = time.perf_counter() - began
    held = sum(texts.nbytes for _, texts in plugin._held)
    return {"name": "LwfPlugin (ours)", "bytes": held, "median_s": seconds, "logits": logits}


def _lwf_stock(work: Work) -> dict[str, Any]:
    from avalanche.benchmarks.utils.classification_dataset import (
        _make_taskaware_tensor_classification_dataset,
    )
    from avalanche.training.plugins import LwFPlugin

    from .clips import PlainClassifier, random_clip, space_of

    clip = random_clip(work.model)
    images, labels = _normalised(clip)
    model = PlainClassifier(clip, space_of(3).class_names)
    data = _make_taskaware_tensor_classification_dataset(images, labels, task_labels=0)
    plugin = LwFPlugin()
    experience = type("Experience", (), {"dataset": data})()
    began = time.perf_counter()
    plugin.after_training_exp(type("Strategy", (), {"model": model, "experience": experience})())
    with torch.no_grad():
        logits = plugin.lwf.prev_model(images)
    seconds = time.perf_counter() - began
    held = sum(p.nbytes for p in plugin.lwf.prev_model.parameters())
    return {"name": "LwFPlugin (Avalanche)", "bytes": held, "median_s": seconds, "logits": logits}


# -- common
# ----------------------------------------------------------------------------------------------------


def _strategy(work: Work, clip: torch.nn.Module) -> tuple[Any, Any]:
    """What a plugin reads of a strategy, around one picture and three classes, and the adapter of q, k
    and v."""
    from cl_complora.clip.classifier import ClipClassifier
    from cl_complora.clip.slots import open_slots
    from cl_complora.data.tasks import Images
    from cl_complora.engine.constraints import Constraint
    from cl_complora.engine.experience import ClipExperience
    from cl_complora.engine.updates.complora import CompLoRAPlugin

    from .clips import space_of, task_of, tokenizer

    space = space_of(3)
    classifier = ClipClassifier(clip, tokenizer(), space).eval()
    open_slots(clip)
    adapter = CompLoRAPlugin(rank=2, matrices=["q", "k", "v"], constraint=Constraint(select="none"))
    adapter.prepare(classifier)
    task = task_of(Images(*_normalised(clip)), space)
    return type("Strategy", (), {"model": classifier, "experience": ClipExperience([task], 0)})(), adapter


def _normalised(clip: torch.nn.Module) -> tuple[Tensor, Tensor]:
    """One picture in the float range of the tower, and its label."""
    from .clips import image_size, pictures

    images = pictures(1, image_size(clip), 3)
    return images.pixels.float() / 128 - 1, images.labels


def _add(case: Case, side: dict[str, Any], checks: list[Check]) -> None:
    fault = fault_of(Side(side["name"], lambda: None, checks))
    if fault is not None:
        case.refused[side["name"]] = fault
        return
    case.peers[side["name"]] = {
        "bytes": side["bytes"],
        "median_s": side["median_s"],
        "ratio": side["bytes"] / case.ours["bytes"],
        **agreement(checks),
    }


def apart(function: Callable, *arguments: object) -> dict[str, Any]:
    """Run in a fresh process, whose memory is nobody else's; only the libraries are there already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.peers"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()
