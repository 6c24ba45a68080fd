"""Settings of one strategy for one's own stream: rates, steps and energy chosen on validation shots, within a
time."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..config import Scenario, Strategy, load_scenario, load_strategy
from ..config.loading import Located
from ..config.overrides import OfOption, refuse_measure
from ..data.planning import Plans, plan
from ..errors import UserError
from ..metrics import keeps
from .choosing import Point, check_floor, check_metric_of, choose, for_validation, point, refuse_shots_twice
from .lead import lead_error
from .outcomes import Outcome, folder_of, is_done, refuse_without
from .search import Axis, Place, search
from .trials import Settings, Trial, trial
from .tunable import EPOCHS, STEPS, Grid, axes_of, grid_of
from .worker_kinds import open_workers
from .workers import Placing, Workers

FLOOR = -3.0
# Standard errors by which Last has to rise before settings are given up.
SURE = 2.0
# Validation images a class: so many that there are ``ENOUGH`` in all, but at least FEW and at most the first,
# or fewer where a class has not as many beside its shots.
SHOTS = (16, 12, 8, 6, 4, 3, 2, 1)
FEW, ENOUGH = 4, 512


@dataclass(frozen=True)
class TuningRequest:
    """What to tune.

    Attributes:
        scenario, strategy: names or paths.
        seeds: a setting's figures are means over these.
        minutes: after which nothing more is begun.
        metric: one of :data:`.choosing.SCORES`.
        floor: smallest retention in points; None for ``FLOOR`` where retention is measured.
        validation_shots: images a class; None for what ``SHOTS`` says.
        scenario_settings, strategy_settings: ``key.path=value``.
    """

    scenario: str
    strategy: str
    seeds: tuple[int, ...] = (0,)
    minutes: float = 30.0
    metric: str = "last"
    floor: float | None = None
    validation_shots: int | None = None
    scenario_settings: tuple[str, ...] = ()
    strategy_settings: tuple[str, ...] = ()


@dataclass
class Tuning:
    """What is tuned, and what came of it.

    Attributes:
        request: what was asked.
        scenario: measured on validation shots.
        strategy: as it stands.
        grid: setting → level → value; level 0 is the value that it has.
        axes: of the search.
        validation: images of all tasks that settings are chosen by.
        shots: of them, most of one class.
        held_out: zero-shot sets that retention is measured on.
        unmeasured: why there are none of these; empty where there are.
        floor: that applies; None where nothing is held out.
        curve: every combination tried, in order.
        chosen: value of every setting of the grid.
        complete: the search came to its end; otherwise the time did.
        stayed: why settings stay as they stood though another combination scored higher; empty where that is
            not so.
    """

    request: TuningRequest
    scenario: Located[Scenario]
    strategy: Located[Strategy]
    grid: Grid
    axes: list[Axis]
    validation: int
    shots: int
    held_out: tuple[str, ...]
    unmeasured: str
    floor: float | None
    curve: list[Point] = field(default_factory=list)
    chosen: Settings = ()
    complete: bool = False
    stayed: str = ""

    @property
    def name(self) -> str:
        """Of the strategy that is made."""
        return f"{self.strategy.value.name[:57]}-tuned"

    def values(self, place: Place) -> Settings:
        """What the settings are at a place of the grid."""
        return tuple((key, levels[at]) for (key, levels), at in zip(self.grid.items(), place, strict=True))

    def changed(self, settings: Settings) -> Settings:
        """Those that are not what they were."""
        return tuple((key, value) for key, value in settings if value != self.grid[key][0])

    def steps_factor(self, place: Place) -> float:
        """Steps of a place over those of the strategy as it stands."""
        values = dict(self.values(place))
        return next((values[key] / self.grid[key][0] for key in (STEPS, EPOCHS) if key in values), 1.0)

    def found(self, settings: Settings) -> Point:
        """The figures of a combination that was tried."""
        return next(p for p in self.curve if p["settings"] == dict(settings))

    def is_above_floor(self, one: Point) -> bool:
        """Whether a combination keeps as much as was asked."""
        return self.floor is None or keeps(one["retention"], self.floor)


def prepare(request: TuningRequest) -> Tuning:
    """Find out what can be tuned and what it can be chosen by; runs nothing.

    Raises:
        UserError: for input that cannot work, and a strategy that has nothing to tune.
    """
    strategy = load_strategy(request.strategy, request.strategy_settings)
    nothing = f"strategy '{strategy.value.name}': has no rate, steps or energy, so there is nothing to tune"
    if strategy.value.optimiser is None:  # which no number of images changes, so that none is asked for
        raise UserError(nothing)
    tested = plan(load_scenario(request.scenario, request.scenario_settings), request.seeds[0])
    scenario, plans = _with_shots(request, sum(len(task.class_names) for task in tested.tasks))
    held_out = tuple(one.name for one in plans.zero_shot)
    unmeasured = "" if held_out else _unmeasured(scenario.value.name, tested)
    if unmeasured and request.floor is not None:
        raise UserError(f"--floor {request.floor:g}: retention cannot be measured: {unmeasured}")
    check_floor(request.floor)
    check_metric_of(request.metric, scenario.value)
    if unmeasured and request.metric == "harmonic":
        raise UserError(f"--metric harmonic: retention cannot be measured: {unmeasured}")
    images = [len(task.train) for task in plans.tasks]
    grid = grid_of(request.strategy, request.strategy_settings, images)
    if not grid:
        raise UserError(nothing)
    validation = sum(len(task.validation) for task in plans.tasks)
    of_classes = [task for task in plans.tasks if not task.captioned]
    each = [max(Counter(item.label for item in task.validation).values()) for task in of_classes]
    shots = max(each, default=0)
    floor = (FLOOR if request.floor is None else request.floor) if held_out else None
    return Tuning(
        request, scenario, strategy, grid, axes_of(grid), validation, shots, held_out, unmeasured, floor
    )


def _unmeasured(scenario: str, tested: Plans) -> str:
    """Why retention is not measured where there is nothing to measure it on.

    Args:
        scenario: its name.
        tested: its plans as it is tested.
    """
    if not tested.zero_shot:
        return f"{scenario} has no zero-shot set"
    half = max(1, len(tested.zero_shot[0].test) // 2)
    return (
        f"tests use every image of {', '.join(one.name for one in tested.zero_shot)}"
        f" (--set zero_shot.0.images={half} leaves some to choose by)"
    )


def _with_shots(request: TuningRequest, classes: int) -> tuple[Located[Scenario], Plans]:
    """The scenario measured on validation shots, and its plan for the first seed.

    Args:
        classes: of all tasks.
    """
    asked, settings = request.validation_shots, list(request.scenario_settings)
    refuse_shots_twice(settings, asked)
    refuse_measure(settings)
    if asked is not None:
        settings.append(OfOption(f"validation_shots={asked}", f"--validation-shots {asked}"))
    wanted = max(FEW, ENOUGH // max(1, classes))
    for shots in (number for number in SHOTS if number <= wanted):
        scenario = for_validation(request.scenario, settings, shots)
        try:
            plans = [plan(scenario, seed) for seed in request.seeds]
            return scenario, plans[0]
        except UserError:
            # What was asked for, or stands in the file, is not made smaller; nor are there fewer than one.
            if shots == SHOTS[-1] or scenario.value.validation_shots != shots or asked is not None:
                raise
    raise AssertionError("one of them is the last")


class Pace:
    """What a trial takes, from those that are there: seconds for each step of training, and others."""

    def __init__(self) -> None:
        self.steps = self.per_step = self.others = 0.0

    def learn(self, outcome: Outcome, factor: float) -> None:
        """Take note of a trial.

        Args:
            outcome: of the trial; one that failed teaches nothing.
            factor: its steps over those of the strategy as it stands.
        """
        if outcome.results is None:
            return
        details = outcome.results["tasks_detail"]
        steps, trained, measured = (
            sum(detail[key] for detail in details) for key in ("steps", "train_seconds", "eval_seconds")
        )
        self.steps = steps / factor
        self.per_step = trained / max(steps, 1)
        # What was found finished, or begun, took longer than it took now.
        self.others = max(outcome.seconds - trained, measured)

    def seconds(self, factor: float) -> float:
        """Expected of a trial with so many times the steps of the strategy as it stands."""
        return self.others + self.per_step * self.steps * factor


def tune(
    tuning: Tuning,
    out: Path = Path("runs"),
    jobs: int = 1,
    device: str = "auto",
    allow_plugins: bool = False,
    report: Callable[[Trial, Outcome], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    elsewhere: bool = False,
) -> None:
    """Search until nothing beside the best is left to try, or the time is up, and note what is chosen.

    Trials that are there are reused, one that was cut off goes on: the same call goes on with the search.

    Args:
        tuning: of :func:`prepare`; gets what is found.
        out: folder of all runs.
        jobs: trials at a time.
        device, allow_plugins, elsewhere: as for ``run``.
        report: told of every finished trial.
        clock: seconds.

    Raises:
        UserError: if none of the settings can be trained, and for trials that were lost.
    """
    report = report or (lambda t, outcome: None)
    with open_workers(Placing(out, jobs, device, allow_plugins, elsewhere)) as workers:
        measuring = _Measuring(tuning, workers, jobs, report, clock)
        start = (0,) * len(tuning.grid)
        tuning.complete = search(tuning.axes, start, measuring.exists, measuring, measuring.best)
    best = choose(tuning.strategy.value.name, tuning.curve, tuning.floor)
    tuning.stayed = measuring.no_lead(best, tuning.values(start))
    tuning.chosen = tuning.values(start) if tuning.stayed else best


class _Measuring:
    """Places of the grid to figures, as long as there is time."""

    def __init__(
        self,
        tuning: Tuning,
        workers: Workers,
        jobs: int,
        report: Callable[[Trial, Outcome], None],
        clock: Callable[[], float],
    ) -> None:
        self.tuning, self.workers, self.jobs, self.report, self.clock = tuning, workers, jobs, report, clock
        self.end = clock() + 60 * tuning.request.minutes
        self.pace = Pace()
        self.places: dict[Settings, Place] = {}

    def exists(self, place: Place) -> bool:
        """Whether the grid has a place."""
        return all(at in levels for at, levels in zip(place, self.tuning.grid.values(), strict=True))

    def best(self) -> Place:
        """The best place so far; the one of the lowest rates where none could be trained."""
        if all(p["error"] for p in self.tuning.curve):
            return min(self.places.values(), key=sum)
        return self.places[choose(self.tuning.name, self.tuning.curve, self.tuning.floor)]

    def no_lead(self, best: Settings, start: Settings) -> str:
        """Why the settings as they stand are not given up for the best that was tried; empty where they are.

        The best of many is partly the luckiest: the highest z of a dozen that are no better is some 1.6 on
        average. So settings change where Last rises by more than ``SURE`` standard errors of that difference;
        for another metric, which has none, wherever it rises.
        """
        tuning, before = self.tuning, self.tuning.curve[0]
        if best == start or before["error"] or tuning.request.metric != "last":
            return ""
        if not tuning.is_above_floor(before):
            return ""
        ours, others = (
            [folder_of(t, self.workers.placing.out) for t in self._trials(self.places[settings])]
            for settings in (best, start)
        )
        error, lead = lead_error(ours, others), tuning.found(best)["last"] - before["last"]
        if error is None or round(lead - SURE * error, 8) > 0:
            return ""
        changed = ", ".join(f"{key} {value:g}" for key, value in tuning.changed(best))
        return (
            f"settings stay: the best that was tried ({changed}) leads by {lead:.1f} points of Last, which is"
            f" no more than {SURE:g} standard errors of that difference ({error:.1f} each)"
        )

    def __call__(self, places: list[Place]) -> bool:
        """Measure as many as there is time for; False where that is not all."""
        together = max(1, self.jobs // len(self.tuning.request.seeds))
        for first in range(0, len(places), together):
            group = {place: self._trials(place) for place in places[first : first + together]}
            if not self._fits(group):
                return False
            self._measure(group)
        return True

    def _trials(self, place: Place) -> list[Trial]:
        request, tuning = self.tuning.request, self.tuning
        changed = tuning.changed(tuning.values(place))
        # Another number of shots makes other trials, and not a refusal to go on with these.
        stream = tuning.scenario.value.model_dump_json(exclude_defaults=True, exclude={"seeds"})
        return [
            trial(request.strategy, changed, seed, tuning.scenario, request.strategy_settings, True, stream)
            for seed in request.seeds
        ]

    def _fits(self, group: Mapping[Place, list[Trial]]) -> bool:
        """Whether there is time for some places: always for the first one, and for what is there already."""
        waiting = [t for trials in group.values() for t in trials if not is_done(t, self.workers.placing.out)]
        if not (waiting and self.tuning.curve):
            return True
        turns = math.ceil(len(waiting) / self.jobs)
        longest = max(self.pace.seconds(self.tuning.steps_factor(place)) for place in group)
        return self.clock() + turns * longest <= self.end

    def _measure(self, group: Mapping[Place, list[Trial]]) -> None:
        asked = [t for trials in group.values() for t in trials]
        found = self.workers.run(asked, self.report)
        if not self.tuning.curve and found[0].refused:
            raise UserError(str(found[0].error))  # no other setting would change that
        refuse_without("the search", asked, found)
        outcomes = iter(found)
        for place, trials in group.items():
            part = [next(outcomes) for _ in trials]
            for outcome in part:
                self.pace.learn(outcome, self.tuning.steps_factor(place))
            settings = self.tuning.values(place)
            self.places[settings] = place
            self.tuning.curve.append(point(settings, part, self.tuning.request.metric))
