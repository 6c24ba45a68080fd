"""The model with the parts of its strategy: attaches, trains and merges one task; nothing of it measures
or stores
results."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..clip.classifier import ClipClassifier
from ..clip.slots import open_slots
from ..clip.untouched_tower import UntouchedTower
from ..config.training import Training
from ..data.tasks import StreamData, TaskData
from ..delta import TaskDelta
from ..engine.build import build_parts
from ..engine.checkpoint import CheckpointPlugin, Checkpoints, StepState
from ..engine.clip_strategy import ClipStrategy
from ..engine.experience import experience_at, steps_at
from ..engine.fitting.fitting import Fitted
from ..engine.task_state import meet_plugins
from ..engine.training.optimisers import optimizer_factory
from ..engine.training.schedule import CurvePlugin, SchedulePlugin
from ..errors import UserError
from .failures import told_of_failure, told_of_memory
from .inputs import RunInputs
from .kept_answers import KeptAnswers
from .signals import Stopping
from .stream_fit import check_stream

_PRECISION = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Learned:
    """A task that the model has learned.

    Attributes:
        delta: what was added to the weights.
        steps: of training, those of an earlier process included; 0 where nothing was trained.
        seconds: that they took.
        trainable: number of parameters that were trained.
        curve: loss of every step.
        accuracy: share of every step's batch that was answered rightly; empty where no image has classes.
        skipped: steps that were left out since their loss or gradient was no number.
        fitted: the head, of a strategy that has one.
    """

    delta: TaskDelta
    steps: int
    seconds: float
    trainable: int = 0
    curve: Sequence[float] = ()
    accuracy: Sequence[float] = ()
    skipped: int = 0
    fitted: Fitted | None = None

    @property
    def moved(self) -> bool:
        """Whether the weights are others than before the task."""
        return self.steps > 0 or bool(self.delta)


class Learner:
    """A model and the strategy that moves it.

    Args:
        run: what is run; its model is opened and moved to its device here.
        plugin_folder: where a plugin of the user's own may lie; None allows none.
        checkpoints: where a state within a task is written, and one of an earlier process found.
        stopping: asked after every step whether to stop.
        progress: given (step, loss, images) now and then.

    Attributes:
        model: the classifier that is trained.
        adapter: knows the update of every task.
        head: fits what answers in place of texts; None where texts answer.
        plugins: regularisers, memory, the head and a plugin of the user's own.
        notes: what the user should know about how the strategy fits the model.
        kept: features of towers that are never moved, from earlier runs on this machine; None where all are
            moved.

    Raises:
        UserError: if the strategy does not fit the model or the scenario.
    """

    def __init__(
        self,
        run: RunInputs,
        plugin_folder: Path | None,
        checkpoints: Checkpoints,
        stopping: Stopping,
        progress: Callable[[int, float, int], None],
    ) -> None:
        torch.manual_seed(run.seed)
        self.run, self.plugin_folder = run, plugin_folder
        self.checkpoints, self.stopping = checkpoints, stopping
        loaded = run.loaded
        self.model = ClipClassifier(
            loaded.model,
            loaded.tokenizer,
            mean=loaded.mean,
            std=loaded.std,
            precision=_PRECISION[run.strategy.training.precision],
            batch_size=run.scenario.evaluation.batch_size,
        )
        # Every strategy computes with the same modules, whether it adapts low-rank or not.
        open_slots(self.model.clip)
        if getattr(run.strategy.head, "with_untouched", False):
            self.model.untouched = UntouchedTower(self.model.clip)
        with told_of_memory("the model", run.device):
            self.model.to(run.device).eval()
        self._build()
        if self.adapter.moved_towers(self.model) <= {"text"}:
            self.model.untouched = None  # the model's own tower is it
        self.notes += check_stream(run.scenario, run.strategy, run.plans, self.head, self.plugins)
        self._curve = CurvePlugin(progress)
        self._checkpoint: CheckpointPlugin | None = None
        self._loop: ClipStrategy | None = None
        self._pretrained: dict[str, torch.Tensor] | None = None
        self.kept: KeptAnswers | None = None

    def _build(self) -> None:
        """Adapter, head and plugins as they are before the first task, and what is to be told of them."""
        run = self.run
        shared = run.scenario.shares_labels
        parts = build_parts(run.strategy, self.model, run.seed, self.plugin_folder, shared)
        self.adapter, self.head, self.plugins = parts.adapter, parts.head, parts.plugins
        self.notes = parts.notes

    def meet(self, data: StreamData) -> None:
        """See the whole stream before anything is trained or restored."""
        with told_of_memory("before the first task", self.run.device):
            meet_plugins(self.plugins, self.model, data)
        if self.run.scenario.independent:
            self._pretrained = {name: value.clone() for name, value in self.model.clip.state_dict().items()}

    def restore(self, deltas: Sequence[TaskDelta], states: Sequence[dict]) -> None:
        """Bring the pretrained model to where an interrupted run was, by the same arithmetic.

        Args:
            deltas: of the finished tasks, in order.
            states: what the adapter noted after each of them.

        Raises:
            UserError: if they do not fit the model.
        """
        try:
            self.adapter.restore(self.model, deltas, states)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            told = " ".join(str(error).split())[:200]
            raise UserError(
                f"what this run left does not fit its model ({told}); use --fresh to start over"
            ) from None

    def keep_features(self) -> None:
        """Take features of towers that nothing of the strategy ever moves from what earlier runs on this
        machine kept, and keep them."""
        in_weights = self.head is not None and not self.head.keeps_heads
        if self.run.strategy.adapter.kind == "none" and not in_weights:
            still = self.model
        elif self.model.untouched is not None:
            still = self.model.untouched
        else:
            return
        self.kept = KeptAnswers(self.run, self.model)
        still.kept_features = self.kept.of_images

    def steps_of(self, task: TaskData, data: StreamData) -> int:
        """Steps that the strategy trains at a task; 0 where it trains nothing there."""
        if self.run.strategy.adapter.kind == "none":
            return 0
        return steps_at(self.run.strategy.training, data.tasks, task.index)

    def learn(self, task: TaskData, data: StreamData) -> Learned:
        """Attach, train, merge; an independent task starts from the pretrained weights.

        Args:
            task: the next one of the stream.
            data: the stream, of which some strategies train more than the task.

        Raises:
            UserError: for training that diverges or does not fit into memory.
            Stopped: when a signal came; a state within the task is saved.
        """
        if self._pretrained is not None:
            self.model.clip.load_state_dict(self._pretrained)
            self._build()
            meet_plugins(self.plugins, self.model, data)
            self._loop = None
        if self._loop is None:
            self._loop, self._checkpoint = self._avalanche_strategy()
        steps = self.steps_of(task, data)
        began = time.perf_counter() + self._seconds_saved
        if not steps:
            self.adapter.skip()
            fitted = self._fit_head(task)
            seconds, trained = self._seconds_since(began), fitted.trained if fitted else 0
            return Learned(self.adapter.deltas[-1], 0, seconds, trained, fitted=fitted)
        experience = experience_at(self.run.strategy.training.stream, data.tasks, task.index)
        if self.head is not None and not task.captioned:
            with told_of_memory(f"task '{task.name}'", self.run.device):
                self.head.see(self.model, task)
        self.model.train()
        self._loop.steps = steps
        self._checkpoint.restored = self.checkpoints.of(task)
        good = f"task '{data.tasks[task.index - 1].name}'" if task.index else "the untouched model"
        batch = self.run.strategy.training.batch_size
        own = type(self.plugins[-1]).__module__ if self.run.strategy.plugin else None
        with self.stopping.waiting(), told_of_failure(task.name, good, self.run.device, batch, own):
            self._loop.train(experience, eval_streams=[])
        delta = self.adapter.deltas[-1]
        if not math.isfinite(delta.norm()):
            raise UserError(
                f"task '{task.name}': training diverged (the update is not finite); lower optimiser.lr"
            )
        self.model.eval()
        trainable = sum(p.numel() for group in self._loop.optimizer.param_groups for p in group["params"])
        fitted = self._fit_head(task)
        trainable += fitted.trained if fitted else 0
        # Seconds of a process that was cut off within the task count as well.
        seconds = self._seconds_since(began) + self._checkpoint.seconds
        curves = self._curve.curve(), self._curve.accuracy()
        return Learned(delta, steps, seconds, trainable, *curves, self._loop.skipped, fitted)

    @property
    def _seconds_saved(self) -> float:
        return self.kept.seconds_saved if self.kept else 0.0

    def _seconds_since(self, began: float) -> float:
        """Seconds since then, with those of features that were found instead of computed."""
        return time.perf_counter() + self._seconds_saved - began

    def _fit_head(self, task: TaskData) -> Fitted | None:
        """Fit the head of a strategy that has one to the features of the model as it is now; captions are
        always met by the two towers."""
        if self.head is None or task.captioned:
            return None
        with told_of_memory(f"task '{task.name}': fitting the head", self.run.device):
            fitted = self.head.learn(self.model, task)
        if fitted.delta:
            self.adapter.add(self.model, fitted.delta)
        return fitted

    def _avalanche_strategy(self) -> tuple[ClipStrategy, CheckpointPlugin]:
        """Avalanche's loop over the steps of a task, and the plugin of it that saves and restores within
        one."""
        run, optimiser = self.run, self.run.strategy.optimiser
        schedule = [SchedulePlugin(run.strategy.schedule, optimiser)] if optimiser else []
        parts = (*self.plugins, *schedule, self._curve)
        checkpoint = CheckpointPlugin(
            [part for part in parts if isinstance(part, StepState)],
            self.checkpoints.save,
            self.checkpoints.every if self._steps_are_known() else None,
            self.stopping.is_asked,
            self.stopping.raise_if_asked,
            self.checkpoints.tell,
        )
        loop = ClipStrategy(
            model=self.model,
            make_optimizer=optimizer_factory(optimiser, self.adapter, self.model) if optimiser else None,
            training=self._training(),
            seed=run.seed,
            device=run.device,
            plugins=[self.adapter, *parts, checkpoint],
        )
        return loop, checkpoint

    def _training(self) -> Training:
        """The settings; what a plugin of the user's own may do to images and towers cannot be remembered."""
        strategy = self.run.strategy
        return (
            strategy.training
            if strategy.plugin is None
            else strategy.training.model_copy(update={"remember": False})
        )

    def _steps_are_known(self) -> bool:
        """Whether every plugin says what of it changes from step to step; one of the user's own may not."""
        return self.run.strategy.plugin is None or isinstance(self.plugins[-1], StepState)
