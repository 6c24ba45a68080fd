"""What a comparison has to run: all combinations of swept values on validation shots, then the chosen one."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config import Scenario, Strategy, load_strategy
from ..config.loading import Located
from ..config.overrides import plain_key, steps_of
from ..errors import UserError
from ..files import digits
from ..report.comparison.tables import told

Settings = tuple[tuple[str, float], ...]

# The abbreviations that people say.
SHORT_KEYS = {"lr": "optimiser.lr", "rank": "adapter.rank", "energy": "adapter.subspace.keep.energy"}


@dataclass(frozen=True)
class Trial:
    """One run of a comparison.

    Attributes:
        method: the strategy as the user named it.
        settings: swept key paths and values.
        seed: of the run.
        validation: measured on validation shots, to choose by; otherwise on test images.
        scenario, strategy: loaded, with everything applied.
        variant: folder that keeps it apart from other runs of the strategy; empty for the strategy as it
            stands.
    """

    method: str
    settings: Settings
    seed: int
    validation: bool
    scenario: Located[Scenario]
    strategy: Located[Strategy]
    variant: str

    def label(self) -> str:
        """For people."""
        parts = [
            self.method,
            f"seed {self.seed}",
            told(self.settings),
            "validation" if self.validation else "",
        ]
        return " · ".join(part for part in parts if part)


def parse_sweep(texts: Sequence[str]) -> dict[str, list[float]]:
    """``lr=1e-4,3e-4`` → key path and values.

    Raises:
        UserError: for anything else.
    """
    sweep: dict[str, list[float]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        key = key.strip()
        try:
            numbers = [_number(value) for value in values.split(",")]
        except ValueError:
            numbers = []
        if not (key and equals and numbers):
            raise UserError(
                f"--sweep {text}: must have the form key.path=1e-4,3e-4 (lr stands for {SHORT_KEYS['lr']})"
            )
        key = plain_key(SHORT_KEYS.get(key, key), "strategy")
        if key in sweep:
            raise UserError(f"--sweep {text}: {key} is swept twice; give all of its values at once")
        if twice := [value for place, value in enumerate(numbers) if value in numbers[:place]]:
            raise UserError(f"--sweep {text}: {digits(twice[0])} stands twice; each value may stand once")
        sweep[key] = numbers
    return sweep


def _number(text: str) -> float:
    return int(text) if text.strip().lstrip("+-").isdigit() else float(text)


def grid(sweep: Mapping[str, Sequence[float]]) -> list[Settings]:
    """Every combination of the swept values; one empty combination where nothing is swept."""
    return [tuple(zip(sweep, values, strict=True)) for values in itertools.product(*sweep.values())]


def sweep_of(
    method: str, overrides: Sequence[str], common: Mapping[str, Sequence[float]] | None
) -> dict[str, Any]:
    """What is swept for a method: its YAML's own section, or the common values where it has such a setting.

    Args:
        method: name or path.
        overrides: settings of the whole comparison.
        common: values for all methods; None for each method's own.
    """
    strategy = load_strategy(method, overrides).value
    idle = set() if strategy.lr_is_used else {SHORT_KEYS["lr"]}
    if common is None:
        return {key: values for key, values in strategy.sweep.items() if key not in idle}
    # A method without the setting (a rank in full fine-tuning) is not swept over it, nor is a head on
    # untouched towers over what only training reads.
    trained = strategy.optimiser is not None
    return {
        key: list(values)
        for key, values in common.items()
        if key not in idle and (trained or key.startswith("head.")) and _takes(method, overrides, key, values)
    }


def _takes(method: str, overrides: Sequence[str], key: str, values: Sequence[float]) -> bool:
    """Whether a method has a setting.

    Raises:
        UserError: where it takes some of the values and not others, or has it and takes none.
    """
    faults: dict[float, str] = {}
    for value in values:
        try:
            load_strategy(method, [*overrides, f"{key}={value}"])
        except UserError as error:
            faults[value] = error.messages[0]
    if faults and (len(faults) < len(set(values)) or _has(method, overrides, key)):
        value, fault = next(iter(faults.items()))
        raise UserError(f"--sweep {key}={digits(value)}: {method} does not take it: {fault}")
    return not faults


def _has(method: str, overrides: Sequence[str], key: str) -> bool:
    """Whether a method's file says a number for a setting, and may say it again."""
    place: Any = load_strategy(method, overrides).value.model_dump(exclude_unset=True)
    try:
        for step in steps_of(key):
            place = place[int(step)] if isinstance(place, list | tuple) else place[step]
        load_strategy(method, [*overrides, f"{key}={json.dumps(place)}"])
    except (LookupError, TypeError, ValueError, UserError):
        return False
    return isinstance(place, int | float) and not isinstance(place, bool)


def trial(
    method: str,
    settings: Settings,
    seed: int,
    scenario: Located[Scenario],
    overrides: Sequence[str] = (),
    validation: bool = False,
    stream: str = "",
) -> Trial:
    """A run with its folder: runs of the strategy as it stands share the folder of ``cl-complora run``.

    Args:
        method, settings, seed, scenario, validation: as in :class:`Trial`.
        overrides: settings of the strategy that go before.
        stream: what keeps trials on validation shots apart from those of the same scenario with other
            settings; one folder for all where it is empty.
    """
    strategy = load_strategy(method, [*overrides, *(f"{key}={value}" for key, value in settings)])
    as_it_stands = _without_sweep(strategy.value) == _without_sweep(load_strategy(method).value)
    changed = [] if as_it_stands else [*overrides, *(f"{key}={digits(value)}" for key, value in settings)]
    apart = f"-{hashlib.sha256(stream.encode()).hexdigest()[:8]}" if stream else ""
    variant = ",".join([f"validation{apart}"] * validation + changed)
    return Trial(method, settings, seed, validation, scenario, strategy, variant)


def _without_sweep(strategy: Strategy) -> Strategy:
    return strategy.model_copy(update={"sweep": {}})
