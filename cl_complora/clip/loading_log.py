"""What open_clip logs while it loads a model: kept from the screen, and read for what a user should know."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Shows each of its retries, of which there are many where no network is, by a handler of its own.
HUB_CLIENT = "huggingface_hub"


class _Kept(logging.Handler):
    """Keeps what is logged instead of showing it."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def kept_quiet() -> Iterator[list[logging.LogRecord]]:
    """Within, nothing reaches the handlers of the root logger and of the hub's client; what would have
    reached the root's is yielded.

    open_clip logs a line per step of loading there, and errors before it raises them; torch warns of files
    that it then refuses.
    """
    logger, kept = logging.getLogger(), _Kept()
    level, handlers = logger.level, logger.handlers
    logger.setLevel(logging.INFO)
    logger.handlers = [kept]
    try:
        with warnings.catch_warnings(), _set_aside(logging.getLogger(HUB_CLIENT)):
            warnings.simplefilter("ignore")
            yield kept.records
    finally:
        logger.setLevel(level)
        logger.handlers = handlers


@contextmanager
def _set_aside(logger: logging.Logger) -> Iterator[None]:
    """Within, a logger has no handlers of its own, and gets none either; afterwards it has all of them.

    The hub's client is first imported when something is fetched, so its handler is added only then.
    """
    handlers, logger.handlers = logger.handlers, []
    logger.addHandler = handlers.append
    try:
        yield
    finally:
        del logger.addHandler
        logger.handlers = handlers


def interpolated(record: logging.LogRecord) -> str | None:
    """What open_clip logs where weights have another number of positions than the model, as a note."""
    if not str(record.msg).startswith(("Resizing position embedding", "Resizing text position embedding")):
        return None
    (of, told), wanted = record.args, "of the text tower" if "text" in record.msg else "of patches"
    return (
        f"the weights hold positions {wanted} for {of}, the model has {told}: they are interpolated, which"
        " costs accuracy until they are trained again"
    )
