"""The parts of a run and the steps that it takes: measure, train, merge, measure again, write."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from .. import metrics
from ..config import Scenario, Strategy
from ..data import planning
from ..data import tasks as stream
from ..data.registry.published import beside
from ..errors import UserError
from ..files import write_bytes, write_json
from ..progress import Progress
from ..store.folder import RunDir
from ..store.provenance import PeakMemory, software
from ..store.reading import sealed
from .failures import told_of_failure
from .records import Record
from .signals import Stopping

if TYPE_CHECKING:
    from ..clip.classifier import ClipClassifier
    from ..clip.model import LoadedClip
    from ..config.training import Training
    from ..engine.clip_strategy import ClipStrategy

SCHEMA = 1


@dataclass
class Stage:
    """The parts of a run and the steps that it takes."""

    scenario: Scenario
    strategy: Strategy
    seed: int
    loaded: LoadedClip
    plans: planning.Plans
    device: str
    folder: RunDir
    progress: Progress
    evaluate: bool
    analysis: bool
    save_every: float
    stopping: Stopping

    def prepare_model(self, plugin_folder: Path | None) -> None:
        """Classifier, adapter, regularisers and memory.

        Args:
            plugin_folder: where a plugin of the user's own may lie; None allows none.

        Raises:
            UserError: if the strategy does not fit the model or the scenario.
        """
        import torch

        from ..clip.classifier import ClipClassifier
        from ..clip.slots import open_slots

        torch.manual_seed(self.seed)
        loaded = self.loaded
        precision = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        self.model: ClipClassifier = ClipClassifier(
            loaded.model,
            loaded.tokenizer,
            mean=loaded.mean,
            std=loaded.std,
            precision=precision[self.strategy.training.precision],
        )
        # Every strategy computes with the same modules, whether it adapts low-rank or not.
        open_slots(self.model.clip)
        self.model.to(self.device).eval()
        self.plugin_folder = plugin_folder
        self._open_strategy()
        if self.scenario.independent and self.strategy.training.stream != "sequential":
            raise UserError(
                f"strategy '{self.strategy.name}': training.stream: {self.strategy.training.stream} trains"
                f" tasks together, which scenario '{self.scenario.name}' (independent: true) keeps apart"
            )
        if self.plans.reference is None and any(
            getattr(plugin, "needs_reference", False) for plugin in self.plugins
        ):
            raise UserError(
                f"scenario '{self.scenario.name}' has no reference set, which strategy '{self.strategy.name}'"
                " needs; add reference: {source: …, images: …} to the scenario"
            )

    def _open_strategy(self) -> None:
        """Adapter and plugins as they are before the first task."""
        from ..engine.build import build_adapter, build_plugins, check_fits

        self.adapter = build_adapter(self.strategy.adapter, self.seed)
        check_fits(self.strategy, self.adapter, self.model)
        self.plugins = build_plugins(self.strategy, self.adapter, self.seed, self.plugin_folder)

    def go_on(self, records: list[Record]) -> None:
        """Measure and train what is missing; every finished task is on disk before the next begins."""
        from ..report.tensorboard.observer import BoardWriter

        gc.collect()  # what an earlier run of this process left must not count as this one's memory
        loss_classes = self.strategy.training.classes
        data = stream.load(self.plans, self.scenario.protocol, self.loaded.pixels, loss_classes)
        self._warn_of_cut_prompts(data)
        records[:] = self._resumable(records)
        before_each = self._starting(data)
        self.watch = None
        if self.analysis and self.evaluate:
            from ..analysis.observer import StreamWatch

            self.watch = StreamWatch(self.model, data.tasks, self.folder, self.scenario.independent)
        self._restore(records, data)
        measured = {task.name: part for task, part in zip(data.tasks, self._measured(data), strict=True)}
        with BoardWriter(
            self.folder,
            list(measured),
            list(data.zero_shot),
            self.scenario.independent,
            lambda name, places: measured[name].pixels[list(places)],
            self.progress.message,
        ) as board:
            for index, record in enumerate(records):
                board.add(index, record.row, record.zero_shot, record.detail, record.curve)
            if not records:
                records.append(self._zero_shot_row(data))
                self._save(0, records, board)
            for task in data.tasks[len(records) - 1 :]:
                strategy = before_each()
                records.append(self._train(strategy, task, data))
                self._save(len(records) - 1, records, board)
                self.stopping.raise_if_asked()
            board.finish()
        write_json(self.folder.results, self.results(records))

    def _starting(self, data: stream.StreamData) -> Callable[[], ClipStrategy]:
        """What to call before each task: it returns the strategy that goes on, or, for independent tasks, a
        new one."""
        from ..engine.state import meet_plugins

        meet_plugins(self.plugins, self.model, data)
        if not self.scenario.independent:
            return cache(self._avalanche_strategy)
        pretrained = {name: value.clone() for name, value in self.model.clip.state_dict().items()}

        def anew() -> ClipStrategy:
            self.model.clip.load_state_dict(pretrained)
            self._open_strategy()
            meet_plugins(self.plugins, self.model, data)
            return self._avalanche_strategy()

        return anew

    def _warn_of_cut_prompts(self, data: stream.StreamData) -> None:
        spaces = [task.space for task in data.tasks] + [space for _, space in data.zero_shot.values()]
        cut = dict.fromkeys(prompt for space in spaces for prompt in self.model.text.cut_prompts(space))
        if cut:
            shown = "; ".join(repr(prompt[:60]) for prompt in list(cut)[:3])
            self.progress.message(
                f"{len(cut)} prompts are longer than the model's context and are cut: {shown}"
            )

    def _resumable(self, records: list[Record]) -> list[Record]:
        """The records up to the last task whose state is intact."""
        from ..engine.state import plugins_intact

        done = len(records)
        while not self.scenario.independent and done > 1:
            name = self.plans.tasks[done - 2].name
            if plugins_intact(self.plugins, self.folder, done - 2, name):
                break
            self.progress.message(
                f"what '{name}' left for later tasks is damaged or gone; going on from before it"
            )
            done -= 1
        return records[:done]

    def _restore(self, records: list[Record], data: stream.StreamData) -> None:
        if len(records) < 2:
            return
        from ..engine.state import load_delta, restore_plugins

        done = data.tasks[: len(records) - 1]
        self.progress.message(f"going on after task {len(done)} of {len(data.tasks)} ({done[-1].name})")
        if self.scenario.independent:
            return
        deltas = [load_delta(self.folder.delta(task.index, task.name)) for task in done]
        try:
            self.adapter.restore(self.model, deltas, [record.adapter_state for record in records[1:]])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            told = " ".join(str(error).split())[:200]
            problem = f"what this run left does not fit its model ({told}); use --fresh to start over"
            raise UserError(f"{self.folder.root}: {problem}") from None
        if self.watch is not None:
            self.watch.restore(done, deltas)
        restore_plugins(self.plugins, self.folder, done, self.device)

    def _avalanche_strategy(self) -> ClipStrategy:
        from ..engine.checkpoint import InsidePlugin, StepState
        from ..engine.clip_strategy import ClipStrategy
        from ..engine.schedule import CurvePlugin, SchedulePlugin, optimizer_factory
        from ..engine.state import save_inside

        self.curve = CurvePlugin(self.progress.step)
        optimiser = self.strategy.optimiser
        schedule = [SchedulePlugin(self.strategy.schedule, optimiser)] if optimiser else []
        changing = [
            plugin for plugin in (*self.plugins, *schedule, self.curve) if isinstance(plugin, StepState)
        ]
        self.inside = InsidePlugin(
            changing,
            lambda step, tensors: save_inside(self.folder, self.current, step, tensors),
            self.save_every if self._steps_are_known() else math.inf,
            self.stopping.is_asked,
            self.stopping.raise_if_asked,
        )
        return ClipStrategy(
            model=self.model,
            make_optimizer=optimizer_factory(optimiser, self.adapter, self.model) if optimiser else None,
            training=self._training(),
            seed=self.seed,
            device=self.device,
            plugins=[self.adapter, *self.plugins, *schedule, self.curve, self.inside],
        )

    def _training(self) -> Training:
        """The settings; what a plugin of the user's own may do to images and towers cannot be remembered."""
        training = self.strategy.training
        return training if self.strategy.plugin is None else training.model_copy(update={"remember": False})

    def _steps_are_known(self) -> bool:
        """Whether every plugin says what of it changes from step to step; one of the user's own may not."""
        from ..engine.checkpoint import StepState

        return self.strategy.plugin is None or isinstance(self.plugins[-1], StepState)

    def _train(self, strategy: ClipStrategy, task: stream.TaskData, data: stream.StreamData) -> Record:
        from ..engine.experience import experience_at
        from ..engine.state import load_inside, save_delta, save_plugins

        experience, share = experience_at(self.strategy.training.stream, data.tasks, task.index)
        trains = experience is not None and self.strategy.adapter.kind != "none"
        steps = self.strategy.training.steps * share if trains else 0
        self.progress.task(task.index, len(data.tasks), task.name, steps)
        if self.watch is not None:
            self.watch.before()
        began = time.perf_counter()
        trainable, norm = 0, 0.0
        memory = PeakMemory(self.device)
        if trains:
            self.model.train()
            strategy.steps = steps
            self.current = task
            self.inside.restored = load_inside(self.folder, task, self.progress.message)
            if self.inside.restored is not None:
                self.progress.message("going on inside the task")
            good = f"task '{self.plans.tasks[task.index - 1].name}'" if task.index else "the untouched model"
            with (
                self.stopping.waiting(),
                told_of_failure(task.name, good, self.device, self.strategy.training.batch_size),
            ):
                strategy.train(experience, eval_streams=[])
            if not math.isfinite(norm := self.adapter.deltas[-1].norm()):
                raise UserError(
                    f"task '{task.name}': training diverged (the update is not finite); lower optimiser.lr"
                )
            if strategy.skipped:
                self.progress.message(
                    f"{strategy.skipped} steps were left out: their loss or gradient was no number"
                )
            trainable = sum(p.numel() for group in strategy.optimizer.param_groups for p in group["params"])
            self.model.eval()
        else:
            self.adapter.skip()
        train_seconds = time.perf_counter() - began
        if trains:
            train_seconds += self.inside.seconds  # of the process that was cut off
        delta, geometry = self.adapter.deltas[-1], self.adapter.geometry[-1]
        stored = save_delta(delta)
        write_bytes(self.folder.delta(task.index, task.name), stored)
        held = save_plugins(self.plugins, self.folder, task)
        row, zero_shot, eval_seconds = self._measure(data, task, trains)
        if self.watch is not None:
            self.watch.after(task, delta)
        overlaps = [g["protected_overlap"] for g in geometry.values() if "protected_overlap" in g]
        detail = {
            "name": task.name,
            "classes": len(task.plan.class_names),
            "shots": task.plan.shots,
            "train_images": len(task.train),
            "test_images": len(task.test),
            "split_sha256": task.plan.sha256(),
            "steps": steps,
            "train_seconds": train_seconds,
            "eval_seconds": eval_seconds,
            "delta_norm": norm,
            "protected_overlap": max(overlaps) if overlaps else None,
            "trainable_parameters": trainable,
            "stored_bytes": len(stored),
            "carried_bytes": held,
            "peak_memory_bytes": memory.bytes(),
        }
        self.progress.evaluated(task.index + 1, row, zero_shot)
        curve = self.curve.curve() if trains else []
        return Record(row, zero_shot, detail, geometry, self.adapter.state(), curve)

    def _zero_shot_row(self, data: stream.StreamData) -> Record:
        self.progress.message(f"measuring the untouched model on {len(data.tasks)} tasks")
        row, zero_shot, seconds = self._measure(data, None)
        for entry in self.scenario.zero_shot:
            name = getattr(entry.source, "name", "")
            told = beside(name, self.loaded.name, self.loaded.pretrained, zero_shot.get(entry.name, math.nan))
            if told is not None:
                self.progress.message(told)
        self.progress.evaluated(0, row, zero_shot)
        return Record(row, zero_shot, {"eval_seconds": seconds})

    def _measure(
        self, data: stream.StreamData, after: stream.TaskData | None, changed: bool = True
    ) -> tuple[list[float], dict[str, float], float]:
        """Row of the matrix (NaN where nothing was measured), zero-shot accuracies and seconds; keeps the
        answers.

        Args:
            data: the stream.
            after: the task just learned; None for the untouched model.
            changed: whether the weights are others than before; if not, what they answered is not asked
                again.
        """
        from ..clip.evaluate import answers, share_right
        from ..engine.state import load_answers, save_answers

        began = time.perf_counter()
        if not self.evaluate:
            return [math.nan] * len(data.tasks), dict.fromkeys(data.zero_shot, math.nan), 0.0
        sets = {
            task.name: (part, task.space) for task, part in zip(data.tasks, self._measured(data), strict=True)
        }
        if self.scenario.independent and after is not None:
            sets = {after.name: sets[after.name]}
        sets |= data.zero_shot
        known = {} if changed else load_answers(self.folder.predictions(*self._state_before(after)))
        found = {
            name: known[name] if name in known else answers(self.model, images.pixels, space)
            for name, (images, space) in sets.items()
        }
        index, name = (-1, "zero-shot") if after is None else (after.index, after.name)
        write_bytes(self.folder.predictions(index, name), save_answers(found))
        right = {name: share_right(found[name][0], images.labels) for name, (images, _) in sets.items()}
        row = [right.get(task.name, math.nan) for task in data.tasks]
        return row, {name: right[name] for name in data.zero_shot}, time.perf_counter() - began

    def _state_before(self, task: stream.TaskData) -> tuple[int, str]:
        """Index and name of what was measured of the weights that a task began with."""
        first = self.scenario.independent or task.index == 0
        return (-1, "zero-shot") if first else (task.index - 1, self.plans.tasks[task.index - 1].name)

    def _measured(self, data: stream.StreamData) -> list[stream.Images]:
        """The images of every task that the matrix is about."""
        return [task.test if self.scenario.measure == "test" else task.validation for task in data.tasks]

    def _save(self, index: int, records: list[Record], board) -> None:
        from ..engine.state import forget_inside, forget_plugins

        record = records[index]
        name = self.plans.tasks[index - 1].name if index else "zero-shot"
        write_json(self.folder.record(index - 1, name), sealed(vars(record)))
        if index:
            forget_inside(self.folder, index - 1, name)
        if index > 2:
            forget_plugins(self.plugins, self.folder, index - 3, self.plans.tasks[index - 3].name)
        write_json(self.folder.results, self.results(records))
        board.add(index, record.row, record.zero_shot, record.detail, record.curve)

    def results(self, records: list[Record]) -> dict:
        """Content of results.json for the tasks done so far."""
        import torch

        done = len(records) == len(self.plans.tasks) + 1
        rows = [record.row for record in records]
        zero_shot = {p.name: [record.zero_shot[p.name] for record in records] for p in self.plans.zero_shot}
        kept = metrics.mean_retention if self.scenario.independent else metrics.retention
        device = self.device
        if device.startswith("cuda"):
            device = f"{device} ({torch.cuda.get_device_name(device)})"
        return {
            "schema": SCHEMA,
            "scenario": self.scenario.name,
            "strategy": self.strategy.name,
            "seed": self.seed,
            "model": {
                "name": self.loaded.name,
                "pretrained": self.loaded.pretrained,
                "sha256": self.loaded.sha256,
            },
            "tasks": [p.name for p in self.plans.tasks],
            "zero_shot_sets": [p.name for p in self.plans.zero_shot],
            "zero_shot_images": {p.name: len(p.test) for p in self.plans.zero_shot},
            "accuracy": rows,
            "zero_shot": zero_shot,
            "independent": self.scenario.independent,
            **(metrics.of_independent(rows) if self.scenario.independent else metrics.so_far(rows)),
            **(
                {} if self.strategy.training.stream != "joint" else {"transfer": math.nan}
            ),  # no task is unseen
            "retention": {name: kept(values) for name, values in zero_shot.items()},
            "skipped": list(self.plans.skipped),
            "tasks_detail": [record.detail for record in records[1:]],
            "status": "done" if done else "running",
            "software": software(),
            "device": device,
        }
