"""What hostile input costs in time and memory, measured in a process of its own that may take little."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from builders.places import LONG, TESTS
from cl_complora.errors import UserError


# A process of its own, with less memory
def costs_of(file: str, *words: object) -> list[dict]:
    """What every input of a test file came to, which the file, run as a program, hands to :func:`report`.

    Run in a process of its own, where neither memory nor time can be taken from others.
    """
    paths = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, file, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=3000 if LONG else 200,
        env=os.environ | {"PYTHONPATH": paths},
    )
    assert done.returncode == 0 and not done.stderr, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    most, slowest = (max(found, key=lambda one: one[key]) for key in ("bytes", "s"))
    print(f"{len(found)} inputs; at most {most['bytes'] / 1e6:.0f} MB ({most['name']}), ", end="")
    print(f"{slowest['s']:.1f} s ({slowest['name']})")
    return found


def report(ones: Iterator[dict]) -> None:
    """Everything that could take much memory or time, with two gigabytes more than what it takes to start."""
    resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + 2_000_000_000,) * 2)
    for one in ones:
        print(json.dumps(one))


def memory(key: str) -> int:
    """``VmSize``, ``VmRSS`` or ``VmHWM`` in bytes."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(text.partition(f"{key}:")[2].split()[0])


def measured(name: str, action) -> dict:
    """What became of one input, and what it cost."""
    Path("/proc/self/clear_refs").write_text("5")
    before, began = memory("VmRSS"), time.process_time()
    try:
        action()
        lines = ["fine"]
    except UserError as error:
        lines = list(error.messages)
    return {"name": name, "lines": lines, "s": time.process_time() - began, "bytes": memory("VmHWM") - before}
