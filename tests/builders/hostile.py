"""What tests of hostile input share: how it is told, what it left, how it is made."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from builders.places import LONG
from cl_complora.data.images.pixels import Pixels
from cl_complora.errors import UserError

PIXELS = Pixels((32, 32))


def many(short: int, long: int) -> settings:
    examples = long if LONG else short
    return settings(deadline=None, max_examples=examples, suppress_health_check=[HealthCheck.too_slow])


def told(action, *arguments) -> tuple[str, ...]:
    """The lines of a refusal, each fit for a terminal."""
    with pytest.raises(UserError) as caught:
        action(*arguments)
    assert all(line.isprintable() and 0 < len(line) < 7000 for line in caught.value.messages)
    return caught.value.messages


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(p): (p.lstat().st_size, p.lstat().st_mtime_ns)
        for p in sorted(folder.rglob("*"))
        if not p.is_dir()
    }


EXTREMES = [
    struct.pack(kind, value) for kind in "<H >H <I >I".split() for value in (0, 1, 0x7FFF, 0x8000, 0xFFFF)
]


EXTREMES += [
    struct.pack(kind, value) for kind in "<I >I".split() for value in (0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
]


def mutated(rng: random.Random, content: bytes) -> bytes:
    """Bytes flipped, replaced, left out, put in, repeated or cut off; headers more often than the rest."""
    found = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8, 30])):
        if not found:
            break
        at = rng.randrange(min(len(found), 64)) if rng.random() < 0.4 else rng.randrange(len(found))
        how = rng.randrange(8)
        if how == 0:
            found[at] = rng.randrange(256)
        elif how == 1:
            found[at] ^= 1 << rng.randrange(8)
        elif how in (2, 3):
            extreme = rng.choice(EXTREMES)
            found[at : at + len(extreme)] = extreme
        elif how == 4:
            del found[at : at + rng.choice([1, 2, 10, 100])]
        elif how == 5:
            found[at:at] = rng.randbytes(rng.choice([1, 2, 10]))
        elif how == 6:
            other = rng.randrange(len(found))
            found[at:at] = found[other : other + rng.choice([4, 30, 300])]
        elif rng.random() < 0.3:
            del found[at:]
    return bytes(found)
