"""The lock of a run's folder, by each of the three ways that systems have."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from builders.windows import locks
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


@pytest.mark.parametrize("holder", ["process {} on another-node", "", "who knows"])
def test_who_cannot_be_looked_up_is_taken_for_alive(monkeypatch, tmp_path, number_of_the_dead, holder):
    network_folder(monkeypatch)
    (tmp_path / "a.lock.pid").write_text(holder.format(number_of_the_dead))
    with pytest.raises(Held, match=r"if that is gone, delete .*a\.lock\.pid"), lock(tmp_path / "a.lock"):
        raise AssertionError
    assert (tmp_path / "a.lock.pid").exists()


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


def test_the_command_works_without_what_windows_lacks(tmp_path, tiny_scenario):
    words = ["run", str(tiny_scenario), "-s", "zeroshot", "--no-analysis", "--set", "test_limit=4"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "builders.windows", *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "runs/tiny/zeroshot/seed0/results.json").exists()
