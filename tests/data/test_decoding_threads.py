"""Pictures decoded by several threads: the same pixels, the same faults, and a process that is as it was."""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cl_complora.data.images import survey
from cl_complora.data.images.pictures import MOST_THREADS, Files
from cl_complora.data.images.pixels import Pixels, hushed
from cl_complora.data.items import Item
from cl_complora.errors import UserError
from cl_complora.run.threads import computing_with

PIXELS = Pixels((24, 24))


class Some(Files):
    """Every file of a folder, by name; remembers who read it."""

    def __init__(self, root: Path) -> None:
        self.root, self.readers = root, set()
        self.all = [Item(0, path.name, path.stat().st_size) for path in sorted(root.iterdir())]

    def items(self, split: str) -> list[Item]:
        return self.all

    def picture(self, item: Item, pixels: Pixels) -> torch.Tensor:
        self.readers.add(threading.get_ident())
        return super().picture(item, pixels)


@pytest.fixture
def folder(tmp_path) -> Path:
    random = np.random.default_rng(1)
    for number in range(12):
        pixels = random.integers(0, 256, (30, 40, 3)).astype(np.uint8)
        ending = ("jpg", "png", "tif")[number % 3]
        Image.fromarray(pixels).save(tmp_path / f"{number:02d}.{ending}")
    return tmp_path


def loaded(folder: Path, threads: int) -> tuple[torch.Tensor, set[int]]:
    source = Some(folder)
    with computing_with(threads):
        return source.load(source.all, PIXELS), source.readers


def test_threads_change_no_pixel(folder):
    one, alone = loaded(folder, 1)
    four, readers = loaded(folder, 4)
    assert torch.equal(one, four) and len(one) == 12
    assert alone == {threading.get_ident()} and threading.get_ident() not in readers


def test_no_more_threads_than_memory_for_them(folder):
    _, readers = loaded(folder, 4 * MOST_THREADS)
    assert len(readers) <= MOST_THREADS


def test_every_fault_is_told_in_the_order_of_the_pictures(folder):
    for name in ("03.jpg", "07.png", "11.tif"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(b"not a picture")
    told = []
    for threads in (1, 4):
        with pytest.raises(UserError) as error:
            loaded(folder, threads)
        told.append(error.value.messages)
    assert told[0] == told[1] and [Path(one.split(":")[0]).name for one in told[0]] == [
        "03.jpg",
        "07.png",
        "11.tif",
    ]


def test_threads_ask_once_what_deep_pictures_hold(tmp_path, monkeypatch):
    asked, real = [], survey.take

    def take(*arguments):
        asked.append(threading.get_ident())
        time.sleep(0.05)  # long enough for every thread to ask meanwhile
        return real(*arguments)

    monkeypatch.setattr(survey, "take", take)
    for number in range(8):
        values = np.full((30, 40), 1000 + number, np.uint16)
        Image.fromarray(values).save(tmp_path / f"{number}.png")
    pixels, _ = loaded(tmp_path, 4)
    assert len(asked) == 1 and torch.equal(pixels, loaded(tmp_path, 1)[0])


def test_log_warnings_and_stderr_are_as_before(folder, capfd):
    filters, level = list(warnings.filters), logging.getLogger("PIL").level
    for _ in range(3):
        loaded(folder, 4)
    assert warnings.filters == filters and logging.getLogger("PIL").level == level
    os.write(2, b"still heard")
    assert capfd.readouterr().err == "still heard"


def test_the_last_thread_that_leaves_ends_the_silence():
    logger, level = logging.getLogger("PIL"), logging.getLogger("PIL").level
    inside, leave = threading.Event(), threading.Event()

    def stays() -> None:
        with hushed():
            inside.set()
            leave.wait(30)

    other = threading.Thread(target=stays)
    with hushed():
        other.start()
        inside.wait(30)
    assert logger.level == logging.CRITICAL
    leave.set()
    other.join()
    assert logger.level == level
