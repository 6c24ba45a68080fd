"""What the hub's client tells of its retries stays off the screen, and its logger is left as it was."""

from __future__ import annotations

import io
import logging

import open_clip
import pytest

from cl_complora.clip.loading_log import HUB_CLIENT, kept_quiet
from cl_complora.clip.model import load_clip
from cl_complora.config.scenario import Model
from cl_complora.errors import UserError


@pytest.fixture
def screen() -> io.StringIO:
    """What the client's own handler shows: one like that which is added when the client is imported."""
    logger, shown = logging.getLogger(HUB_CLIENT), io.StringIO()
    handlers, logger.handlers = logger.handlers, [logging.StreamHandler(shown)]
    yield shown
    logger.handlers = handlers


def retry() -> None:
    logging.getLogger(f"{HUB_CLIENT}.utils._http").warning("Retrying in 1s [Retry 1/5].")


def test_nothing_of_the_client_is_shown_and_its_logger_is_left_as_it_was(screen):
    logger = logging.getLogger(HUB_CLIENT)
    before, state = (
        logger.handlers,
        (list(logger.handlers), logger.level, logger.propagate, set(vars(logger))),
    )
    with pytest.raises(ZeroDivisionError), kept_quiet() as kept:
        retry()
        raise ZeroDivisionError
    assert screen.getvalue() == "" and "Retrying" in kept[-1].getMessage()
    assert logger.handlers is before
    assert (list(logger.handlers), logger.level, logger.propagate, set(vars(logger))) == state
    retry()
    assert "Retrying" in screen.getvalue()


def test_a_client_that_is_first_imported_within_is_quiet_too_and_shows_later_what_it_tells(screen):
    """As where something is fetched for the first time: nothing imports the client before."""
    logger, shown = logging.getLogger(HUB_CLIENT), io.StringIO()
    with kept_quiet():
        logger.addHandler(handler := logging.StreamHandler(shown))
        retry()
    assert screen.getvalue() == shown.getvalue() == ""
    retry()
    assert (
        logger.handlers[-1] is handler and "Retrying" in shown.getvalue() and "Retrying" in screen.getvalue()
    )


@pytest.mark.parametrize("part", ["weights", "tokeniser", "address"])
def test_what_cannot_be_fetched_is_told_once(part, screen, monkeypatch, capsys):
    def unreachable(*args, **kwargs):
        retry()
        raise OSError("no network")

    place = {
        "weights": "open_clip.create_model",
        "tokeniser": "cl_complora.clip.model.load_tokenizer",
        "address": "cl_complora.clip.model.download_pretrained_from_hf",
    }[part]
    monkeypatch.setattr(place, unreachable)
    if part == "tokeniser":  # of a small model that is there
        monkeypatch.setattr("cl_complora.clip.model._create", lambda *args: (open_clip_tiny(), []))
    spec = Model(name="ViT-B-16", pretrained="laion2b_s34b_b88k")
    if part == "address":
        spec = Model(name="hf-hub:no/where")
    with pytest.raises(UserError, match="cannot be (fetched|loaded)"):
        load_clip(spec)
    assert screen.getvalue() == "" and capsys.readouterr() == ("", "")


def open_clip_tiny():
    """A model of few weights, in the place of a large one."""
    return open_clip.model.CLIP(
        8, {"layers": 1, "width": 64, "patch_size": 16, "image_size": 32}, {"layers": 1}
    )
