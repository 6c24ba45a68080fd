"""Scenario and strategy files: schema, loading with line numbers, errors that say what is allowed."""

from .loading import Located, load_scenario, load_strategy
from .overrides import apply_overrides
from .scenario import Scenario
from .strategy import Strategy

__all__ = ["Located", "Scenario", "Strategy", "apply_overrides", "load_scenario", "load_strategy"]
