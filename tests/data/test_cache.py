"""The cache of decoded images: the same numbers with and without, nothing stale, no harm where it cannot be
written."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from builders.images import COLOURS, paint
from cl_complora.cli import app
from cl_complora.config import load_scenario, load_strategy
from cl_complora.config.sources import FolderSource
from cl_complora.data.images import cache
from cl_complora.data.images.pixels import Pixels
from cl_complora.data.kinds import open_source
from cl_complora.data.planning import plan
from cl_complora.data.tasks import load
from cl_complora.errors import UserError
from cl_complora.run.stream import run

PIXELS = Pixels((16, 16))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CL_COMPLORA_CACHE", str(tmp_path / "cache"))
    for name, colour in COLOURS.items():
        for number in range(4):
            paint(tmp_path / "set" / name / f"{number}.png", colour, number, 20)
    return open_source(FolderSource(kind="folder", root="set", test_fraction=1.0), tmp_path), tmp_path


def test_what_is_cached_is_what_is_decoded(folder, monkeypatch):
    source, where = folder
    items = source.items("test")
    direct = source.load(items, PIXELS)
    assert torch.equal(cache.load_cached(source, items, PIXELS), direct)
    assert cache.usage()[0] == 1 and cache.usage()[1] >= cache.size(items, PIXELS) == direct.numel()
    monkeypatch.setattr(source, "load", None)  # not called any more
    assert torch.equal(cache.load_cached(source, items, PIXELS), direct)
    monkeypatch.undo()
    monkeypatch.setenv("CL_COMPLORA_CACHE", "off")
    assert cache.cache_folder() is None and torch.equal(cache.load_cached(source, items, PIXELS), direct)


def test_another_picture_size_or_order_is_another_file(folder):
    source, where = folder
    items = source.items("test")
    first = cache.load_cached(source, items, PIXELS)
    assert not torch.equal(cache.load_cached(source, items[::-1], PIXELS), first)
    assert cache.load_cached(source, items, Pixels((8, 8))).shape[2:] == (8, 8)
    # A picture of as many bytes in its place: only the time of writing tells.
    path = where / "set" / "red" / "0.png"
    content, other = path.read_bytes(), (where / "set" / "blue" / "0.png").read_bytes()
    longest = max(len(content), len(other))
    path.write_bytes(content.ljust(longest, b"\0"))
    items = source.items("test")
    before = cache.load_cached(source, items, PIXELS)
    path.write_bytes(other.ljust(longest, b"\0"))
    os.utime(path, ns=(1, 1))
    after = cache.load_cached(source, items, PIXELS)
    assert not torch.equal(before, after) and torch.equal(after, source.load(items, PIXELS))


def test_a_damaged_file_is_made_again(folder):
    source, where = folder
    items = source.items("test")
    direct = cache.load_cached(source, items, PIXELS).clone()
    (path,) = (where / "cache" / "pixels").glob("*.npy")
    for content in (b"", path.read_bytes()[:100], b"no array"):
        path.write_bytes(content)
        assert torch.equal(cache.load_cached(source, items, PIXELS), direct)
    assert cache.clear() == 1 and cache.usage() == (0, 0)


def test_many_at_once_make_the_same_file(folder):
    source, where = folder
    items = source.items("test")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: cache.load_cached(source, items, PIXELS), range(16)))
    assert all(torch.equal(one, found[0]) for one in found)
    assert [p.suffix for p in (where / "cache" / "pixels").iterdir()] == [".npy"]


def test_a_cache_that_cannot_be_written_is_done_without(folder, monkeypatch):
    source, where = folder
    (where / "file").write_text("not a folder")
    monkeypatch.setenv("CL_COMPLORA_CACHE", str(where / "file"))
    items = source.items("test")
    assert torch.equal(cache.load_cached(source, items, PIXELS), source.load(items, PIXELS))


def test_a_run_gives_the_same_numbers_with_and_without(tmp_path, tiny_scenario, tiny_strategy, monkeypatch):
    results = []
    for where in ("off", str(tmp_path / "cache"), str(tmp_path / "cache")):
        monkeypatch.setenv("CL_COMPLORA_CACHE", where)
        out = tmp_path / f"runs{len(results)}"
        done = run(load_scenario(str(tiny_scenario)), load_strategy(str(tiny_strategy)), out=out)
        results.append((done.results["accuracy"], done.results["zero_shot"]))
    assert results[0] == results[1] == results[2]


def test_large_training_sets_are_mapped_too_and_train_the_same(
    tmp_path, tiny_scenario, tiny_strategy, monkeypatch
):
    from cl_complora.data import tasks as stream

    results = []
    for limit in (2**30, 1):
        monkeypatch.setattr(stream, "SMALL", 0)
        monkeypatch.setattr(stream, "LARGE", limit)
        monkeypatch.setattr(cache, "PART", 2)
        monkeypatch.setenv("CL_COMPLORA_CACHE", str(tmp_path / f"cache{limit}"))
        out = tmp_path / f"runs{limit}"
        results.append(
            run(load_scenario(str(tiny_scenario)), load_strategy(str(tiny_strategy)), out=out).results[
                "accuracy"
            ]
        )
        results.append(cache.usage()[0])
    assert results[0] == results[2] and results[3] == results[1] + 2


def test_small_training_sets_are_decoded_once(tmp_path, tiny_scenario, monkeypatch):
    monkeypatch.setenv("CL_COMPLORA_CACHE", str(tmp_path))
    plans = plan(load_scenario(str(tiny_scenario)), 0)
    anew = load(plans, "task-incremental", PIXELS, read=lambda source, *what: source.load(*what))
    first = load(plans, "task-incremental", PIXELS)
    for one in plans:
        monkeypatch.setattr(one.source, "load", None)  # not called any more
    again = load(plans, "task-incremental", PIXELS)
    for tasks in zip(anew.tasks, first.tasks, again.tasks, strict=True):
        assert len(tasks[0].train) > 0
        for one in tasks[1:]:
            assert torch.equal(one.train.pixels, tasks[0].train.pixels)
            assert torch.equal(one.train.labels, tasks[0].train.labels)


def test_a_picture_that_cannot_be_read_leaves_nothing_behind(folder):
    source, where = folder
    (where / "set" / "red" / "1.png").write_bytes(b"broken")
    with pytest.raises(UserError, match="cannot be read as an image"):
        cache.load_cached(source, source.items("test"), PIXELS)
    assert not list((where / "cache" / "pixels").iterdir())


def test_pictures_are_decoded_in_the_order_in_which_they_are_stored(folder, monkeypatch):
    source, where = folder
    stored = [replace(item, order=place) for place, item in enumerate(source.items("test"))]
    items = stored[1::2] + stored[::2]
    direct, decoded, load = source.load(items, PIXELS), [], source.load

    def remembered(some, pixels):
        decoded.extend(item.order for item in some)
        return load(some, pixels)

    monkeypatch.setattr(cache, "PART", 3)
    monkeypatch.setattr(source, "load", remembered)
    assert torch.equal(cache.load_cached(source, items, PIXELS), direct)
    assert decoded == list(range(len(items)))


def test_what_a_killed_process_left_is_counted_cleared_and_goes_with_the_next_set(folder):
    source, where = folder
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    pixels, here = where / "cache" / "pixels", platform.node()
    pixels.mkdir(parents=True)
    gone = pixels / f".a.npy,{here},{dead.pid},0123abcd.tmp"
    old = [pixels / ".b.npy,elsewhere,7,0123abcd.tmp", pixels / ".b.u3x_9.tmp"]  # the last of another version
    written = [
        pixels / f".c.npy,{here},{os.getpid()},0123abcd.tmp",
        pixels / ".c.npy,elsewhere,7,0123abcd.tmp",
    ]

    def leave() -> None:
        for path in (gone, *old, *written):
            path.write_bytes(b"1234")
        for path in old:
            os.utime(path, (0, 0))

    leave()
    assert cache.usage() == (5, 20) and cache.clear() == 3
    assert cache.usage() == (2, 8)  # which somebody writes now
    leave()
    cache.load_cached(source, source.items("test"), PIXELS)
    assert sorted(path for path in pixels.iterdir() if path.suffix == ".tmp") == sorted(written)


def test_the_commands(folder, tiny_scenario):
    source, where = folder
    cache.load_cached(source, source.items("test"), PIXELS)
    shown = CliRunner().invoke(app, ["data", "cache"]).output
    assert "1 files" in shown
    assert "0 files, 0.0 MB" in CliRunner().invoke(app, ["data", "cache", "--clear"]).output
    done = CliRunner().invoke(app, ["data", "check", str(tiny_scenario)])
    assert (
        done.exit_code == 0 and "warm: 2 classes, 6 training, 12 test images, all can be read" in done.output
    )


def test_broken_pictures_are_named(folder):
    _, where = folder
    (where / "set" / "red" / "1.png").write_bytes(b"\x89PNG broken")
    (where / "set" / "blue" / "2.PNG").write_bytes(b"")
    (where / "s.yaml").write_text(
        "name: s\nshots: all\ntasks:\n  - name: colours\n    source: {kind: folder, root: set, test_fraction:"
        " 0.5}\n"
    )
    done = CliRunner().invoke(app, ["data", "check", str(where / "s.yaml")])
    assert "2 of them cannot be read" in done.output and len(done.exception.messages) == 2
    assert all(
        any(name in message for message in done.exception.messages) for name in ("red/1.png", "blue/2.PNG")
    )
