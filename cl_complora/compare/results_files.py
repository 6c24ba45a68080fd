"""Results in a repository: a JSON file for every method, ``results/<scenario>/<method>.json``.

A file holds what a comparison needs to print its table without running anything: every trial of the sweep,
the tests of every seed with their matrices, costs and updates, and which zero-shot images were answered
rightly. What was asked and what it was made with stand beside them. A file that is read is not trusted.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
from pydantic import ConfigDict, Field, model_validator

from .. import metrics
from ..config import Scenario, Strategy, load_scenario, load_strategy
from ..config.base import Name
from ..config.loading import Located
from ..config.plugin_file import plugin_code
from ..config.scenario import Protocol
from ..errors import UserError
from ..files import slug
from ..store import forms
from .outcomes import Outcome
from .plan_store import PlanStore
from .trials import Settings, Trial
from .update_rows import are_rows, is_number
from .weight_files import weight_file, weights_known_by

# Of a task's detail: what tables are made of, and the fingerprint of its images.
COSTS = (
    "steps",
    "trainable_parameters",
    "stored_bytes",
    "carried_bytes",
    "train_seconds",
    "peak_memory_bytes",
)
DETAIL = ("name", "split_sha256", *COSTS)
# What a trial on validation shots is chosen by.
SCORED = ("last", "average", "retention", "zero_shot", "independent")
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Value = bool | int | float | str


class _Strict(forms.Form):
    model_config = ConfigDict(extra="forbid", strict=True)


class Answers(_Strict):
    """Which images or queries of a set were answered rightly: bits, in the order that the digest names."""

    digest: Sha256
    count: Annotated[int, Field(ge=0, le=10_000_000)]
    bits: str

    @model_validator(mode="after")
    def _enough(self) -> Answers:
        if 8 * len(base64.b64decode(self.bits, validate=True)) < self.count:
            raise ValueError("has fewer bits than answers")
        return self

    @classmethod
    def of(cls, digest: str, right: np.ndarray) -> Answers:
        """Pack what :data:`.by_image.Kept` holds of a set."""
        bits = base64.b64encode(np.packbits(right).tobytes()).decode("ascii")
        return cls(digest=digest, count=int(right.size), bits=bits)

    def opened(self) -> tuple[str, np.ndarray]:
        """What was packed."""
        content = np.frombuffer(base64.b64decode(self.bits), np.uint8)
        return self.digest, np.unpackbits(content, count=self.count).astype(bool)


class _Scored(forms.Form):
    """What a trial on validation shots is chosen by (:data:`SCORED`)."""

    last: float
    average: forms.Number
    retention: dict[str, float]
    zero_shot: dict[str, Annotated[list[float], Field(min_length=2)]]
    independent: bool = False


class PublishedRun(_Strict):
    """A trial: what it is of, and what became of it."""

    identity: Sha256
    settings: dict[str, Value]
    seed: int
    validation: bool
    error: str | None = None
    results: dict[str, Any] | None = None
    updates: list[dict[str, float | None]] | None = None
    kept: dict[str, dict[str, Answers]] = {}


class Asked(_Strict):
    """How settings were chosen and what was tested."""

    seeds: list[int]
    sweep_seeds: list[int]
    metric: str
    floor: float | None
    validation_shots: int
    scenario_settings: list[str]
    strategy_settings: list[str]


class Fingerprint(_Strict):
    """What the numbers depend on, less what the trials vary: another one makes an entry stale."""

    scenario: Sha256
    strategy: Sha256
    weights: str


class Entry(_Strict):
    """A file of results; ``kind`` and ``source`` are those of the strategy's ``about``."""

    version: Annotated[int, Field(ge=1, le=1)] = 1
    scenario: Name
    method: Name
    kind: str = ""
    source: str = ""
    fingerprint: Fingerprint
    strategy: dict[str, Any]
    asked: Asked
    chosen: dict[str, Value]
    published_with: dict[str, str | bool | None]
    trials: Annotated[list[PublishedRun], Field(max_length=10_000)]

    def tests(self) -> dict[int, Outcome]:
        """Seed → test with the settings that were chosen."""
        return {
            run.seed: outcome_of(run)
            for run in self.trials
            if not run.validation and run.settings == self.chosen
        }

    def curve(self) -> dict[Settings, list[Outcome]]:
        """Settings → their trials on validation shots, by seed."""
        found: dict[Settings, list[Outcome]] = {}
        for run in self.trials:
            if run.validation:
                found.setdefault(tuple(run.settings.items()), []).append(outcome_of(run))
        return found


def place(folder: Path, scenario: str, method: str) -> Path:
    """Where the results of a method are."""
    return folder / slug(scenario) / f"{slug(method)}.json"


def read_entry(path: Path) -> Entry | None:
    """A file of results, or None where there is none.

    Raises:
        UserError: naming what is wrong with it.
    """
    content = forms.read_json(path)
    if content is None:
        return None
    entry = forms.parsed(path, Entry, content)
    for run in entry.trials:
        if run.results is None and run.error is None:
            raise forms.damaged(path, "trials: one has neither results nor an error")
        if not run.validation:
            _check_test(path, run)
        elif run.results is not None:
            if not set(SCORED[:4]) <= run.results.keys():
                raise forms.damaged(path, "trials: one on validation shots lacks what it is chosen by")
            forms.checked(path, _Scored, run.results)
    if len({(run.validation, run.seed, *run.settings.items()) for run in entry.trials}) < len(entry.trials):
        raise forms.damaged(path, "trials: one stands twice")
    tests = [outcome.results for outcome in entry.tests().values()]
    if not tests:
        raise forms.damaged(path, "trials: none is a test with the settings that were chosen")
    for key in ("tasks", "retention", "retrieval_retention", "multi_label_retention"):
        if any(list(results.get(key, ())) != list(tests[0].get(key, ())) for results in tests):
            raise forms.damaged(path, f"trials: {key}: is not of the same in every test")
    return entry


def _check_test(path: Path, run: PublishedRun) -> None:
    """Refuse a test of which a table or a leaderboard could not be made."""
    if run.error is not None or run.results is None:
        raise forms.damaged(path, "trials: a test holds an error; only what finished is published")
    results = forms.checked_results(path, run.results)
    tasks = len(results["tasks"])
    if results["status"] != "done" or len(results["accuracy"]) != tasks + 1:
        raise forms.damaged(path, "trials: a test has not a row of accuracy for the start and for every task")
    # What an independent task's model answers to the others is not asked.
    own = results.get("independent", False)
    for learned, row in enumerate(results["accuracy"]):
        asked = row[learned - 1 : learned] if own and learned else row
        if not all(map(is_number, asked)):
            raise forms.damaged(path, "trials: accuracy: must be numbers")
    _check_figures(path, results)
    details = results["tasks_detail"]
    if len(details) != tasks or not all(set(DETAIL) <= detail.keys() for detail in details):
        raise forms.damaged(path, f"trials: tasks_detail must have {', '.join(DETAIL)} of every task")
    for key in COSTS:
        if not all(is_number(detail[key]) and detail[key] >= 0 for detail in details):
            raise forms.damaged(path, f"trials: tasks_detail.{key}: must be a number of at least 0")
    if not are_rows(run.updates, tasks):
        raise forms.damaged(path, "trials: updates: must have all figures of every task's update")


def _check_figures(path: Path, results: Mapping[str, Any]) -> None:
    """Refuse shares that are none, and figures that do not follow from the matrices beside them."""
    rows, own = results["accuracy"], results.get("independent", False)
    for key, values in {"accuracy": chain(*rows), "zero_shot": chain(*results["zero_shot"].values())}.items():
        if any(is_number(value) and not 0.0 <= value <= 1.0 for value in values):
            raise forms.damaged(path, f"trials: {key}: must lie between 0 and 1")
    figures = metrics.of_independent(rows) if own else metrics.summarize(rows)
    kept = metrics.mean_retention if own else metrics.retention
    told = {key: (results[key], figures[key]) for key in ("last", "average", "forgetting", "bwt")}
    told |= {
        f"retention.{name}": (value, kept([math.nan if v is None else v for v in results["zero_shot"][name]]))
        for name, value in results["retention"].items()
    }
    for key, (value, follows) in told.items():
        if is_number(value) != math.isfinite(follows) or (is_number(value) and abs(value - follows) > 1e-6):
            raise forms.damaged(path, f"trials: {key}: is not what its matrix gives")


def read_entries(folder: Path, scenario: str) -> list[Entry]:
    """All entries of a scenario, by name.

    Raises:
        UserError: for a file that is damaged, or of another method or scenario than its place says.
    """
    found = []
    for path in sorted((folder / slug(scenario)).glob("*.json")):
        entry = read_entry(path)
        if entry is not None:
            if place(folder, entry.scenario, entry.method) != path:
                raise UserError(f"{path}: holds the results of '{entry.method}' on '{entry.scenario}'")
            found.append(entry)
    return found


def refuse_without_entries(folder: Path, scenario: str) -> None:
    """Refuse a folder to read results from that has none of a scenario, all of which would be run again.

    Raises:
        UserError: naming where they would lie.
    """
    if not any((folder / slug(scenario)).glob("*.json")):  # what is in them is read once, by Library
        lie = f"they would be {folder / slug(scenario)}/METHOD.json"
        raise UserError(f"--results {folder}: holds no results of '{scenario}': {lie}")


def fingerprint(scenario: Scenario, strategy: Strategy, folder: Path) -> Fingerprint:
    """Of a scenario, a strategy as it stands, and the weights that it begins with.

    Settings at their default are left out, so that a setting that a later version brings changes nothing.

    Args:
        scenario, strategy: as loaded.
        folder: of the scenario.
    """
    return Fingerprint(
        scenario=_stream_digest(scenario),
        strategy=_digest(_settings_on(scenario.protocol, strategy)),
        weights=weights_known_by(scenario, folder),
    )


def _stream_digest(scenario: Scenario) -> str:
    """SHA-256 of what a scenario says of its stream."""
    unread = {"seeds", "description", "validation_shots"}
    return _digest(scenario.model_dump(mode="json", exclude_defaults=True, exclude=unread))


def settings_of(strategy: Strategy) -> dict[str, Any]:
    """What a strategy sets, less what no number depends on."""
    return strategy.model_dump(
        mode="json", exclude_defaults=True, exclude={"description", "about", "sweep", "name"}
    )


def _settings_on(protocol: str, strategy: Strategy) -> dict[str, Any]:
    """:func:`settings_of`, with the one setting whose default is not what versions without it did."""
    said = settings_of(strategy)
    if strategy.carries_head(protocol):
        said["head"]["drift"] = strategy.head.drift
    return said


class Identities:
    """What trials are known by; images are looked up once for a scenario and seed.

    Args:
        plans: of the trials, where some are made already.
    """

    def __init__(self, plans: PlanStore | None = None) -> None:
        self._plans = plans or PlanStore()
        self._splits: dict[tuple[str, int], dict[str, str]] = {}

    def of(self, t: Trial) -> str:
        """SHA-256 of everything that a trial's numbers depend on but software and device."""
        scenario = t.scenario.value
        stream = scenario.model_dump(mode="json", exclude_defaults=True, exclude={"seeds", "description"})
        key = _digest([stream, str(t.scenario.folder)]), t.seed
        if key not in self._splits:
            plans = self._plans.of(t.scenario, t.seed)
            self._splits[key] = {p.name: p.sha256() for p in (*plans, *plans.beside)}
        weights = weights_known_by(scenario, t.scenario.folder)
        settings = _settings_on(scenario.protocol, t.strategy.value)
        made_of = [stream, settings, t.seed, self._splits[key], weights]
        code = plugin_code(t.strategy)
        return _digest(made_of if code is None else [*made_of, code])


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def is_current(entry: Entry) -> bool:
    """Whether the files that ship today still say what the entry was made with.

    What does not ship (somebody's own scenario or strategy, by its name, and weights that are not at hand)
    cannot be told from here, and is taken to be what it was.
    """
    return False not in _made_with_what_ships(entry)


def is_of_what_ships(entry: Entry) -> bool:
    """Whether scenario and strategy are known by the entry's names, and are what it was made with."""
    return _made_with_what_ships(entry) == (True, True)


def _made_with_what_ships(entry: Entry) -> tuple[bool | None, bool | None]:
    """Of the scenario with its weights, and of the strategy, whether they are the entry's; None for what
    nobody knows by its name."""
    try:
        located = load_scenario(entry.scenario, entry.asked.scenario_settings)
    except UserError:
        return None, _made_by(entry, get_args(Protocol))
    return _made_on(entry, located), _made_by(entry, (located.value.protocol,))


def _made_on(entry: Entry, located: Located[Scenario]) -> bool:
    scenario, before = located.value, entry.fingerprint
    told = weight_file(scenario, located.folder) is not None
    same = not told or weights_known_by(scenario, located.folder) == before.weights
    return same and _stream_digest(scenario) == before.scenario


def _made_by(entry: Entry, protocols: Iterable[str]) -> bool | None:
    try:
        strategy = load_strategy(entry.method, entry.asked.strategy_settings).value
    except UserError:
        return None
    return entry.fingerprint.strategy in {_digest(_settings_on(one, strategy)) for one in protocols}


class Library:
    """Published results that stand for trials: by what their numbers depend on.

    Args:
        folder: of results; None for none.
        scenario: its name.
        plans: of the trials, where some are made already.
    """

    def __init__(self, folder: Path | None, scenario: str, plans: PlanStore | None = None) -> None:
        self._known: dict[str, PublishedRun] = {}
        self._identities = Identities(plans)
        if folder is not None:
            for entry in read_entries(folder, scenario):
                self._known |= {run.identity: run for run in entry.trials}

    def outcome(self, t: Trial) -> Outcome | None:
        """What is published about a trial; None where nothing is."""
        if not self._known:
            return None
        run = self._known.get(self._identities.of(t))
        return None if run is None else outcome_of(run)


def outcome_of(run: PublishedRun) -> Outcome:
    """A published trial as a comparison takes it."""
    kept = {
        metric: {name: answers.opened() for name, answers in sets.items()}
        for metric, sets in run.kept.items()
    }
    return Outcome(run.results, run.updates, kept, run.error, reused=True)
