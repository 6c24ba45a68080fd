"""Which method is swept over what: nothing that was asked for is left out without a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..config import load_strategy
from ..config.faults import closest
from ..config.loading import setting_faults
from ..config.overrides import key_of, plain_key, set_twice, written
from ..errors import UserError, raise_all
from ..files import digits
from .trials import SHORT_KEYS, sweep_of

Sweep = dict[str, list[float]]


def sweeps_of(
    methods: Sequence[str], overrides: Sequence[str], common: Mapping[str, Sequence[float]] | None
) -> dict[str, Sweep]:
    """Method → what it is swept over, which leaves out a setting that it does not have (a rank in full
    fine-tuning).

    Args:
        methods: names or paths.
        overrides: settings of the whole comparison.
        common: values for all methods; None for each method's own.

    Raises:
        UserError: for a setting or a value that no method takes, for one that an override sets as well, and
            where nothing would be swept.
    """
    found = {method: sweep_of(method, overrides, common) for method in methods}
    for method, swept in found.items():
        for key in swept:
            if said := [text for text in overrides if key_of(text, "strategy") == plain_key(key, "strategy")]:
                whose = f"--sweep {key}" if common else f"the sweep of {method}, over {key}"
                raise set_twice(written(said[-1]), whose)
    for key, values in (common or {}).items():
        if not any(key in swept for swept in found.values()):
            raise UserError(_refusal(methods, overrides, key, values))
    if not any(found.values()):
        raise UserError(f"--sweep-from strategy: none of {', '.join(methods)} declares a sweep")
    return found


def not_swept(sweeps: Mapping[str, Sweep], common: Mapping[str, Sequence[float]] | None) -> list[str]:
    """A sentence for every method that is not swept, or not over all that was asked for."""
    said = []
    for method, swept in sweeps.items():
        missing = [key for key in common or {} if key not in swept]
        if missing and swept:
            said.append(f"{method} is not swept over {', '.join(missing)}, which it does not have")
        elif not swept:
            why = f"it has no {', '.join(missing)}" if missing else "it declares no sweep"
            said.append(f"{method} is not swept: {why}")
    return said


def refuse_what_only_a_sweep_reads(
    metric: str | None,
    floor: float | None,
    validation_shots: int | None,
    sweep_seeds: Sequence[int],
) -> None:
    """Refuse what would have no effect, since nothing is swept.

    Args:
        metric, floor, validation_shots, sweep_seeds: of the request, as far as they were given.

    Raises:
        UserError: naming each that was.
    """
    given = {
        "--metric": metric is not None,
        "--floor": floor is not None,
        "--validation-shots": validation_shots is not None,
        "--sweep-seeds": bool(sweep_seeds),
    }
    raise_all([f"{option}: is for --sweep or --sweep-from" for option, is_given in given.items() if is_given])


def _refusal(methods: Sequence[str], overrides: Sequence[str], key: str, values: Sequence[float]) -> str:
    strategies = {method: load_strategy(method, overrides).value for method in methods}
    trained = {method: strategy for method, strategy in strategies.items() if strategy.optimiser is not None}
    for value in values:
        for method in methods if key.startswith("head.") else trained:
            faults = setting_faults(method, overrides, key, value)
            if faults and all(of_value for of_value, _ in faults):
                return f"--sweep {key}={digits(value)}: {faults[0][1]}"
    if key == SHORT_KEYS["lr"] and trained and not any(s.lr_is_used for s in trained.values()):
        return f"--sweep {key}: has no effect, since optimiser.rates names all that is trained"
    numbers = {k: v for s in strategies.values() for k, v in _numbers(s.model_dump(exclude={"about"}))}
    known = sorted(numbers)
    if not trained:  # as a file may have them: some go with other settings alone
        heads = [name for name in known if name.startswith("head.")]
        known = [
            name
            for name in heads
            if not all(setting_faults(method, overrides, name, numbers[name]) for method in methods)
        ]
    near = closest(key, [*known, *SHORT_KEYS] if trained else known)
    near = near or next((name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]), None)
    hint = f"; did you mean {near!r}?" if near else "; must be a number of a strategy, such as optimiser.lr"
    if not trained and not near:
        hint = f"; must be {', '.join(known)}" if known else ", and nothing of it is trained"
    who = f"{methods[0]} does not have" if len(methods) == 1 else f"none of {', '.join(methods)} has"
    return f"--sweep {key}: {who} this setting{hint}"


def _numbers(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Key paths of the numbers in a section, and the numbers."""
    for key, value in section.items():
        if isinstance(value, Mapping) and key != "sweep":
            yield from _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", value
