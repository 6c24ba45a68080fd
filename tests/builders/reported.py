"""Folders of runs that a report has something to say about."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import yaml
from safetensors.numpy import load_file, save_file

from cl_complora import metrics
from cl_complora.store.folder import RunDir


def forgetful_run(whole: Path, target: Path) -> Path:
    """A run whose first task is forgotten, so that there is something to explain."""
    folder = Path(shutil.copytree(whole, target))
    forget_the_first_task(RunDir(folder))
    explained = {
        "new": "cold", "old": "warm", "images": 12, "accuracy_before": 1.0, "accuracy_after": 0.5,
        "zero_shot": {"colours": [0.5, 0.25]},
        "parts": [
            {"kind": "tower", "name": "text", "returned": 12.5, "probability": 3.5, "cost": 2.0,
             "retention": {"colours": 1.5}},
            {"kind": "layer", "name": "vision 1", "returned": 33.25, "retention": {"colours": -2.5}},
        ],
    }  # fmt: skip
    (folder / "explain.json").write_text(json.dumps({"pairs": [explained], "created_with": {}}))
    return folder


def forget_the_first_task(folder: RunDir) -> None:
    """Right after its training all images of ``warm`` were right; now half of those of one class are not."""
    results = json.loads(folder.results.read_text())
    right = np.repeat([0, 1], 6).astype(np.int32)
    now = right.copy()
    now[[1, 2, 4]] = 1
    for index, name, labels in ((0, "warm", right), (1, "cold", now)):
        answers = load_file(folder.predictions(index, name))
        shares = np.linspace(0.55, 0.95, 12).astype(np.float32)
        save_file(answers | {"warm/label": labels, "warm/share": shares}, folder.predictions(index, name))
        results["accuracy"][index + 1][0] = float((labels == right).mean())
    results |= metrics.summarize(results["accuracy"])
    folder.results.write_text(json.dumps(results))


def made_run(
    folder: Path, names: list[str], classes: list[str], layers: tuple[int, int], steps: int
) -> RunDir:
    """A run's folder of any size, with everything that a report can read."""
    rng, found = np.random.default_rng(0), RunDir(folder)
    tasks = len(names)
    sets = ["a set", names[0]]
    accuracy = rng.uniform(0.2, 0.9, (tasks + 1, tasks))
    accuracy[1:, 0] = np.linspace(1, 0.5, tasks)
    zero_shot = {name: rng.uniform(0.5, 0.6, tasks + 1).tolist() for name in sets}
    split = [{"split": "test", "class": c, "key": f"{c}/{n}.png"} for c in classes for n in range(8)]
    results = {
        "schema": 1, "scenario": classes[0], "strategy": classes[-1], "seed": 0, "status": "done",
        "tasks": names,
        "model": {"name": classes[0], "pretrained": "x", "sha256": "0" * 64}, "zero_shot_sets": sets,
        "zero_shot_images": dict.fromkeys(sets, 900), "accuracy": accuracy.tolist(), "zero_shot": zero_shot,
        **metrics.summarize(accuracy), "retention": {s: metrics.retention(v) for s, v in zero_shot.items()},
        "tasks_detail": [{"name": n, "classes": 100, "shots": 16, "train_images": 1600, "test_images": 800,
                          "split_sha256": "0" * 64, "steps": steps, "train_seconds": 9.5} for n in names],
        "software": {"torch": classes[0]}, "device": classes[0],
    }  # fmt: skip
    scenario = {"name": "made", "protocol": "task-incremental", "tasks": [{"name": n} for n in names]}
    config = {
        "scenario": scenario,
        "strategy": {"name": classes[0]},
        "seed": 0,
        "model": results["model"],
        "splits": dict.fromkeys(names, "0" * 64),
    }
    for place in (found.record(0, "x"), found.analysis(0, "x"), found.predictions(0, "x"), found.split("x")):
        place.parent.mkdir(parents=True, exist_ok=True)
    found.results.write_text(json.dumps(results))
    found.config.write_text(yaml.safe_dump(config, allow_unicode=True))
    found.classes.write_text(
        json.dumps({n: {"classes": classes, "prompts": ["{}"]} for n in [*names, *sets]})
    )
    matrices = [
        f"{tower}transformer.resblocks.{layer}.{part}"
        for tower, depth in zip(("visual.", ""), layers, strict=True)
        for layer in range(depth)
        for part in ("attn.q", "attn.k", "attn.v", "attn.out_proj.o", "mlp.c_fc.fc", "mlp.c_proj.proj")
    ]
    measures = ("delta_norm", "relative_norm", "principal_overlap", "drift", "principal_rank", "update_rank")
    for index, name in enumerate(["zero-shot", *names]):
        if name != "zero-shot":
            found.split(name).write_text("".join(json.dumps(row) + "\n" for row in split))
        labels = np.repeat(np.arange(len(classes)), 8).astype(np.int32)
        labels[: 4 * (index > 1)] = len(classes) - 1
        answers = {f"{n}/label": labels for n in names} | {
            f"{n}/share": labels.astype(np.float32) for n in names
        }
        save_file(answers, found.predictions(index - 1, name))
        if index:
            geometry = {m: {"k": 100, "delta_norm": 1.0, "protected_overlap": 1e-8} for m in matrices}
            record = {"geometry": geometry, "curve": rng.uniform(0, 3, steps).tolist()}
            found.record(index - 1, name).write_text(json.dumps(record))
            earlier = names[: index - 1]
            values = {m: {k: float(rng.uniform()) for k in measures} for m in matrices}
            values = {m: v | {"overlap_with": {n: 0.25 for n in earlier}} for m, v in values.items()}
            cka = {n: 0.75 for n in earlier}
            found.analysis(index - 1, name).write_text(json.dumps({"matrices": values, "cka": cka}))
    parts = [
        {"kind": "matrix", "name": m, "returned": 1.0, "retention": {s: 0.5 for s in sets}} for m in matrices
    ]
    pairs = [
        {"new": new, "old": old, "images": 8, "accuracy_before": 0.9, "accuracy_after": 0.8, "parts": parts}
        for place, new in enumerate(names)
        for old in names[:place]
    ]
    (folder / "explain.json").write_text(json.dumps({"pairs": pairs}))
    return found
