"""Memory: what one step frees is kept for the next instead of going back to the system, and what is imported
is not searched for garbage.

The C allocator on the CPU: a training step allocates and frees the same large activations again and again.
glibc maps large blocks afresh each time and gives the top of the heap back, so that the kernel has to clear
every page anew.
"""

from __future__ import annotations

import ctypes
import gc
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# <malloc.h>
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> None:
    """Ask glibc to keep what is freed; does nothing with another allocator. No result depends on it."""
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
        mallopt(_M_TOP_PAD, 1 << 28)


@contextmanager
def uncollected() -> Iterator[None]:
    """Within, where torch is still to be imported, no garbage is looked for, and what is imported is never
    looked through again: thousands of modules leave none, and searching them takes a tenth of the time that
    loading them does."""
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
