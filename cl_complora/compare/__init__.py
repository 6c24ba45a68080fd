"""Many runs, one table: sweeps on validation shots, the chosen settings tested, differences with their
uncertainty."""

from .study import Comparison, Request, compare

__all__ = ["Comparison", "Request", "compare"]
