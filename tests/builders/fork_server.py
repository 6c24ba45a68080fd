"""The process from which others are forked with everything imported: one for the whole suite.

It takes ten seconds of a core to begin. The process that hands out tests (``pytest -n``) begins it, and those
that run them find its address in their environment; a process that runs all tests itself has one of its own.
"""

from __future__ import annotations

import os
from multiprocessing import forkserver, get_context

from builders.places import PACKAGE, ROOT

CONTEXT = get_context("forkserver")
# A module that cannot be imported here (PEFT's, say) is passed over by the server.
CONTEXT.set_forkserver_preload(
    [
        *(
            ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            for path in sorted(PACKAGE.rglob("*.py"))
            if path.stem != "__main__"
        ),
        "matplotlib.backends.backend_agg",
        "matplotlib.backends.backend_svg",
        "matplotlib.pyplot",
        "scipy.stats",
    ]
)
_ADDRESS = "CL_COMPLORA_TEST_FORK_SERVER"


def begin() -> None:
    """For this process, and those that it starts, until it ends."""
    os.environ[_ADDRESS] = address()


def address() -> str:
    """Where the server listens, which is begun if there is none."""
    _server.ensure_running()
    return os.fsdecode(_server._forkserver_address)


def join(where: str) -> None:
    """Processes of this one come from the server at an address, instead of from another that imports all."""
    _server._forkserver_address = where
    _server.ensure_running = lambda: None
    if _server._forkserver_alive_fd is None:  # a copy goes to every process that is forked
        _server._forkserver_alive_fd = os.pipe()[1]


_server = forkserver._forkserver
if _ADDRESS in os.environ:
    join(os.environ[_ADDRESS])
