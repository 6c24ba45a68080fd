"""What a comparison found as files of results (:mod:`.results_files`)."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..config import Scenario, Strategy, load_scenario, load_strategy
from ..config.catalog import shipped
from ..config.loading import Located
from ..data.telling import counted
from ..errors import UserError
from ..files import slug, write_text
from ..store import forms
from ..store.lock import LOOK, Held, lock
from ..version import __version__
from .method import Method
from .outcomes import Outcome
from .results_files import (
    DETAIL,
    SCORED,
    Answers,
    Asked,
    Entry,
    Identities,
    PublishedRun,
    fingerprint,
    is_current,
    is_of_what_ships,
    place,
    read_entry,
    settings_of,
)
from .study import Comparison, Request, on_validation
from .sweeps import Sweep, sweeps_of
from .trials import Settings, Trial, grid, trial

# Seconds that another process is waited for, which publishes what it found.
LONGEST = 600.0


@contextmanager
def alone(folder: Path, scenario: str) -> Iterator[None]:
    """Hold the results of a scenario for this process, as soon as no other does.

    Comparisons that end together publish one after the other, so that none loses what another adds.

    Args:
        folder: of results.
        scenario: its name.

    Raises:
        UserError: where another process does not end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + LONGEST
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(lock(folder / f".{slug(scenario)}.lock"))
                break
            except Held as other:
                if time.monotonic() > until:
                    told = f"--publish {folder}: in use by {other}; the same command publishes, without runs"
                    raise UserError(told) from None
            time.sleep(LOOK)
        yield


def publish(
    found: Comparison,
    scenario: Located[Scenario],
    folder: Path,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Write what a comparison found, a file for every method whose tests all finished.

    Trials that a file holds already stay, as long as the method, its images and its code are what they were.
    Where others may publish at the same time, within :func:`alone`.

    Args:
        found: finished; made in this process, so that its trials are at hand.
        scenario: that it was made on.
        folder: of results.
        tell: given a line for every file that loses trials.

    Returns:
        The files, in the order of the methods.
    """
    trials: dict[str, list[tuple[Trial, Outcome]]] = {}
    for t, outcome in found.trials:
        trials.setdefault(t.strategy.value.name, []).append((t, outcome))
    written, identities = [], Identities(found.plans)
    for method in found.methods:
        if not method.failed:
            path = place(folder, found.scenario, method.name)
            before = read_entry(path)
            entry = _entry(found, method, trials[method.name], scenario, before, identities)
            write_text(path, _lines(entry.model_dump(mode="json")))
            if before is not None and (gone := _gone(before, entry)):
                runs = f"{gone} of the {counted(len(before.trials), 'run')} in it"
                tell(f"--publish {folder}: {path}: {runs}, of other pictures or other code, are left out")
            written.append(path)
    return written


def _entry(
    found: Comparison,
    method: Method,
    trials: Sequence[tuple[Trial, Outcome]],
    scenario: Located[Scenario],
    before: Entry | None,
    identities: Identities,
) -> Entry:
    """What is published of a method: its trials, and those of its entry that stay.

    Args:
        found: by a comparison.
        method: of it.
        trials: of the method, with what became of them.
        scenario: of its tests.
        before: what is published of it already.
        identities: of all trials.
    """
    request, how = found.request, found.request
    typed = trials[0][0].method
    base = load_strategy(typed, request.strategy_settings).value
    made = fingerprint(scenario.value, base, scenario.folder)
    runs = {run.identity: run for run in (_published(t, outcome, identities.of(t)) for t, outcome in trials)}
    if before is not None and before.fingerprint == made and before.chosen == dict(method.chosen):
        stays = _made_alike(before, typed, request, scenario, identities)
        # What was chosen by a sweep is chosen by that one still, where no other choice was left now.
        if len(method.curve) < 2 and any(run.validation for run in stays):
            how, runs = before.asked, {key: run for key, run in runs.items() if not run.validation}
        runs = {run.identity: run for run in stays} | runs
    asked = Asked(
        seeds=sorted({run.seed for run in runs.values() if not run.validation}),
        sweep_seeds=sorted({run.seed for run in runs.values() if run.validation}),
        metric=how.metric,
        floor=how.floor,
        validation_shots=how.validation_shots,
        scenario_settings=list(request.scenario_settings),
        strategy_settings=list(request.strategy_settings),
    )
    return Entry(
        scenario=found.scenario,
        method=method.name,
        kind=base.about.kind if base.about else "",
        source=base.about.paper if base.about else "",
        fingerprint=made,
        strategy=settings_of(base),
        asked=asked,
        chosen=dict(method.chosen),
        published_with=_software(),
        trials=sorted(runs.values(), key=lambda run: (not run.validation, str(run.settings), run.seed)),
    )


def _gone(before: Entry, after: Entry) -> int:
    """How many trials of an entry would not be made alike today; none are asked for where the method is
    another, or the value that was chosen."""
    if (before.fingerprint, before.chosen) != (after.fingerprint, after.chosen):
        return 0
    return len({run.identity for run in before.trials} - {run.identity for run in after.trials})


def _made_alike(
    before: Entry, method: str, request: Request, scenario: Located[Scenario], identities: Identities
) -> list[PublishedRun]:
    """Trials of an entry that would be made today with the same images and code.

    Args:
        before: of the same strategy, scenario and weights.
        method: as the user named it.
        request: of the comparison.
        scenario: of its tests.
        identities: of all trials.
    """
    validated = on_validation(request, before.asked.validation_shots)

    def now(run: PublishedRun) -> str | None:
        where, overrides = validated if run.validation else scenario, request.strategy_settings
        settings = tuple(run.settings.items())
        try:
            return identities.of(trial(method, settings, run.seed, where, overrides, run.validation))
        except UserError:  # there are no such images any more, or no such setting
            return None

    return [run for run in before.trials if now(run) == run.identity]


def refuse_other_streams(request: Request, names: Iterable[str], scenario: str, folder: Path) -> list[str]:
    """Refuse to write over what was published with other settings, or with more seeds or values tried.

    An entry whose method, scenario or weights have changed since is stale, and is meant to be replaced.

    Args:
        request: of the comparison.
        names: of its methods.
        scenario: its name.
        folder: of results.

    Returns:
        A line for every entry that will be replaced by one of other settings, images or weights.

    Raises:
        UserError: naming the file, what it holds, and what can be done.
    """
    located = load_scenario(request.scenario, request.scenario_settings)
    replaced: list[str] = []
    sweeps: dict[str, Sweep] = {}
    if request.sweep is not None:
        sweeps = sweeps_of(request.strategies, request.strategy_settings, request.sweep or None)
    for method, name in zip(request.strategies, names, strict=True):
        path = place(folder, scenario, name)
        strategy = load_strategy(method, request.strategy_settings).value
        _refuse_borrowed_name(f"--publish {folder}", method, strategy, request.strategy_settings)
        before = read_entry(path)
        if before is None:
            continue
        asked = before.asked
        _refuse_others("scenario", path, folder, asked.scenario_settings, request.scenario_settings)
        if before.fingerprint != fingerprint(located.value, strategy, located.folder):
            if is_current(before):
                _refuse_others("strategy", path, folder, asked.strategy_settings, request.strategy_settings)
            if is_of_what_ships(before):
                raise UserError(
                    f"--publish {folder}: {path} holds what {name} gives on {scenario} as they ship, and"
                    f" another scenario of that name ({request.scenario}) would be written over it; give it a"
                    " name of its own, or publish into another folder"
                )
            runs = counted(len(before.trials), "run")
            replaced.append(
                f"--publish {folder}: {path} ({runs}) was made with other tasks, settings or weights, and"
                " will be replaced"
            )
            continue
        points = grid(sweeps[method]) if sweeps.get(method) else []
        lacking = _lacking(before, request, points, request.shots(located.value))
        if lacking:
            raise UserError(
                f"--publish {folder}: {path} holds {', '.join(lacking)}, which would be lost where another"
                " value is chosen now; ask for that too, publish into another folder, or delete the file"
            )
    return replaced


def _refuse_borrowed_name(option: str, method: str, strategy: Strategy, settings: Sequence[str]) -> None:
    """Refuse a strategy of the user's own that is called like one that ships, for which everybody would take
    its row."""
    name = strategy.name
    if name not in shipped("strategy"):
        return
    try:
        is_it = settings_of(load_strategy(name, settings).value) == settings_of(strategy)
    except UserError:  # which the settings fit, and not the one that ships
        is_it = False
    if not is_it:
        raise UserError(
            f"{option}: {method} is called '{name}', as a strategy that ships with other settings; give it a"
            " name of its own"
        )


def _refuse_others(what: str, path: Path, folder: Path, then: Sequence[str], now: Sequence[str]) -> None:
    if sorted(then) != sorted(now):
        before, asked = (", ".join(settings) or "none" for settings in (then, now))
        raise UserError(
            f"--publish {folder}: {path} was made with other settings of the {what} ({before}; now {asked})"
            " and would be written over; publish into another folder, or delete the file"
        )


def _lacking(before: Entry, request: Request, points: Sequence[Settings], shots: int) -> list[str]:
    """What an entry holds that a comparison does not ask for, where another value may be chosen by it: all
    that was found with the chosen one then goes. With the same one, whatever it holds stays.

    Args:
        before: made of the same strategy, scenario and weights.
        points: that are tried now; none without a sweep.
        shots: validation images a class that they are tried with.
    """
    if len(points) < 2 and dict(*points) == before.chosen:
        return []
    found, asked = [], before.asked
    tried = {frozenset(run.settings.items()) for run in before.trials if run.validation}
    values = len(tried - {frozenset(settings) for settings in points})
    if values:
        found.append(f"{counted(values, 'value')} of its sweep")
    seeds = {"its tests": before.tests().keys() - set(request.seeds)}
    if tried and points:
        seeds["its sweep"] = {run.seed for run in before.trials if run.validation}
        seeds["its sweep"] -= set(request.seeds_of_sweeps())
        then = asked.metric, asked.floor, asked.validation_shots
        if then != (request.metric, request.floor, shots):
            floor = "no floor" if asked.floor is None else f"a floor of {asked.floor:g}"
            images = counted(asked.validation_shots, "validation image")
            found.append(f"what was chosen by {asked.metric} with {floor} on {images} a class")
    for what, missing in seeds.items():
        if missing:
            found.append(f"the seeds {', '.join(map(str, sorted(missing)))} of {what}")
    return found


def _lines(content: Mapping[str, Any]) -> str:
    """JSON with a line for every trial: a diff shows which of them changed."""
    head = {key: value for key, value in content.items() if key != "trials"}
    rows = ",\n".join(
        f"  {json.dumps(run, ensure_ascii=False, allow_nan=False)}" for run in content["trials"]
    )
    return f'{json.dumps(head, indent=1, ensure_ascii=False)[:-2]},\n "trials": [\n{rows}\n ]\n}}\n'


def _published(t: Trial, outcome: Outcome, identity: str) -> PublishedRun:
    kept = {m: {name: Answers.of(*seen) for name, seen in sets.items()} for m, sets in outcome.kept.items()}
    return PublishedRun(
        identity=identity,
        settings=dict(t.settings),
        seed=t.seed,
        validation=t.validation,
        error=outcome.error,
        results=None if outcome.results is None else _short(outcome.results, t.validation),
        updates=outcome.updates,
        kept=kept,
    )


def _short(results: Mapping[str, Any], validation: bool) -> dict[str, Any]:
    if validation:
        return {key: results[key] for key in SCORED if key in results}
    kept = {key: value for key, value in results.items() if key in forms.Results.model_fields}
    details = [{key: detail.get(key) for key in DETAIL} for detail in results["tasks_detail"]]
    return kept | {"tasks_detail": details}


def _software() -> dict[str, str | bool | None]:
    """The version that wrote an entry, and its commit where it is a repository; each run tells its own."""
    said = {"cl_complora": __version__, "commit": None, "modified": None}
    here = Path(__file__).resolve().parents[1]  # the package: the runs came from all of it
    try:
        said["commit"] = _git(here, "-c", "core.fsmonitor=", "rev-parse", "HEAD").strip()
        said["modified"] = bool(
            _git(here, "-c", "core.fsmonitor=", "status", "--porcelain", "--untracked-files=no", ".").strip()
        )
    except (OSError, subprocess.SubprocessError):
        pass
    return said


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-c", "core.fsmonitor=", "-C", str(folder), *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    ).stdout
