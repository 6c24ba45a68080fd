"""Runs by name: ``embedded/complora``, or ``complora`` where only one run is called that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError

# Where runs are looked for by name: what --out is unless it is given.
HOME = Path("runs")
# runs/<scenario>/<strategy>/[<variant>/]seed<k>
_DEEPEST = 4
_MOST_SHOWN = 5


def find_run(given: str | Path, home: Path = HOME) -> Path:
    """Folder of a run given by path, or by parts of its path in the folder of all runs.

    Args:
        given: a folder; or such as ``embedded/complora/seed0``, ``embedded/complora`` or ``complora``.
        home: folder of all runs.

    Raises:
        UserError: if there is no such run, or several; the message lists those that it may be.
    """
    path = Path(given)
    if path.is_dir():
        if is_run(path):
            return path
        inside = _listed("runs in it", list(runs_in(path)))
        raise UserError(f"{path}: is no run (it has no config.yaml){inside}")
    if path.exists():
        hint, page = "", path.with_suffix(".md")
        if path.suffix == ".safetensors" and page.is_file():  # as export leaves them
            hint = f"; {page} has the lines of Python that use these weights without their run"
        raise UserError(f"{path}: is a file; give a run's folder, such as runs/embedded/complora/seed0{hint}")
    known = list(runs_in(home))
    exact = [run for run in known if run.relative_to(home).parts[: len(path.parts)] == path.parts]
    named = exact or [run for run in known if _holds(run.relative_to(home).parts, path.parts)]
    if len(named) == 1:
        return named[0]
    if named:
        raise UserError(f"{given}: {len(named)} runs are called that{_listed('give one of', named)}")
    hint = _listed(f"runs in {home}", known) or "; give a run's, such as runs/embedded/complora/seed0"
    raise UserError(f"{given}: there is no such folder, and no run of that name{hint}")


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run, begun or finished."""
    return (folder / "config.yaml").is_file() or (folder / "results.json").is_file()


def runs_in(folder: Path) -> Iterator[Path]:
    """Runs below a folder, in the order of their paths; those set aside are left out."""
    found = {
        path.parent
        for depth in range(1, _DEEPEST + 1)
        for name in ("config.yaml", "results.json")
        for path in folder.glob("*/" * depth + name)
    }
    yield from sorted(path for path in found if "." not in path.name)


def _holds(parts: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether the wanted parts stand next to one another in the path."""
    return any(parts[at : at + len(wanted)] == wanted for at in range(len(parts)))


def _listed(title: str, runs: list[Path]) -> str:
    if not runs:
        return ""
    more = f" and {len(runs) - _MOST_SHOWN} more" if len(runs) > _MOST_SHOWN else ""
    return f"; {title}: {', '.join(map(str, runs[:_MOST_SHOWN]))}{more}"
