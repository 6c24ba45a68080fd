"""Trials that are there already, answered without torch and without their model.

Whether a finished run is what a trial asks for is found out by who loads the model: its weights, its
architecture and every file that the run left are looked at. What was looked at is noted in the run's folder,
``checked.json``; as long as none of it has changed, and the settings and pictures are the same, the answer
is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import write_json
from ..store.folder import RunDir
from ..store.provenance import software
from .by_image import kept_by
from .outcomes import Outcome, folder_of
from .plan_store import PlanStore
from .trial_folders import TrialFolders
from .trials import Trial
from .update_rows import are_rows
from .weight_files import content_of, model_known_by


def note_checked(t: Trial, folder: RunDir) -> None:
    """Note what a finished run was found whole and current with; a disk that takes no note costs nothing.

    Args:
        t: that the run answers.
        folder: of the run.
    """
    with suppress(OSError):
        write_json(folder.checked, _looked_at_with(t, folder))


class FoundFinished:
    """Answers trials from the folders of their runs.

    Args:
        out: folder of all runs.
        plans: of the trials, where some are made already.

    Attributes:
        folders: of the runs, held against what trials ask for.
    """

    def __init__(self, out: Path, plans: PlanStore | None = None) -> None:
        self.out = out
        self.folders = TrialFolders(out, plans)

    def outcome(self, t: Trial) -> Outcome | None:
        """What a worker would answer without training anything; None where that is for a worker to tell."""
        began = time.perf_counter()
        folder = folder_of(t, self.out)
        # Code of the user's own, which is in no note.
        if t.strategy.value.plugin is not None or not (folder.checked.is_file() and folder.results.is_file()):
            return None
        try:
            # Without its lock: who looks must not be in the way of who works, nor of others who look. So
            # what was read counts where nobody had begun to change it.
            found = self._read(t, folder) if self._is_current(t, folder) else None
            if found is None or not self._is_current(t, folder):
                return None
        except (UserError, OSError):  # told by a worker
            return None
        return replace(found, seconds=time.perf_counter() - began)

    def _read(self, t: Trial, folder: RunDir) -> Outcome | None:
        results = folder.read_results()
        if results is None or results["status"] != "done":
            return None
        updates = None if t.validation else folder.read_json(folder.updates)
        # What they are of was looked at; an earlier version noted them in whatever form they had.
        if not (t.validation or are_rows(updates, len(results["tasks"]))):
            return None
        return Outcome(results, updates, {} if t.validation else kept_by(folder, results), None, reused=True)

    def _is_current(self, t: Trial, folder: RunDir) -> bool:
        if not folder.config.is_file() or folder.read_json(folder.checked) != _looked_at_with(t, folder):
            return False
        # The files of the model are what they were, and so is what it was found to be.
        self.folders.check(t)
        return True


def _looked_at_with(t: Trial, folder: RunDir) -> dict[str, Any]:
    """Versions, the model's files, and the content of every file of the run that a worker looks through."""
    return {
        "software": software(),
        "model": model_known_by(t.scenario.value, t.scenario.folder),
        "files": {path.relative_to(folder.root).as_posix(): content_of(path) for path in _files_of(folder)},
    }


def _files_of(folder: RunDir) -> Iterator[Path]:
    for path in (folder.config, folder.results, folder.classes, folder.updates):
        if path.is_file():
            yield path
    for part in ("tasks", "deltas", "heads"):
        yield from sorted(path for path in (folder.root / part).glob("*") if path.is_file())
