"""Ctrl-C and SIGTERM: within a training step they wait for its end, so that nothing that was computed is
lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """The run was asked to stop; the same command goes on.

    It comes at any line, as Ctrl-C does: what bears every ``Exception`` (a tracker that fails, a picture that
    cannot be decoded) must not take it for a failure of its own.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.exit_code = int(number), 128 + number

    def __reduce__(self) -> tuple[type[Stopped], tuple[int]]:
        return Stopped, (self.number,)


class Terminated(KeyboardInterrupt):
    """SIGTERM, where it is answered as Ctrl-C is."""

    exit_code = 128 + signal.SIGTERM


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Within, SIGTERM raises :class:`Terminated`, so that what waits for other processes ends them in the
    same way."""

    def terminate(number: int, frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def answered_by(answer: Callable[[], None]) -> Iterator[list[int]]:
    """Within, Ctrl-C and SIGTERM call a function, and raise nothing; one that was ignored is ignored still.

    Yields:
        Numbers of the signals that came.
    """
    asked: list[int] = []

    def hear(number: int, frame: object) -> None:
        asked.append(number)
        answer()

    with _handled_by(hear):
        yield asked


@contextmanager
def _handled_by(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Within, both signals are handled by a function, but for one that is ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets only the main thread handle signals
        return
    answered = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in answered}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def exit_code_of(interrupt: KeyboardInterrupt) -> int:
    """130 after Ctrl-C, 143 after SIGTERM."""
    return interrupt.exit_code if isinstance(interrupt, Terminated | Stopped) else 128 + signal.SIGINT


class Stopping:
    """What was asked, and whether it has to wait.

    Attributes:
        asked: the signal that came while it had to wait; None where none did.
        taken_by: who took the run over while this process stood still; empty where nobody did.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self.taken_by = ""
        self._waiting = False

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Within, signals raise :class:`Stopped`: at once, from :meth:`raise_if_asked`, or the second
        time."""
        with _handled_by(self._hear):  # a worker of a comparison ignores Ctrl-C, which its parent answers
            yield

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within, a signal waits for the next :meth:`raise_if_asked`."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def is_asked(self) -> bool:
        """Whether a signal waits, or the run is no longer ours."""
        return self.asked is not None or bool(self.taken_by)

    def lose(self, holder: str) -> None:
        """The run is another process's from now on."""
        self.taken_by = holder

    def raise_if_asked(self) -> None:
        """Raise what waited.

        Raises:
            UserError: where another process has the run.
        """
        if self.taken_by:
            raise UserError(
                f"this process stood still for so long that {self.taken_by} took its run over; it ends here"
            )
        if self.asked is not None:
            raise Stopped(self.asked)

    def _hear(self, number: int, frame: object) -> None:
        if self._waiting and self.asked is None:
            self.asked = number
        else:
            raise Stopped(number)
