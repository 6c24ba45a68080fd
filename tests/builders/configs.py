"""A valid scenario and a valid strategy, and what a reader says of files that were made from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from cl_complora.config import load_scenario, load_strategy
from cl_complora.data.planning import plan
from cl_complora.errors import UserError

SCENARIO = """\
# a comment
name: mine
protocol: task-incremental
shots: 2
prompts: ["a photo of a {}."]
augment: {crop: [0.7, 1.0], flip: false}
tasks:
  - name: a
    source: {kind: folder, root: animals}
  - name: b
    source:
      kind: folder
      root: animals
    class_range: [0, 2]
zero_shot:
  - name: z
    source: {kind: world, domain: general}
    images: 50
seeds: [0, 1]
"""


STRATEGY = """\
# a comment
name: mine
adapter:
  kind: lowrank
  rank: 8
  matrices: [q, k, v]
  subspace:
    select: complement
    keep: {energy: 0.5}
regularisers:
  - kind: ewc
    strength: 100
memory: {kind: replay}
optimiser:
  name: adamw
  lr: 1e-3
training: {steps: 80}
sweep:
  optimiser.lr: [5e-4, 1e-3]
"""


TEXTS = {"scenario": SCENARIO, "strategy": STRATEGY}


def animals(root: Path) -> Path:
    """A folder with a class-folder source, one that is empty, and a file."""
    for split in ("train", "test"):
        for name in ("cat", "cow", "dog"):
            (root / "animals" / split / name).mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (8, 8)).save(root / "animals" / split / name / f"{number}.png")
    (root / "hollow").mkdir()
    (root / "afile").write_text("x")
    return root


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / f"{name}.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def check(kind: str, path: Path | str, overrides: tuple[str, ...] = ()) -> None:
    """Everything that ``run`` checks before it imports torch."""
    if kind == "strategy":
        load_strategy(str(path), overrides)
    else:
        plan(load_scenario(str(path), overrides), 0)


def refusal(kind: str, path: Path | str, overrides: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The messages about a file that must be refused, each fit for one line."""
    with pytest.raises(UserError) as caught:
        check(kind, path, overrides)
    assert all(message.isprintable() and len(message) < 1200 for message in caught.value.messages)
    return caught.value.messages
