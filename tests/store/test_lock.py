"""The lock of a run's folder, by each of the three ways that systems have."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

import cl_complora.store.lock as module
from builders.windows import locks
from cl_complora.errors import UserError
from cl_complora.files import temporary_beside, write_bytes, writer_of
from cl_complora.store.folder import RunDir
from cl_complora.store.holder import Holder, ourselves
from cl_complora.store.lock import Held, lock


def no_system_locks(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "fcntl", None)
    patch.setitem(sys.modules, "msvcrt", None)


def windows(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "fcntl", None)
    patch.setitem(sys.modules, "msvcrt", locks())


def network_folder(patch: pytest.MonkeyPatch) -> None:
    def flock(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    patch.setattr(fcntl, "flock", flock)


@pytest.fixture(params=[None, windows, network_folder, no_system_locks])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param is not None:
        request.param(monkeypatch)


def test_one_at_a_time_and_the_other_is_told_who(system, tmp_path):
    path = tmp_path / "a.lock"
    for _ in range(2):  # it can be taken again once it was given up
        with lock(path):
            with pytest.raises(Held, match=f"process {os.getpid()} on {platform.node()}"), lock(path):
                raise AssertionError
            with pytest.raises(Held), lock(path):  # being refused gives nothing up
                raise AssertionError
    assert [file.name for file in tmp_path.iterdir()] == ["a.lock"]


def test_an_error_within_gives_it_up(system, tmp_path):
    with pytest.raises(ZeroDivisionError), lock(tmp_path / "a.lock"):
        raise ZeroDivisionError
    with lock(tmp_path / "a.lock"):
        pass


@pytest.fixture
def number_of_the_dead() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_what_a_dead_process_left_is_void(system, tmp_path, number_of_the_dead):
    for name in ("a.lock", "a.lock.pid"):
        (tmp_path / name).write_text(f"process {number_of_the_dead} on {platform.node()}")
    with lock(tmp_path / "a.lock"):
        assert str(os.getpid()) in (tmp_path / "a.lock").read_text()


WHO = ["process {} on another-node", "", "who knows"]


@pytest.mark.parametrize("holder", WHO)
def test_who_cannot_be_looked_up_is_alive_at_the_next_sign(system, monkeypatch, tmp_path, holder):
    monkeypatch.setattr(module, "LOOK", 0.01)
    path = tmp_path / "a.lock.pid"
    path.write_text(holder.format(7))
    sign = threading.Timer(0.2, lambda: os.utime(path, (time.time() + 1,) * 2))
    sign.start()
    told = "process 7 on another-node" if "{}" in holder else "another process"
    with pytest.raises(Held, match=f"^{told}$"), lock(tmp_path / "a.lock"):
        raise AssertionError
    assert path.read_text() == holder.format(7)


@pytest.mark.parametrize("holder", WHO)
def test_who_cannot_be_looked_up_is_dead_after_a_long_silence(system, monkeypatch, tmp_path, holder):
    said = []
    monkeypatch.setattr(module, "LOOK", 0.01)
    monkeypatch.setattr(module, "BEAT", 0.1)
    monkeypatch.setattr(module, "SILENT", 0.5)
    (tmp_path / "a.lock.pid").write_text(holder.format(7))
    with lock(tmp_path / "a.lock", tell=said.append):
        assert str(os.getpid()) in (tmp_path / "a.lock.pid").read_text()
    assert len(said) == 1 and "last sign of life" in said[0]
    os.utime(tmp_path / "a.lock", (1, 1))
    (tmp_path / "a.lock.pid").write_text(holder.format(7))
    os.utime(tmp_path / "a.lock.pid", (1, 1))
    with lock(tmp_path / "a.lock", tell=said.append):  # at once
        assert len(said) == 1


def test_a_number_that_the_system_gave_anew_is_another_process(monkeypatch, tmp_path):
    network_folder(monkeypatch)
    ours = ourselves()
    (tmp_path / "a.lock.pid").write_text(replace(ours, began=ours.began - 3600).written())
    with lock(tmp_path / "a.lock"):
        assert Holder.read((tmp_path / "a.lock.pid").read_text()).began == ours.began


def test_the_same_name_of_another_boot_or_container_is_another_machine(number_of_the_dead):
    here = replace(ourselves(), pid=number_of_the_dead)
    assert here.is_gone() and not here.is_alive()
    for other in (replace(here, space="another"), replace(here, host="another")):
        assert not other.is_gone() and not other.is_alive()
    assert Holder.read(here.written()) == here and Holder.read("process x on y") is None


def test_who_stood_still_learns_that_the_lock_is_lost(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "BEAT", 0.05)
    taken = []
    path = tmp_path / "a.lock.pid"
    other = Holder(7, "another-node").written()
    with lock(tmp_path / "a.lock", lost=taken.append):
        path.unlink()  # by hand: nobody else has it
        _until(lambda: path.exists() and path.read_text())  # not between its making and its writing
        path.write_text(other)
        _until(lambda: taken)
    assert taken == ["process 7 on another-node"] and path.read_text() == other


def test_the_holder_gives_signs_of_life(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "BEAT", 0.05)
    with lock(tmp_path / "a.lock"):
        os.utime(tmp_path / "a.lock.pid", (1, 1))
        _until(lambda: (tmp_path / "a.lock.pid").stat().st_mtime > 1e9)


def _until(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


ON_A_NODE = """
import errno, platform, sys, time
from pathlib import Path
host, root, mode = sys.argv[1:]
platform.node = lambda: host
import cl_complora.store.lock as module
if mode == "local":  # every machine has locks of its own: here none, which is the same to the other
    module._take = lambda file, held: None
else:
    sys.modules["fcntl"] = sys.modules["msvcrt"] = None
from cl_complora.errors import UserError
from cl_complora.store.folder import RunDir
print("ready", flush=True); sys.stdin.readline()
try:
    with RunDir(Path(root)).locked():
        print("runs", flush=True); sys.stdin.readline()
except UserError as error:
    print(error, flush=True)
"""


@pytest.mark.parametrize("mode", ["local", "missing"])
def test_of_two_machines_one_runs_and_the_other_is_told_who(tmp_path, mode):
    root = tmp_path / "seed0"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    nodes = {
        host: subprocess.Popen([sys.executable, "-c", ON_A_NODE, host, root, mode], **pipes)
        for host in ("node-a", "node-b")
    }
    try:
        for node in nodes.values():
            node.stdout.readline()
        for node in nodes.values():
            print(file=node.stdin, flush=True)
        said = {host: node.stdout.readline().strip() for host, node in nodes.items()}
        (winner,) = (host for host, line in said.items() if line == "runs")
        (other,) = set(nodes) - {winner}
        # "another process" where the winner's name was not written yet
        who = rf"in use by (process {nodes[winner].pid} on {winner}|another process)"
        assert re.search(who, said[other]), said
    finally:
        for node in nodes.values():
            node.communicate("\n", timeout=60)


def test_what_a_killed_process_wrote_is_removed_and_what_another_writes_is_not(
    tmp_path, number_of_the_dead, monkeypatch
):
    here, folder = platform.node(), tmp_path / "seed0"
    folder.mkdir()
    kept = [folder / f".a.json,{here},{os.getpid()},0123abcd.tmp", folder / ".a.json,other,7,0123abcd.tmp"]
    gone = [
        folder / f".a.json,{here},{number_of_the_dead},0123abcd.tmp",
        folder / ".old,other,7,0123abcd.tmp",
    ]
    gone += [folder / f".a.json.{number_of_the_dead}.tmp"]
    for file in (*kept, *gone):
        file.touch()
    os.utime(gone[1], (1, 1))
    with RunDir(folder).locked():
        assert sorted(folder.iterdir()) == sorted(kept)
    names = {temporary_beside(folder / "a.json").name for _ in range(9)}
    assert len(names) == 9 and all(writer_of(Path(name)) == (here, os.getpid()) for name in names)
    monkeypatch.setattr(platform, "node", lambda: "n" * 300)
    write_bytes(folder / ("ü" * 120 + ".json"), b"")


def test_of_many_who_find_a_dead_lock_one_gets_it(tmp_path, number_of_the_dead):
    program = """
import sys, time
from pathlib import Path
sys.modules["fcntl"] = sys.modules["msvcrt"] = None
from cl_complora.store.lock import Held, lock
print(end="ready\\n", flush=True); sys.stdin.readline()
try:
    with lock(Path(sys.argv[1])):
        print("got it"); sys.stdout.flush(); sys.stdin.readline()
except Held:
    print("held", flush=True)
"""
    path = tmp_path / "a.lock"
    Path(f"{path}.pid").write_text(f"process {number_of_the_dead} on {platform.node()}")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    others = [subprocess.Popen([sys.executable, "-c", program, path], **pipes) for _ in range(4)]
    try:
        for other in others:
            other.stdout.readline()
        for other in others:
            print(file=other.stdin, flush=True)
        assert sorted(other.stdout.readline() for other in others).count("got it\n") == 1
    finally:
        for other in others:
            other.communicate("\n", timeout=60)


@pytest.mark.parametrize("kind", ["link", "link to nothing", "pipe", "folder"])
def test_what_is_no_lock_of_ours_is_neither_followed_nor_emptied(tmp_path, kind):
    """A tree of runs that somebody else made may hold anything where the lock should be."""
    place, victim = tmp_path / ".seed0.lock", tmp_path / "keys"
    if kind == "link":
        victim.write_text("precious")
    if kind.startswith("link"):
        place.symlink_to(victim)
    else:
        os.mkfifo(place) if kind == "pipe" else place.mkdir()
    told = r"seed0: cannot write the run there: \.seed0\.lock beside it is a link, or no regular file$"
    with pytest.raises(UserError, match=told), RunDir(tmp_path / "seed0").locked():
        raise AssertionError
    assert victim.read_text() == "precious" if kind == "link" else not victim.exists()


def test_a_pipe_in_place_of_the_sign_is_told(tmp_path):
    os.mkfifo(tmp_path / ".seed0.lock.pid")
    told = "seed0: cannot write the run there: is no regular file"
    with pytest.raises(UserError, match=told), RunDir(tmp_path / "seed0").locked():
        raise AssertionError


@pytest.mark.parametrize(
    "rest", ["{}", "[]", '{"space": 1}', "[" * 200_000, f'{{"space": "", "word": "", "began": {"9" * 400}}}']
)
def test_a_sign_that_is_damaged_is_of_nobody_more_is_known_of(rest):
    holder = Holder.read(f"process 7 on another\n{rest}")
    assert holder == Holder(7, "another", ourselves().space)


def test_a_sign_from_the_future_is_silent_as_long_as_it_is_looked_at(system, monkeypatch, tmp_path):
    """The clock was put back since, or was ahead."""
    said = []
    monkeypatch.setattr(module, "LOOK", 0.01)
    monkeypatch.setattr(module, "BEAT", 0.1)
    monkeypatch.setattr(module, "SILENT", 0.5)
    (tmp_path / "a.lock.pid").write_text(WHO[0].format(7))
    os.utime(tmp_path / "a.lock.pid", (time.time() + 3600,) * 2)
    with lock(tmp_path / "a.lock", tell=said.append):
        pass
    assert len(said) == 1 and re.search(r"last sign of life \d s ago", said[0])
