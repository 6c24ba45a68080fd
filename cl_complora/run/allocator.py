"""The C allocator on the CPU: memory that one step frees is kept for the next instead of going back to the
system.

A training step allocates and frees the same large activations again and again. glibc maps large blocks afresh
each time and gives the top of the heap back, so that the kernel has to clear every page anew.
"""

from __future__ import annotations

import ctypes
import platform

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
