"""Inputs and outputs of the authors' own programs: extracts in ``tests/golden``, whole files beside the
checkout.

Every extract names the repository, commit and files that were run, and how close a result has to be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from .places import SHARED, TESTS

WHOLE = SHARED / "reference" / "golden"
# An extract is read in every checkout, the whole file where there is one.
FORMS = ("extract", "whole")


def golden(method: str, form: str = "extract") -> dict[str, Any]:
    """The figures of a method.

    Args:
        method: name of the file.
        form: one of :data:`FORMS`; ``whole`` skips the test where there is no whole file.
    """
    path = (WHOLE if form == "whole" else TESTS / "golden") / f"{method}.json"
    if form == "whole" and not path.exists():
        pytest.skip("the authors' figures as a whole are not in this checkout's ../shared/reference/golden")
    return json.loads(path.read_text(encoding="utf-8"))


def tensor(values: Any, dtype: torch.dtype = torch.float64) -> Tensor:
    """A tensor of a file's numbers."""
    return torch.tensor(values, dtype=dtype)


def agrees(file: Mapping[str, Any], found: Tensor | float, expected: Any, what: str) -> None:
    """Within the file's own tolerance.

    Raises:
        AssertionError: naming what differs, and by how much.
    """
    found = torch.as_tensor(found).detach().double()
    expected = torch.as_tensor(expected, dtype=torch.float64)
    # Some files say more than numbers there.
    tolerance = {key: file["tolerance"].get(key, 0.0) for key in ("rtol", "atol")}
    assert found.shape == expected.shape, (what, found.shape, expected.shape)
    assert torch.allclose(found, expected, **tolerance), (what, float((found - expected).abs().max()))
