"""Class folders of empty files, and scenarios beside them."""

from __future__ import annotations

from pathlib import Path

from cl_complora.config import load_scenario
from cl_complora.data.planning import Plans, plan


def touch(root: Path, **classes: int) -> Path:
    """Class folders of empty files, enough where nothing is decoded."""
    for name, count in classes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / name / f"{number}.png").touch()
    return root


def touch_all(root: Path) -> Path:
    """``divided`` (train and test) and ``whole`` class folders of empty files."""
    for split, count in (("train", 8), ("test", 5)):
        touch(root / "divided" / split, ant=count, bee=count, cat=count, dog=count)
    touch(root / "whole", ant=10, bee=10, cat=7)
    return root


def scenario(folder: Path, tasks: str, more: str = "") -> Path:
    """A scenario file beside the class folders; ``tasks`` has a line ``name; root; more keys`` for each."""
    lines = []
    for line in tasks.strip().splitlines():
        name, root, *rest = (part.strip() for part in line.split(";"))
        lines.append(
            f"  - {{name: {name}, source: {{kind: folder, root:"
            f" {root}}}{''.join(f', {part}' for part in rest)}}}"
        )
    path = folder / "scenario.yaml"
    path.write_text(f"name: x\n{more}\ntasks:\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def planned(folder: Path, tasks: str, more: str = "", seed: int = 0) -> Plans:
    return plan(load_scenario(str(scenario(folder, tasks, more))), seed)


def keys(items) -> list[str]:
    return [item.key for item in items]
