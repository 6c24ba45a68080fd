"""One scenario × one strategy × one seed: the run that everything else is a view on."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import Scenario, Strategy
from ..config.loading import Located
from ..config.model_names import is_here
from ..config.plugin_file import made_with_plugin
from ..data import planning
from ..data.checks.notes import notes
from ..errors import UserError
from ..files import finite, write_json, write_text, yaml_text
from ..progress import Progress, Quiet
from ..store.elsewhere import from_task_at_latest, step_elsewhere, told
from ..store.folder import RunDir
from ..store.moved import places_of
from ..store.provenance import check_same, describe
from .allocator import keep_freed_memory, uncollected
from .devices import check_precision, device_of
from .failures import DoesNotFit, TooLittleMemory
from .inputs import RunInputs
from .signals import Stopping

if TYPE_CHECKING:
    from ..data.tasks import StreamData
    from ..engine.observer import Observer
    from ..store.records import Record
    from .learner import Learner
    from .trainer import Trainer

SAVE_EVERY = 60.0
# In results.json beside what follows from the records: where it was made, and what its numbers are (which
# earlier versions did not write).
_BESIDE = ("software", "device", "units", "evaluation")


@dataclass
class RunResult:
    """What a finished run leaves.

    Attributes:
        results: content of results.json (None where a number is not defined).
        folder: the run's folder.
        seconds: time this call took (a run that was there already takes next to none).
        reused: number of tasks that were found finished.
    """

    results: dict[str, Any]
    folder: Path
    seconds: float
    reused: int


def run(
    scenario: Located[Scenario],
    strategy: Located[Strategy],
    seed: int = 0,
    out: Path = Path("runs"),
    device: str = "auto",
    fresh: bool = False,
    progress: Progress | None = None,
    evaluate: bool = True,
    allow_plugins: bool = False,
    variant: str = "",
    analysis: bool = True,
    save_every: float = SAVE_EVERY,
    elsewhere: bool = False,
    log: Sequence[str] = (),
    plans: planning.Plans | None = None,
) -> RunResult:
    """Run a stream, or go on with one that was interrupted, or return the results of one that is done.

    Args:
        scenario, strategy: loaded files (:func:`~cl_complora.config.load_scenario`, ``load_strategy``).
        seed: of shots, order, initialisation and augmentation.
        out: folder of all runs.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        fresh: set an existing run aside and start over.
        progress: told what happens.
        evaluate: False trains without measuring (the weights are the same, bit for bit; the matrix then is
            NaN).
        allow_plugins: whether the strategy may name Python code of the user's own.
        analysis: whether to follow what every task does to the weights and to the features of earlier ones.
        save_every: seconds between two states within a task that an interrupted run can go on from.
        elsewhere: go on with an interrupted run although device, GPU or versions are others; from then on
            its bits differ from those of an undisturbed one, and results.json says so.
        log: trackers that are told what TensorBoard is: ``wandb``, ``mlflow``, ``trackio``.
        plans: of this scenario and seed, where they are made already.
        variant: keeps runs of one strategy with other settings apart: a folder of that name within the
            strategy's.

    Raises:
        UserError: for input that cannot work (DoesNotFit for a strategy that does not fit the scenario or the
            model), or a run that was made with other settings.
        Stopped: when Ctrl-C or SIGTERM came; what was done is saved.
    """
    started = time.perf_counter()
    if log:
        from ..report.trackers import check_trackers

        check_trackers(log)
    progress = progress or Quiet()
    plans = planning.plan(scenario, seed) if plans is None else plans
    for line in plans.skipped:
        progress.message(f"skipped: {line}")
    for line in notes(scenario, plans.opened(scenario.value.measure)):
        progress.message(f"note: {line}")
    for key in strategy.value.idle_of_steps:  # a file that says them is refused, a setting is not
        progress.message(f"note: {'.'.join(key)} has no effect: {strategy.value.name} takes no steps")
    folder = RunDir.of(out, scenario.value.name, strategy.value.name, seed, variant)
    with uncollected():
        chosen = device_of(device)
        from ..clip.model import load_clip
        from ..engine.checkpoint import Checkpoints
        from .learner import Learner
        from .measuring import Measuring
        from .results import made_where, results_of
        from .resuming import whole_records
        from .threads import computing_with, threads_of
        from .trainer import Trainer
        from .without_compiler import compiler_left_out

    check_precision(scenario.value.evaluation.precision, chosen)
    if chosen == "cpu":
        keep_freed_memory()

    if not is_here(scenario):  # which may take long, and is not seen
        named = " ".join(filter(None, (scenario.value.model.name, scenario.value.model.pretrained)))
        progress.message(f"loading {named}, which is fetched where this machine does not have it")
    loaded = load_clip(scenario.value.model, scenario.folder)
    for note in loaded.notes:
        progress.message(note)
    threads = threads_of(folder, fresh or folder.holds_nothing)
    made_with = describe(scenario.value, strategy.value, seed, loaded, plans, chosen, evaluate, threads)
    made_with |= made_with_plugin(strategy)
    inputs = RunInputs(scenario.value, strategy.value, seed, loaded, plans, chosen)
    stopping = Stopping()
    checkpoints = Checkpoints(folder, save_every, progress.message)
    plugin_folder = strategy.folder if allow_plugins else None
    try:  # before anything is written
        with strategy.at_its_line():
            learner = Learner(inputs, plugin_folder, checkpoints, stopping, progress.step)
    except UserError as error:
        raise DoesNotFit(error.messages[0], error.messages[1:]) from error.__cause__
    for note in learner.notes:
        progress.message(f"note: {note}")
    with computing_with(threads), folder.locked(stopping.lose, progress.message), stopping.heard():
        if fresh:
            _set_aside(folder, progress)
        elif folder.holds_nothing:
            folder.forget_beginning()
        # Told after the check alone: records of another stream do not fit this one, and are not damaged.
        unfit: list[str] = []
        records = whole_records(inputs, learner, folder, unfit.append)
        missing = [inputs.state_name(learned)[1] for learned in range(len(records), len(plans.tasks) + 1)]
        done = not missing
        steps = from_task_at_latest((folder.read_config() or {}).get("elsewhere", ()), missing)
        changes = check_same(folder, made_with, strategy.value, done, elsewhere)
        for line in unfit:
            progress.message(line)
        if changes:
            steps.append(step_elsewhere(missing[0], changes))
            progress.message(f"going on elsewhere: {told(changes)}; the bits differ from here on")
        made = made_where(folder, len(plans.tasks), chosen) if done else {}
        inputs = replace(inputs, elsewhere=tuple(steps), made_where=made)
        made_with |= {"elsewhere": steps} if steps else {}
        reused = max(0, len(records) - 1)
        if done and log:
            progress.message(f"found finished: nothing is told to {', '.join(log)}")
        if done:
            _write_plans(folder, plans, missing=True)
        # Killed after the last record and before the results, or damaged since: they follow from the records.
        if not (done and _tells(folder, results_of(inputs, records), progress)):
            gc.collect()  # what an earlier run of this process left must not count as this one's memory
            # What the analysis follows are test images, whatever the matrix is about.
            tests = scenario.value.measure == "test" or (analysis and evaluate)
            data = _load_stream(plans, inputs, progress.message, learner, tests)
            if not done:  # a picture that cannot be read has left nothing behind
                _write_beginning(folder, made_with, scenario, strategy, plans)
            learner.keep_features()
            measuring = Measuring(inputs, learner.model, data, folder, evaluate)
            watching = _observers(inputs, learner, data, folder, progress, analysis and evaluate, log)
            trainer = Trainer(
                inputs, data, learner, measuring, folder, checkpoints, stopping, watching, progress
            )
            with nullcontext() if strategy.value.training.compile else compiler_left_out():
                _train(trainer, strategy, records, folder, stopping)
        results = folder.read_results()
    return RunResult(results, folder.root, time.perf_counter() - started, reused)


def _train(
    trainer: Trainer,
    located: Located[Strategy],
    records: list[Record],
    folder: RunDir,
    stopping: Stopping,
) -> None:
    """Train what is missing; the reason stays in the folder where a user has to change something,
    and not where the machine did not suffice: a comparison takes what stays for the end of that trial."""
    from ..engine.external_plugin import told_of_plugin

    folder.failure.unlink(missing_ok=True)
    strategy = located.value
    plugin = trainer.learner.plugins[-1] if strategy.plugin else None
    try:
        with located.at_its_line(), told_of_plugin(strategy, plugin):
            trainer.train(records)
    except UserError as error:
        if not (stopping.taken_by or isinstance(error, TooLittleMemory)):
            with suppress(OSError):  # a full disk: the error itself tells more
                write_json(folder.failure, {"error": "; ".join(error.messages)})
        raise


def _write_beginning(
    folder: RunDir,
    made_with: dict[str, Any],
    scenario: Located[Scenario],
    strategy: Located[Strategy],
    plans: planning.Plans,
) -> None:
    """What the run is made with, before anything of it is done."""
    config = {**made_with, "files": places_of(folder.root, scenario, strategy)}
    write_text(folder.config, yaml_text(config))
    _write_plans(folder, plans)


def _write_plans(folder: RunDir, plans: planning.Plans, missing: bool = False) -> None:
    """Classes and images of the stream: all of it, or only what is missing of a finished run's."""

    def wanted(path: Path) -> bool:
        return not (missing and path.exists())

    if wanted(folder.classes):
        classes = {p.name: {"classes": p.class_names, "prompts": p.prompts} for p in plans if not p.captioned}
        write_json(folder.classes, classes)
    for part in (*plans, *plans.beside):
        if wanted(folder.split(part.name)):
            planning.write_manifest(folder.split(part.name), part)


def _load_stream(
    plans: planning.Plans, inputs: RunInputs, tell: Callable[[str], None], learner: Learner, tests: bool
) -> StreamData:
    """The images of a stream in memory, with or without those of tests; prompts that the model will not read
    to their end are told."""
    from ..data.tasks import load

    loss_classes = inputs.strategy.loss_classes
    data = load(plans, inputs.scenario.protocol, inputs.loaded.pixels, loss_classes, tests)
    spaces = [task.space for task in data.tasks if not task.captioned]
    spaces += [space for _, space in data.zero_shot.values()]
    text = learner.model.text
    prompts = dict.fromkeys(prompt for space in spaces for prompt in text.cut_prompts(space))
    written = [task.captions(part) for task in plans.tasks if task.captioned for part in ("train", "test")]
    captions = [cut for one in (*written, *plans.retrieval) for cut in text.cut_texts(list(one.captions))]
    compound = [cut for one in plans.multi_label for cut in text.cut_texts(list(one.compound.texts))]
    for what, cut in (("prompts", list(prompts)), ("captions", captions), ("compound prompts", compound)):
        if cut:
            shown = "; ".join(repr(one[:60]) for one in cut[:3])
            tell(f"{len(cut)} {what} are longer than the model's context and are cut: {shown}")
    return data


def _observers(
    inputs: RunInputs,
    learner: Learner,
    data: StreamData,
    folder: RunDir,
    progress: Progress,
    analysis: bool,
    log: Sequence[str] = (),
) -> list[Observer]:
    """Who watches the run: the display, the analysis and TensorBoard, which reads what the analysis
    writes."""
    from ..analysis.observer import AnalysisObserver
    from ..report.tensorboard.observer import BoardObserver
    from .measuring import measured_images
    from .observers import ProgressObserver

    independent = inputs.scenario.independent
    watching: list[Observer] = [ProgressObserver(progress, len(data.tasks))]
    if analysis:
        watching.append(AnalysisObserver(learner.model, folder, independent, progress.message))
    measured = {task.name: measured_images(inputs, task) for task in data.tasks}
    board = BoardObserver(
        folder, independent, lambda name, places: measured[name].pixels[list(places)], progress.message, log
    )
    return [*watching, board]


def _tells(folder: RunDir, expected: dict, progress: Progress) -> bool:
    """Whether results.json is there and says what the records say; where it was written does not matter."""
    try:
        stored = folder.read_results()
    except UserError as error:
        progress.message(f"{error.messages[0]}; written again from the records of the tasks")
        return False
    wanted = finite({key: value for key, value in expected.items() if key not in _BESIDE})
    # What the file of the same weights is called does not matter either.
    if stored is not None and stored["model"].get("sha256") == wanted["model"]["sha256"]:
        wanted["model"] = stored["model"]
    if stored is None or any(stored.get(key) != value for key, value in wanted.items()):
        if stored is not None and stored["status"] == "done":
            progress.message(
                f"{folder.results}: does not say what the tasks' records say; written again from them"
            )
        return False
    return True


def _set_aside(folder: RunDir, progress: Progress) -> None:
    kept = folder.set_aside()
    if kept is not None:
        progress.message(f"the earlier run was kept as {kept}")
