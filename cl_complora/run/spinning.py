"""How long threads that wait for others keep a core busy, bounded before torch loads.

Between two products of matrices the threads of OpenMP wait for each other and spin meanwhile. That costs a
quiet machine nothing; on a busy one they spin away the cores that the others would need, so that a run beside
other work becomes ten times slower. With a bound they sleep after it. It changes no bit.

The environment decides where it says anything: ``GOMP_SPINCOUNT`` or ``OMP_WAIT_POLICY``.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

# Rounds of spinning, by the benchmark ``busy``: few enough to leave the cores to others, and enough to bridge
# what lies between two products of a step. GNU's own default is 300,000.
SPINS = 30_000
_SAID_BY = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def bound_spinning(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set the bound where nothing else is said; OpenMP reads it when torch loads, here and in processes that
    this one starts."""
    if not any(name in environment for name in _SAID_BY):
        environment["GOMP_SPINCOUNT"] = str(SPINS)


def spinning() -> dict[str, str]:
    """What a process elsewhere has to have in its environment to wait as this one does."""
    said = {name: os.environ[name] for name in _SAID_BY if name in os.environ}
    bound_spinning(said)
    return said
