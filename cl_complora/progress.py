"""What a run shows while it works: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.progress_bar import ProgressBar

from .errors import printable


class Progress(Protocol):
    """Told what a run is doing; the command line draws it."""

    def message(self, text: str) -> None:
        """One line worth reading."""

    def begins(self, tasks: Sequence[str], sets: Sequence[str]) -> None:
        """What the columns of the rows are: all tasks of the stream, and the zero-shot sets."""

    def task(self, index: int, total: int, name: str, steps: int) -> None:
        """Training of a task (from 0) begins."""

    def step(self, step: int, loss: float, images: int) -> None:
        """Some steps of the task are done."""

    def evaluated(self, index: int, row: Sequence[float], zero_shot: dict[str, float]) -> None:
        """A row of the matrix is there (index 0: before the first task)."""


class Quiet:
    """A :class:`Progress` that says nothing."""

    def message(self, text: str) -> None:
        """Nothing."""

    def begins(self, tasks: Sequence[str], sets: Sequence[str]) -> None:
        """Nothing."""

    def task(self, index: int, total: int, name: str, steps: int) -> None:
        """Nothing."""

    def step(self, step: int, loss: float, images: int) -> None:
        """Nothing."""

    def evaluated(self, index: int, row: Sequence[float], zero_shot: dict[str, float]) -> None:
        """Nothing."""


@contextmanager
def display(console: Console) -> Iterator[LiveProgress | PlainProgress]:
    """The display that suits where the output goes."""
    # A notebook counts as a terminal, but shows a live display only with ipywidgets.
    if not console.is_terminal or console.is_jupyter:
        yield PlainProgress(console)
        return
    live = LiveProgress(console)
    with live.bars:
        yield live


# Characters of a row's label and of a figure in it.
LABEL, FIGURE = 16, 5


def _figure(value: float, width: int) -> str:
    return f"{'–':>{width}}" if math.isnan(value) else f"{100 * value:{width}.1f}"


class _Shared:
    """Rows of the matrix are told alike in both displays."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.name = ""
        self.began = time.perf_counter()

    def message(self, text: str) -> None:
        """A line; one that begins with ``warning`` stands out."""
        style = "bold yellow" if text.startswith("warning") else "dim"
        line = printable(text, len(text))
        self.console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)

    def begins(self, tasks: Sequence[str], sets: Sequence[str]) -> None:
        """The head of the rows, with numbers for the tasks where their names are longer than a figure."""
        short = all(len(name) <= FIGURE for name in tasks)
        heads = tasks if short else [str(number) for number in range(1, len(tasks) + 1)]
        cells = " ".join(f"{head:>{FIGURE}}" for head in heads)
        held_out = "".join(f"  {name:>{FIGURE}}" for name in sets)
        self._line(f"{'accuracy after':<{LABEL}} {cells}{'  |' if sets else ''}{held_out}")

    def evaluated(self, index: int, row: Sequence[float], zero_shot: dict[str, float]) -> None:
        """A row of the matrix in one line."""
        done = " ".join(_figure(value, FIGURE) for value in row)
        held_out = "".join(f"  {_figure(v, max(FIGURE, len(name)))}" for name, v in zero_shot.items())
        label = f"{index:2} {self.name}" if index else "untouched"
        label = label if len(label) <= LABEL else f"{label[: LABEL - 1]}…"
        self._line(f"{label:<{LABEL}} {done}{'  |' if zero_shot else ''}{held_out}")

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _speed(self, images: int) -> float:
        return images / max(time.perf_counter() - self.began, 1e-9)


class PlainProgress(_Shared):
    """One line when a task starts, one when it is trained, one for its row."""

    steps = 0

    def task(self, index: int, total: int, name: str, steps: int) -> None:
        """A task begins."""
        self.name, self.steps, self.began = name, steps, time.perf_counter()
        told = "1 step" if steps == 1 else f"{steps} steps"
        self.console.print(f"task {index + 1}/{total} {name}: {told}", highlight=False)

    def step(self, step: int, loss: float, images: int) -> None:
        """Only the last step is worth a line in a log."""
        if step == self.steps:
            speed, seconds = self._speed(images), time.perf_counter() - self.began
            self.console.print(f"  loss {loss:.3f}, {speed:.0f} images/s, {seconds:.1f} s", highlight=False)


class LiveProgress(_Shared):
    """Bars for the stream and the task, with speed, loss and time left."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self.stream: TaskID | None = None
        self.current: TaskID | None = None
        self.before = 0

    def task(self, index: int, total: int, name: str, steps: int) -> None:
        """A task begins."""
        self.name, self.began, self.before = name, time.perf_counter(), index * (steps or 1)
        if self.stream is None:
            self.stream = self.bars.add_task("stream", total=total * steps or total, note="")
        if self.current is not None:
            self.bars.remove_task(self.current)
        self.bars.update(self.stream, completed=self.before, note=f"task {index + 1}/{total}")
        self.current = self.bars.add_task(name, total=steps, note="")

    def step(self, step: int, loss: float, images: int) -> None:
        """Some steps are done."""
        note = f"loss {loss:.3f} · {self._speed(images):.0f} images/s"
        self.bars.update(self.current, completed=step, note=note)
        self.bars.update(self.stream, completed=self.before + step)


@contextmanager
def time_bar(console: Console, name: str, seconds: float) -> Iterator[Callable[[str], None]]:
    """A bar of the time that is used up, with a note that may change; neither where nobody watches.

    Args:
        console: where it is shown.
        name: of what takes the time.
        seconds: that there are.
    """
    if not console.is_terminal:
        yield lambda note: None
        return
    columns = TextColumn("{task.description}"), _TimeColumn(), TimeElapsedColumn()
    bars = Bars(*columns, TextColumn("{task.fields[note]}"), console=console, transient=True)
    with bars:
        shown = bars.add_task(name, total=seconds, note="")
        yield lambda note: bars.update(shown, note=note)


class _TimeColumn(ProgressColumn):
    """How much of its total, in seconds, has passed since a task began."""

    def render(self, task: Task) -> ProgressBar:
        return ProgressBar(total=task.total, completed=min(task.elapsed or 0.0, task.total), width=40)
