"""A run's folder: one writer at a time, every file whole or absent, enough in it to go on after any
interruption.

runs/<scenario>/<strategy>/seed<k>/
    config.yaml           the resolved scenario and strategy, and what the run was made with (fingerprint)
    results.json          the stable interface (see docs/architecture.md)
    deltas/<nn>-<task>.safetensors     what each task added to the weights
    heads/<nn>-<task>.safetensors      what answers in place of texts (strategies with a head)
    tasks/<nn>-<task>.json             what each task measured: results rows, geometry, training curve
    splits/<task>.jsonl   the images of every task
    classes.json          class names and prompts of every task and zero-shot set
    predictions/<nn>-<task>.safetensors   what every state answered to every test image
    analysis/<nn>-<task>.json             geometry of each update, drift of features (not with --no-analysis)
    features/<nn>-<task>.safetensors      features of a task's images just after it, to tell later drift by
    updates.json          size and overlaps of every update (of compared runs)
    checked.json          what a comparison found whole, so that the next one need not load the model
    failed.json           why training ended without an end, where it did and not for want of memory
    tensorboard/, report.html             views of the above
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..config import Scenario
from ..config.loading import Located
from ..config.recorded import learning_states, recorded
from ..errors import UserError, printable
from ..files import parse_json, read_text, slug
from . import forms
from .leftovers import remove_leftovers
from .lock import Held, ignore, lock
from .moved import find_file, rebased

# A run, and one that was set aside.
_OF_SEED = re.compile(r"seed\d+(\.|$)", re.IGNORECASE)


def _numbered(index: int, task: str) -> str:
    return f"{index + 1:03d}-{slug(task)}"


class RunDir:
    """Paths and state of one run."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def of(cls, out: Path, scenario: str, strategy: str, seed: int, variant: str = "") -> RunDir:
        """``out/<scenario>/<strategy>/seed<k>``, with the variant's folder before the seed's where there is
        one.

        Raises:
            UserError: for a variant that would lie outside the strategy's folder, or where one of its runs
                does.
        """
        if variant.startswith(".") or _OF_SEED.match(slug(variant)):
            raise UserError(
                f"--variant {printable(repr(variant))}: becomes a folder beside seed{seed}, so it must not"
                " begin with a dot, nor be called as runs are (seed and a number)"
            )
        return cls(out / slug(scenario) / slug(strategy) / slug(variant) / f"seed{seed}")

    @property
    def results(self) -> Path:
        """results.json."""
        return self.root / "results.json"

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.yaml"

    @property
    def classes(self) -> Path:
        """Class names and prompts of every task and zero-shot set."""
        return self.root / "classes.json"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.root / "tensorboard"

    @property
    def updates(self) -> Path:
        """Size and overlaps of every task's update, as a comparison measured them."""
        return self.root / "updates.json"

    @property
    def checked(self) -> Path:
        """What a comparison found whole and current."""
        return self.root / "checked.json"

    def delta(self, index: int, task: str) -> Path:
        """Weights that task ``index`` (from 0) added."""
        return self.root / "deltas" / f"{_numbered(index, task)}.safetensors"

    def head(self, index: int, task: str) -> Path:
        """Head after task ``index``, of a strategy that has one."""
        return self.root / "heads" / f"{_numbered(index, task)}.safetensors"

    def record(self, index: int, task: str) -> Path:
        """What task ``index`` measured; written last, so a task with a record is complete."""
        return self.root / "tasks" / f"{_numbered(index, task)}.json"

    def state(self, index: int, task: str, plugin: int) -> Path:
        """What plugin number ``plugin`` holds after task ``index``."""
        return self.root / "state" / f"{_numbered(index, task)}.plugin{plugin}.safetensors"

    def checkpoint(self, index: int, task: str, step: int | None = None, digest: str = "") -> Path:
        """State within task ``index`` after a step; the folder of all such states where no step is named."""
        folder = self.root / "state" / f"inside-{_numbered(index, task)}"
        return folder if step is None else folder / f"{step:08d}-{digest}.safetensors"

    def predictions(self, index: int, task: str) -> Path:
        """Answers to every test image after task ``index``."""
        return self.root / "predictions" / f"{_numbered(index, task)}.safetensors"

    def analysis(self, index: int, task: str) -> Path:
        """What task ``index`` did to the weights and to the features of earlier tasks."""
        return self.root / "analysis" / f"{_numbered(index, task)}.json"

    def features(self, index: int, task: str) -> Path:
        """Features of some of the task's images just after it."""
        return self.root / "features" / f"{_numbered(index, task)}.safetensors"

    def split(self, task: str) -> Path:
        """Manifest of a task's images."""
        return self.root / "splits" / f"{slug(task)}.jsonl"

    def read_json(self, path: Path) -> Any:
        """Content of a JSON file of this run, or None if it is not there.

        Raises:
            UserError: if the file is damaged.
        """
        return forms.read_json(path)

    def read_config(self) -> dict[str, Any] | None:
        """What the run was made with, or None if config.yaml is not there.

        Raises:
            UserError: if it is damaged or of another version.
        """
        if not self.config.exists():
            return None
        return forms.checked(self.config, forms.Config, forms.read_yaml(self.config))

    def learned_in(self, tasks: int) -> list[int]:
        """The row of the accuracy matrix where each of so many tasks was just trained.

        Raises:
            UserError: as :meth:`read_config`.
        """
        return learning_states(self.read_config(), tasks)

    def read_results(self) -> dict[str, Any] | None:
        """results.json, or None if it is not there.

        Raises:
            UserError: if it is damaged or of another version.
        """
        if not self.results.exists():
            return None
        return forms.checked_results(self.results, forms.read_json(self.results))

    @property
    def failure(self) -> Path:
        """Why training ended without an end; not there while it goes on, after it was finished, and where
        the machine was the reason."""
        return self.root / "failed.json"

    def read_failure(self) -> str | None:
        """Why training ended without an end; None where it did not."""
        try:
            content = forms.read_json(self.failure)
        except UserError:  # cut off: the same command runs it again
            return None
        return str(content["error"]) if isinstance(content, dict) and "error" in content else None

    def read_labels(self) -> dict[str, dict[str, list[str]]]:
        """Name of every task and zero-shot set → its ``classes`` and ``prompts``.

        Raises:
            UserError: if classes.json is missing or damaged.
        """
        content = forms.read_json(self.classes)
        if content is None:
            raise UserError(f"{self.classes}: missing; the same run command writes it again")
        if not isinstance(content, dict):
            raise forms.damaged(self.classes, "must be an object")
        return {name: forms.checked(self.classes, forms.Labels, part) for name, part in content.items()}

    def read_split(self, name: str, told: str = "class") -> list[dict[str, Any]]:
        """Rows of a split manifest.

        Args:
            name: of a task, zero-shot set or retrieval set.
            told: what every row says of its image: ``class``, or ``texts`` in a retrieval set.

        Raises:
            UserError: if the manifest is missing or damaged.
        """
        path = self.split(name)
        try:
            # Not str.splitlines, which also splits at characters that names of files may hold as they are.
            lines = read_text(path, forms.MAX_SPLIT).split("\n")
            rows = [parse_json(line, own=True) for line in lines if line]
            kinds = {"split": str, told: str if told == "class" else list, "key": str}
            if not all(isinstance(row[key], kind) for row in rows for key, kind in kinds.items()):
                raise ValueError(f"{', '.join(kinds)}: one is of another kind")
            return rows
        except (ValueError, KeyError, TypeError) as error:
            raise forms.damaged(path, error) from None

    def recorded_scenario(self, config: dict[str, Any]) -> Located[Scenario]:
        """The scenario that the run was made with, with its file as it lies now, which relative
        paths start from.

        Raises:
            UserError: if the configuration is damaged or of another version.
        """
        try:
            file = find_file(self.root, config["files"], "scenario")
            scenario = rebased(config["scenario"], Path(config["files"]["scenario"]), file)
            return Located(recorded(Scenario, scenario), str(file), {})
        except (ValidationError, KeyError, TypeError) as error:
            raise forms.damaged(self.config, error) from None

    @property
    def holds_nothing(self) -> bool:
        """Whether nothing was measured or learned yet, so that other settings mix with nothing."""
        work = (self.root / part for part in ("tasks", "deltas", "state"))
        return not self.results.exists() and not any(any(part.glob("*")) for part in work)

    def forget_beginning(self) -> None:
        """Remove what is written when a run begins; its tables of pictures may be those of other tasks."""
        for file in (self.config, self.classes, self.failure):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.root / "splits", ignore_errors=True)

    def set_aside(self) -> Path | None:
        """Move an existing run away (``seed0.2026-01-31-120000``) and return its new place."""
        if not self.root.exists():
            return None
        stamp = datetime.now().strftime("%Y-%m-%d-%H%M%S")
        target = self.root.with_name(f"{self.root.name}.{stamp}")
        counter = 1
        while target.exists():
            counter += 1
            target = self.root.with_name(f"{self.root.name}.{stamp}-{counter}")
        shutil.move(self.root, target)
        return target

    @contextmanager
    def locked(
        self, lost: Callable[[str], None] = ignore, tell: Callable[[str], None] = ignore
    ) -> Iterator[None]:
        """Hold the run for this process; the lock of a dead process is void, whatever killed it.

        Args:
            lost, tell: as for :func:`~cl_complora.store.lock.lock`.

        Raises:
            UserError: naming the process that holds it.
        """
        with ExitStack() as held:
            try:
                self.root.parent.mkdir(parents=True, exist_ok=True)
                # Beside the folder, not in it: setting the folder aside must not take the lock along.
                held.enter_context(lock(self.root.with_name(f".{self.root.name}.lock"), lost, tell))
            except Held as other:
                raise UserError(
                    f"{self.root}: in use by {other}; wait for it or choose another --out"
                ) from None
            except OSError as error:
                raise UserError(
                    f"{self.root}: cannot write the run there: {error.strerror or error}"
                ) from None
            remove_leftovers(self.root)
            yield
