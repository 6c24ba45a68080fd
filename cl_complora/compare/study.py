"""The comparison itself: sweep on validation shots, choose, test with every seed, put the figures
together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..config import Scenario, Strategy, load_scenario, load_strategy
from ..config.loading import Located
from ..config.overrides import OfOption, written
from ..config.plugin_file import refuse_plugin
from ..errors import UserError, raise_all
from ..files import slug
from .choosing import check_metric_of, choose, for_validation, point, refuse_shots_twice
from .method import Method, against
from .outcomes import Outcome, refuse_without
from .plan_store import PlanStore
from .results_files import Library
from .sweeps import Sweep, not_swept, sweeps_of
from .trials import Settings, Trial, grid, trial
from .worker_kinds import open_workers
from .workers import Placing

# Validation images a class where nobody says how many.
SHOTS = 4


@dataclass(frozen=True)
class Request:
    """What to compare.

    Attributes:
        scenario: name or path.
        strategies: names or paths.
        seeds: of the tests.
        sweep_seeds: of the sweeps; the first of ``seeds`` where empty.
        sweep: key path → values for all methods; None for no sweep; an empty mapping for each method's own.
        metric: one of :data:`.choosing.SCORES`.
        floor: smallest retention in points that a swept value may have to be eligible.
        reference: method that the others are compared with; the first where empty.
        validation_shots: images a class set apart from the training pool for the sweep; the scenario's own
            number where None, or else four.
        scenario_settings, strategy_settings: ``key.path=value`` for the scenario, and for every strategy.
    """

    scenario: str
    strategies: tuple[str, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    sweep_seeds: tuple[int, ...] = ()
    sweep: dict[str, list[float]] | None = None
    metric: str = "last"
    floor: float | None = None
    reference: str = ""
    validation_shots: int | None = None
    scenario_settings: tuple[str, ...] = ()
    strategy_settings: tuple[str, ...] = ()

    def shots(self, scenario: Scenario) -> int:
        """Validation images a class of the sweeps."""
        return self.validation_shots or scenario.validation_shots or SHOTS

    def seeds_of_sweeps(self) -> tuple[int, ...]:
        """Of the sweeps, also where nobody named any."""
        return self.sweep_seeds or self.seeds[:1]


@dataclass
class Comparison:
    """A finished comparison: what was asked, one :class:`Method` per strategy, every trial of them, and the
    plans that they were made by."""

    request: Request
    scenario: str
    reference: str
    methods: list[Method]
    trials: list[tuple[Trial, Outcome]] = field(default_factory=list)
    plans: PlanStore = field(default_factory=PlanStore, repr=False, compare=False)

    def content(self) -> dict[str, Any]:
        """Everything, for programs and for the views: what comparison.json holds."""
        return {
            "schema": 1,
            "scenario": self.scenario,
            "reference": self.reference,
            "request": asdict(self.request),
            "methods": {m.name: asdict(m) | {"chosen": dict(m.chosen)} for m in self.methods},
        }


@dataclass(frozen=True)
class Prepared:
    """A request that can be answered.

    Attributes:
        request: itself, with what it leaves open.
        reference: name of the strategy that the others are compared with.
        scenario: of the tests.
        names: method as the user named it → name of the strategy.
        sweeps: method → swept settings → trials on validation shots.
        plans: of the scenario with every seed, measured on test images and on validation shots.
    """

    request: Request
    reference: str
    scenario: Located[Scenario]
    names: dict[str, str]
    sweeps: dict[str, dict[Settings, list[Trial]]]
    plans: PlanStore

    def swept(self) -> list[Trial]:
        """All trials on validation shots."""
        return [t for points in self.sweeps.values() for trials in points.values() for t in trials]

    def choose(self, outcomes: Sequence[Outcome]) -> dict[str, Method]:
        """Every method with its curve and what is chosen by it; one that does not fit the scenario or the
        model, whatever its settings, or of which no value could be trained, with that as its failure.

        Args:
            outcomes: of :meth:`swept`.

        Raises:
            UserError: if the training of all values of the only method failed, and for runs that were lost.
        """
        refuse_without("the sweep", self.swept(), outcomes)
        waiting = iter(outcomes)
        methods = {method: Method(name) for method, name in self.names.items()}
        for method, points in self.sweeps.items():
            entry = methods[method]
            found = {settings: [next(waiting) for _ in trials] for settings, trials in points.items()}
            every = [outcome for part in found.values() for outcome in part]
            if every and all(outcome.refused for outcome in every):
                entry.failed = [f"on validation shots: {every[0].error}"]
                continue
            entry.curve = [point(settings, part, self.request.metric) for settings, part in found.items()]
            try:
                entry.chosen = choose(entry.name, entry.curve, self.request.floor)
            except UserError as error:
                if len(methods) == 1:
                    raise
                entry.failed = [f"on validation shots: {error}"]
        return methods

    def tests(self, methods: Mapping[str, Method]) -> list[Trial]:
        """The trials of the chosen settings on test images: of every method that can be tested all seeds."""
        return [
            trial(method, entry.chosen, seed, self.scenario, self.request.strategy_settings)
            for method, entry in methods.items()
            if not entry.failed
            for seed in self.request.seeds
        ]


def load_strategies(methods: Sequence[str], overrides: Sequence[str]) -> list[Located[Strategy]]:
    """Strategies with the settings of a comparison.

    Raises:
        UserError: as :func:`~cl_complora.config.load_strategy`, and for a setting that one of them does not
            take, which is named.
    """
    loaded = []
    for method in methods:
        try:
            loaded.append(load_strategy(method, overrides))
        except UserError as error:
            raise_all([_told_of(method, message, overrides) for message in error.messages])
    return loaded


def _told_of(method: str, message: str, overrides: Sequence[str]) -> str:
    for start in (f"{written(override)}: " for override in overrides):
        if message.startswith(start):
            return f"{start}{method} does not take it: {message.removeprefix(start)}"
    return message


def prepare(
    request: Request, tell: Callable[[str], None] | None = None, allow_plugins: bool = True
) -> Prepared:
    """Check a request and lay out its sweeps.

    Args:
        request: what.
        tell: given a sentence for every method that is not swept as was asked.
        allow_plugins: False refuses strategies that name code of the user's own.

    Raises:
        UserError: for input that cannot work.
    """
    loaded = load_strategies(request.strategies, request.strategy_settings)
    if not allow_plugins:  # which a run tells as well, but after the runs of all methods before it
        for strategy in loaded:
            with strategy.at_its_line():
                refuse_plugin(strategy.value)
    names = [strategy.value.name for strategy in loaded]
    if twice := [one for place, one in enumerate(request.strategies) if one in request.strategies[:place]]:
        raise UserError(f"--strategies: {twice[0]} stands twice; each may stand once")
    _refuse_shared_folders(names)
    reference = _reference(request, names)
    scenario = load_scenario(request.scenario, request.scenario_settings)
    if scenario.value.measure != "test":
        why = "settings are chosen on validation shots by a sweep, and tested on test images"
        raise UserError(scenario.fault(("measure",), f"must be test in a comparison: {why}"))
    refuse_shots_twice(request.scenario_settings, request.validation_shots)
    if request.sweep is not None:
        check_metric_of(request.metric, scenario.value)
    shots = request.shots(scenario.value)
    request = replace(request, validation_shots=shots)
    plans = PlanStore()
    for seed in {*request.seeds, *request.sweep_seeds}:
        plans.of(scenario, seed)
    swept_over: dict[str, Sweep] = {}
    if request.sweep is not None:
        swept_over = sweeps_of(request.strategies, request.strategy_settings, request.sweep or None)
        for sentence in not_swept(swept_over, request.sweep):
            if tell is not None:
                tell(sentence)
    sweeps = _sweep_trials(request, on_validation(request, shots), swept_over, plans)
    by_method = dict(zip(request.strategies, names, strict=True))
    return Prepared(request, reference, scenario, by_method, sweeps, plans)


def on_validation(request: Request, shots: int) -> Located[Scenario]:
    """The scenario of a comparison measured on so many validation images a class."""
    wanted = OfOption(f"validation_shots={shots}", f"--validation-shots {shots}")
    return for_validation(request.scenario, [*request.scenario_settings, wanted], shots)


def compare(
    request: Request,
    out: Path = Path("runs"),
    jobs: int = 1,
    device: str = "auto",
    allow_plugins: bool = False,
    report: Callable[[Trial, Outcome, int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
    results: Path | None = None,
    begins: Callable[[Sequence[Trial]], None] | None = None,
    **placing: Any,
) -> Comparison:
    """Run what is missing and compare.

    Args:
        request: what.
        out: folder of all runs.
        jobs: runs at a time.
        device, allow_plugins: as for ``run``.
        report: told of every finished run, with how many are done of how many in this stage.
        tell: given a sentence for every method that is not swept as was asked, before anything is run.
        results: folder of published results (:mod:`.results_files`), which stand for runs.
        begins: told of the runs of a stage that are not published, before the first of them.
        placing: more of :class:`~cl_complora.compare.workers.Placing`: ``cluster``, ``gpus_per_run``,
            ``threads``, ``elsewhere``.

    Raises:
        UserError: for input that cannot work, before anything is run; for runs that were made with something
            else or were lost, and if no method could be tested. Of a method whose training failed, or which
            does not fit the scenario or the model, that is told, and the others are compared.
    """
    prepared = prepare(request, tell, allow_plugins)
    request = prepared.request
    swept = prepared.swept()
    library, tried = Library(results, prepared.scenario.value.name, prepared.plans), []
    if placing.get("cluster") is None:
        jobs = max(1, min(jobs, max(len(swept), len(prepared.names) * len(request.seeds))))
    with open_workers(Placing(out, jobs, device, allow_plugins, **placing), tell, prepared.plans) as workers:

        def run(trials: Sequence[Trial]) -> list[Outcome]:
            done = itertools.count(1)
            tell = report or (lambda *line: None)
            found = {index: library.outcome(t) for index, t in enumerate(trials)}
            missing = [t for index, t in enumerate(trials) if found[index] is None]
            if begins is not None:
                begins(missing)
            ran = iter(workers.run(missing, lambda t, outcome: tell(t, outcome, next(done), len(missing))))
            outcomes = [found[index] or next(ran) for index in range(len(trials))]
            tried.extend(zip(trials, outcomes, strict=True))
            return outcomes

        methods = prepared.choose(run(swept))
        tests = prepared.tests(methods)
        found = run(tests)
    refuse_without("the comparison", tests, found, undone="written")
    outcomes = iter(found)
    reference = prepared.reference
    tested = {}
    for entry in methods.values():
        if entry.failed:
            continue
        part = [next(outcomes) for _ in request.seeds]
        entry.failed = [f"seed {s}: {o.error}" for s, o in zip(request.seeds, part, strict=True) if o.error]
        if not entry.failed:
            tested[entry.name] = part
            entry.describe(part)
    if not tested:
        if all(outcome.refused for _, outcome in tried):
            raise_all([str(outcome.error) for _, outcome in tried])
        why = tuple(f"{entry.name}: {failure}" for entry in methods.values() for failure in entry.failed)
        raise UserError("no method could be tested, so nothing is written", why)
    for entry in methods.values():
        if {entry.name, reference} <= tested.keys() and entry.name != reference:
            entry.differences = against(tested[entry.name], tested[reference])
    name = prepared.scenario.value.name
    return Comparison(request, name, reference, list(methods.values()), tried, prepared.plans)


def _refuse_shared_folders(names: Sequence[str]) -> None:
    """Refuse strategies whose runs would lie in one folder, which is told only when the second begins."""
    folders: dict[str, str] = {}
    for name in names:
        folder = slug(name)
        if folder in folders:
            other = folders[folder]
            who = f"two of them are called '{name}', and" if other == name else f"'{other}' and '{name}'"
            raise UserError(f"--strategies: {who} would share the folder '{folder}'; rename one")
        folders[folder] = name


def _reference(request: Request, names: Sequence[str]) -> str:
    if not request.reference:
        return names[0]
    for method, name in zip(request.strategies, names, strict=True):
        if request.reference in (method, name):
            return name
    raise UserError(
        f"--reference {request.reference}: must be one of the compared strategies: {', '.join(names)}"
    )


def _sweep_trials(
    request: Request, scenario: Located[Scenario], sweeps: Mapping[str, Sweep], plans: PlanStore
) -> dict[str, dict[Settings, list[Trial]]]:
    if not sweeps:
        return {}
    seeds = request.seeds_of_sweeps()
    for seed in seeds:
        # Also: are there enough images for the validation shots?
        held_out = plans.of(scenario, seed).zero_shot
        if not held_out and (request.metric == "harmonic" or request.floor is not None):
            raise UserError(
                "--metric harmonic and --floor need zero-shot images that no test uses: give the scenario a"
                " zero-shot set with a training split, or limit its images"
            )
    found: dict[str, dict[Settings, list[Trial]]] = {}
    for method, swept in sweeps.items():
        found[method] = {
            settings: [
                trial(method, settings, seed, scenario, request.strategy_settings, True) for seed in seeds
            ]
            for settings in (grid(swept) if swept else [])
        }
    return found
