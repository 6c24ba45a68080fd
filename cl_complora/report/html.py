"""A run or a comparison as one HTML file: no network, light and dark, for screens, paper and screen
readers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import UserError
from ..files import check_writable, read_text, write_text
from ..store.folder import RunDir
from ..store.forms import MAX_JSON
from .comparison.members import (
    COMPARISON,
    REPORT,
    comparison_of,
    load_comparison,
    members,
    way_back,
)
from .elements import Cell, with_links


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the report of a run or of a comparison; one that still goes on gets a report of what is there.

    Args:
        folder: of a run (``runs/embedded/complora/seed0``) or of a comparison (``runs/embedded``).
        out: the file to write; ``report.html`` in the folder by default.

    Returns:
        The file.

    Raises:
        UserError: if the folder is neither, or what it holds is damaged; as :func:`check_page`.
        OSError: if the file cannot be written.
    """
    check_page(out)
    target = folder / REPORT if out is None else out
    write_text(target, _page(folder, target))
    if out is None:
        _link_back(folder, target)
    return target


def check_page(file: Path | None, ends: Sequence[str] = (".html", ".htm"), option: str = "") -> None:
    """Refuse a folder, a file that is called like something else, which a page would be written over, and a
    place where nothing can be written.

    Args:
        file: to be written; None is nobody's.
        ends: that its name may have.
        option: that named it, where one did.

    Raises:
        UserError: naming both.
    """
    if file is None:
        return
    told = f"{option} {file}".strip()
    if file.is_dir():
        raise UserError(f"{told}: is a folder; name the file, such as {file / f'report{ends[0]}'}")
    if file.suffix not in ends:
        raise UserError(f"{told}: must end in {' or '.join(ends)}")
    check_writable(file, told)


def _link_back(folder: Path, target: Path) -> None:
    """Put the way back into those reports of a comparison's runs that were written before it."""
    if not (folder / COMPARISON).is_file():
        return
    for run in members(load_comparison(folder), folder):
        page = run / REPORT
        try:
            if page.is_file():
                before = read_text(page, MAX_JSON)
                after = with_links(before, [way_back(folder, page)])
                if after != before:
                    write_text(page, after)
        except (OSError, UserError):  # a report of somebody else's, which stays as it is
            continue


def write_reports_of_runs(folder: Path) -> list[Path]:
    """Write the report of every tested run of a comparison, which is then written itself.

    Returns:
        The files.

    Raises:
        UserError: if the folder is no comparison, or a run is damaged.
    """
    if not (folder / COMPARISON).is_file():
        raise UserError(f"--runs: {folder} is no comparison (no {COMPARISON})")
    return [write_report(run) for run in members(load_comparison(folder), folder)]


def try_report(folder: Path, tell: Callable[[str], None]) -> Path | None:
    """:func:`write_report` after a run, which must not fail because of a view of it.

    Args:
        folder: as there.
        tell: given a sentence where no report could be written.

    Returns:
        The file, or None.
    """
    try:
        return write_report(folder)
    except Exception as error:  # whatever it is, the results are on the disk and right
        said = error.messages[0] if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        tell(f"no report was written: {said}")
        return None


def _page(folder: Path, target: Path) -> str:
    if not folder.is_dir():
        raise UserError(
            f"{folder}: there is no such folder; give a run's, such as runs/embedded/complora/seed0"
        )
    if (folder / COMPARISON).is_file():
        from .comparison.page import comparison_page

        return comparison_page(load_comparison(folder), folder, target).html()
    run = RunDir(folder)
    if not (run.results.is_file() or run.config.is_file()):
        inside = [
            path.parent for depth in (1, 2, 3) for path in sorted(folder.glob("*/" * depth + "results.json"))
        ][:3]
        hint = f"; runs in it: {', '.join(map(str, inside))}" if inside else ""
        raise UserError(f"{folder}: is no run (no results.json) and no comparison (no comparison.json){hint}")
    from ..store.loaded_run import load_run
    from .run.page import run_page

    return run_page(load_run(run), _comparison(run, target)).html()


def _comparison(run: RunDir, target: Path) -> list[Cell]:
    """The way to the comparison that a run belongs to, where that has a report."""
    folder = comparison_of(run.root)
    if folder is None or not (folder / REPORT).is_file():
        return []
    return [way_back(folder, target)]
