"""The loop over the tasks of a stream: measure the untouched model; for each task attach, train, merge,
store,
measure, tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict

from ..data.registry.published import beside
from ..data.tasks import StreamData, TaskData
from ..data.telling import counted
from ..engine.checkpoint import Checkpoints
from ..engine.observer import Observer
from ..engine.task_state import forget_plugins, restore_plugins, save_plugins
from ..errors import UserError
from ..files import write_bytes, write_json
from ..progress import Progress
from ..store.deltas import load_delta, save_delta
from ..store.folder import RunDir
from ..store.forms import sealed
from ..store.head_files import load_head, save_head
from ..store.provenance import PeakMemory
from ..store.records import Record
from .inputs import RunInputs
from .learner import Learner
from .measuring import Measuring
from .results import CHANGED, results_of
from .signals import Stopping
from .untouched import cautions


class Trainer:
    """Takes a model through a stream; every finished task is on the disk before the next begins.

    Args:
        run: what is run.
        data: the stream, in memory.
        learner: the model, which is the untouched one, and what moves it.
        measuring: measures it.
        folder: where everything is stored.
        checkpoints: states within a task.
        stopping: asked after every task whether to stop.
        observers: told what happens, in this order.
        progress: given sentences.
    """

    def __init__(
        self,
        run: RunInputs,
        data: StreamData,
        learner: Learner,
        measuring: Measuring,
        folder: RunDir,
        checkpoints: Checkpoints,
        stopping: Stopping,
        observers: Sequence[Observer],
        progress: Progress,
    ) -> None:
        self.run, self.data, self.learner, self.measuring = run, data, learner, measuring
        self.folder, self.checkpoints, self.stopping = folder, checkpoints, stopping
        self.observers, self.progress = observers, progress

    def train(self, records: list[Record]) -> None:
        """Measure and train what is missing.

        Args:
            records: of what an earlier process finished and can be gone on from, in order
                (:func:`~cl_complora.run.resuming.whole_records`); completed.

        Raises:
            UserError: for training that diverges or does not fit into memory, and for damaged states.
            Stopped: when a signal came; what was done is saved.
        """
        self.learner.meet(self.data)
        deltas = self._restore(records)
        self._forget_later(len(records))
        with ExitStack() as opened:
            for observer in self.observers:
                opened.enter_context(observer)
                observer.stream_begins(self.data, deltas)
                for learned, record in enumerate(records):
                    observer.recorded(learned, record, before=True)
            if not records:
                self._keep(self._untouched(), records)
            for task in self.data.tasks[len(records) - 1 :]:
                self._keep(self._learned(task), records)
                self.stopping.raise_if_asked()
            for observer in self.observers:
                observer.stream_ends()
        write_json(self.folder.results, results_of(self.run, records))

    def _untouched(self) -> Record:
        self.progress.message(f"measuring the untouched model on {counted(len(self.data.tasks), 'task')}")
        found = self.measuring.untouched()
        if found.known:
            self.progress.message(
                f"an earlier run on this machine had measured it on {counted(found.known, 'set')}"
            )
        for entry in self.run.scenario.zero_shot:
            accuracy = found.zero_shot.get(entry.name, math.nan)
            name, loaded = getattr(entry.source, "name", ""), self.run.loaded
            told = beside(name, loaded.name, loaded.pretrained, accuracy)
            if told is not None:
                self.progress.message(told)
        for line in cautions(found.standings, self.run.loaded, self.learner.model, self.data):
            self.progress.message(line)
        detail = {"eval_seconds": found.seconds}
        if found.changed is not None:
            detail[CHANGED] = asdict(found.changed)
            self.progress.message(found.changed.told(self.run.scenario.evaluation.precision))
        parts = {key: getattr(found, key) for key in ("retrieval", "by_shots", "multi_label")}
        return Record(found.row, found.zero_shot, detail, **parts)

    def _learned(self, task: TaskData) -> Record:
        """Attach, train and merge; store the update and what is carried on; measure."""
        steps = self.learner.steps_of(task, self.data)
        for observer in self.observers:
            observer.task_begins(task, steps)
        memory = PeakMemory(self.run.device)
        learned = self.learner.learn(task, self.data)
        if learned.skipped:
            were = counted(learned.skipped, "step was", "steps were")
            self.progress.message(f"{were} left out: the loss or gradient was no number")
        for line in self.learner.adapter.notes():
            self.progress.message(line)
        stored = save_delta(learned.delta)
        write_bytes(self.folder.delta(task.index, task.name), stored)
        head = learned.fitted and learned.fitted.head
        if head is not None:
            head_file = save_head(head)
            write_bytes(self.folder.head(task.index, task.name), head_file)
        carried = save_plugins(self.learner.plugins, self.folder, task)
        found = self.measuring.after(task, learned.moved, self.learner.head)
        for observer in self.observers:
            observer.task_learned(task, learned.delta)
        geometry = self.learner.adapter.geometry[-1]
        overlaps = [g["protected_overlap"] for g in geometry.values() if "protected_overlap" in g]
        detail = {
            "name": task.name,
            "classes": len(task.plan.class_names),
            "shots": task.plan.shots,
            "train_images": len(task.train),
            "test_images": len(task.plan.test),
            "split_sha256": task.plan.sha256(),
            "steps": steps,
            "train_seconds": learned.seconds,
            "eval_seconds": found.seconds,
            "delta_norm": learned.delta.norm() if learned.moved else 0.0,
            "protected_overlap": max(overlaps) if overlaps else None,
            "trainable_parameters": learned.trainable,
            "stored_bytes": len(stored) + (len(head_file) if head is not None else 0),
            "carried_bytes": carried,
            "peak_memory_bytes": memory.bytes(),
        }
        if task.captioned:
            detail["texts"] = sum(map(len, task.plan.captions("train").texts))
        if learned.fitted is not None:
            detail["head"] = {"kind": self.run.strategy.head.kind, **learned.fitted.told}
        state = self.learner.adapter.state()
        parts = (geometry, state, list(learned.curve), found.retrieval, found.by_shots, found.multi_label)
        return Record(found.row, found.zero_shot, detail, *parts, training_accuracy=list(learned.accuracy))

    def _keep(self, record: Record, records: list[Record]) -> None:
        """Put a record on the disk, let go of what it makes needless, and tell."""
        index, name = self.run.state_name(len(records))
        records.append(record)
        write_json(self.folder.record(index, name), sealed(record.content()))
        if index >= 0:
            self.checkpoints.forget(index, name)
        if index > 1:
            forget_plugins(self.learner.plugins, self.folder, *self.run.state_name(index - 1))
        # Done only when the observers are: of a run that ends before, their views would be found finished.
        write_json(self.folder.results, results_of(self.run, records) | {"status": "running"})
        for observer in self.observers:
            observer.recorded(len(records) - 1, record)

    def _forget_later(self, done: int) -> None:
        """Delete what an earlier process left of states that are made again now.

        It may have computed them elsewhere. Were this process killed before it has made them all, the next
        would take those for a continuation of what this one made.

        Args:
            done: number of the first of them.
        """
        for learned in range(done, len(self.data.tasks) + 1):
            index, name = self.run.state_name(learned)
            self.folder.record(index, name).unlink(missing_ok=True)
            if learned > max(done, 1):  # within the next task itself it is gone on
                self.checkpoints.forget(index, name)

    def _restore(self, records: list[Record]) -> list:
        """Bring model and plugins to where the records end (independent tasks: nowhere); the updates of their
        tasks."""
        done = self.data.tasks[: max(0, len(records) - 1)]
        if not done:
            return []
        self.progress.message(f"going on after task {len(done)} of {len(self.data.tasks)} ({done[-1].name})")
        deltas = [load_delta(self.folder.delta(task.index, task.name)) for task in done]
        if self.run.scenario.independent:
            return deltas
        try:
            self.learner.restore(deltas, [record.adapter_state for record in records[1:]])
        except UserError as error:
            raise UserError(f"{self.folder.root}: {error.messages[0]}") from None
        head = self.learner.head
        if head is not None and head.keeps_heads:
            for task in (one for one in done if not one.captioned):
                stored = load_head(self.folder.head(task.index, task.name))
                head.finished(task.name, stored.to(self.run.device))
        if len(done) < len(self.data.tasks):  # after the last, nobody needs what it left for later ones
            restore_plugins(self.learner.plugins, self.folder, done, self.run.device)
        return deltas
