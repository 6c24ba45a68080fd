"""Where things lie that the tests read, and how long the tests may take."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cl_complora"
TESTS = ROOT / "tests"
# Real data and published figures, beside the checkout where there are any; tests of them skip elsewhere.
SHARED = ROOT.parent / "shared"

# What ``make test-faults`` asks for: the long form of the tests of faults and of hostile input.
LONG = os.environ.get("CL_COMPLORA_FAULTS") == "long"
