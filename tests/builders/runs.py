"""Strategy files, and what a run leaves, in the form in which two runs can be compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file

STRATEGY = """
name: {name}
adapter:
  {{kind: lowrank, rank: 2, matrices: [q, v, fc], subspace: {{select: complement, keep: {{energy: 0.5}}}}}}
optimiser: {{name: adamw, lr: 5e-3}}
training: {{steps: 4, batch_size: 6}}
"""


def on_own_pictures(scenario: Path, pictures: Path, folder: Path) -> tuple[Path, Path]:
    """A scenario whose sets have one root, on a copy of it that a test may change.

    Returns:
        The scenario's file in the folder, and the copy.
    """
    copy = folder / "pictures"
    shutil.copytree(pictures, copy)
    source = yaml.safe_load(scenario.read_text())
    for entry in (*source["tasks"], *source["zero_shot"]):
        entry["source"]["root"] = str(copy)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(source))
    return path, copy


def without_timings(results: dict) -> dict:
    """results.json less what no two runs share."""
    results = json.loads(json.dumps(results))
    for detail in results["tasks_detail"]:
        del detail["train_seconds"], detail["eval_seconds"], detail["peak_memory_bytes"]
    return results


def deltas_of(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """File name → tensors of every delta that a run left."""
    return {path.name: load_file(path) for path in sorted((folder / "deltas").iterdir())}
