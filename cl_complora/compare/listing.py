"""The runs that a comparison lacks, as commands: for job arrays, xargs and other people's schedulers."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..config.overrides import is_within, lasting
from ..errors import UserError
from ..run.stream_fit import check_pair
from .outcomes import Outcome, outcome_there
from .plan_store import PlanStore
from .results_files import Library
from .study import Prepared
from .trial_folders import TrialFolders
from .trial_words import of_trials
from .trials import Trial
from .workers import Placing


@dataclass(frozen=True)
class Missing:
    """What has to be run next.

    Attributes:
        trials: in the order of the comparison.
        sweep: whether these are of the sweep; the tests follow when it is done.
        failed: those that ended without an end or cannot be begun, with the reason; the same again would end
            in the same way.
    """

    trials: list[Trial]
    sweep: bool
    failed: list[tuple[Trial, str]] = field(default_factory=list)


def missing(prepared: Prepared, out: Path, library: Library | None = None) -> Missing:
    """The sweep as long as a part of it is missing, then the tests of what is chosen.

    Args:
        prepared: the comparison.
        out: folder of all runs.
        library: published results, which stand for runs.

    Raises:
        UserError: if none of the values of the only method could be trained, and for every run that was made
            with something else, which a comparison refuses.
    """
    folders = TrialFolders(out, prepared.plans)

    def there_are(trials: list[Trial]) -> list[Outcome | None]:
        published = [library.outcome(t) if library else None for t in trials]
        folders.check_all(t for t, outcome in zip(trials, published, strict=True) if outcome is None)
        return [
            outcome or outcome_there(t, out) or _refused(t, prepared.plans)
            for t, outcome in zip(trials, published, strict=True)
        ]

    swept = prepared.swept()
    there = there_are(swept)
    if None in there:
        return _missing(swept, there, True)
    methods = prepared.choose(there)
    tests = prepared.tests(methods)
    untested = [(t, outcome) for t, outcome in zip(swept, there, strict=True) if methods[t.method].failed]
    return _missing(tests, there_are(tests), False, untested)


def _refused(t: Trial, plans: PlanStore) -> Outcome | None:
    """What a comparison would be told of a strategy that cannot learn the stream; None of one that can."""
    try:
        with t.strategy.at_its_line():
            check_pair(t.scenario.value, t.strategy, plans.of(t.scenario, t.seed))
    except UserError as error:
        return Outcome(None, error=of_trials("; ".join(error.messages)), refused=True)
    return None


def _missing(
    trials: list[Trial],
    there: list[Outcome | None],
    sweep: bool,
    before: Sequence[tuple[Trial, Outcome | None]] = (),
) -> Missing:
    pairs = [*before, *zip(trials, there, strict=True)]
    failed = [(t, outcome.error) for t, outcome in pairs if outcome is not None and outcome.error is not None]
    return Missing([t for t, outcome in pairs if outcome is None], sweep, failed)


def command_of(t: Trial, prepared: Prepared, placing: Placing) -> str:
    """The ``cl-complora run …`` that makes a trial where a comparison looks for it."""
    request = prepared.request
    words = ["cl-complora", "run", request.scenario, "--strategy", t.method, "--seed", str(t.seed)]
    # What a run has no use for, and refuses: which seeds, and what is swept.
    settings = [one for one in request.scenario_settings if not is_within(one, "scenario", "seeds")]
    if t.validation:
        shots = t.scenario.value.validation_shots
        settings += [f"validation_shots={shots}", "measure=validation"]
        words.append("--no-analysis")
    settings += [one for one in request.strategy_settings if not is_within(one, "strategy", "sweep")]
    settings += [f"{key}={value}" for key, value in t.settings]
    words += [word for setting in lasting(settings) for word in ("--set", setting)]
    words += ["--variant", t.variant] if t.variant else []
    words += ["--device", placing.device] if placing.device != "auto" else []
    words += ["--out", str(placing.out)]
    words += ["--allow-plugins"] if placing.allow_plugins else []
    words += ["--elsewhere"] if placing.elsewhere else []
    return shlex.join(words)
