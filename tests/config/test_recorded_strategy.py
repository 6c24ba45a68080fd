"""A strategy that a run recorded is the strategy that it was made with."""

from __future__ import annotations

import pytest

from cl_complora.config import load_strategy
from cl_complora.config.catalog import shipped
from cl_complora.config.recorded import recorded_strategy


@pytest.mark.parametrize("name", sorted(shipped("strategy")))
def test_what_is_recorded_is_read_again(name):
    strategy = load_strategy(name).value
    content = strategy.model_dump(mode="json", exclude={"description", "sweep"})
    again = recorded_strategy(content)
    assert again.model_dump(mode="json", exclude={"description", "sweep"}) == content
