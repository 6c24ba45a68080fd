"""A run of the embedded stream against plain Avalanche doing the same steps, and against nothing but the
model."""

from __future__ import annotations

import copy
import dataclasses
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.evaluation.metrics import accuracy_metrics, loss_metrics
from avalanche.training.plugins import EvaluationPlugin, SupervisedPlugin
from avalanche.training.supervised import Naive
from torch import Tensor, nn
from torch.nn import functional as F

from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.model import load_clip
from cl_complora.clip.slots import open_slots
from cl_complora.config import load_scenario, load_strategy
from cl_complora.data import planning
from cl_complora.data import tasks as stream
from cl_complora.data.labels import LabelSpace
from cl_complora.data.tasks import Images, StreamData
from cl_complora.engine.adapter import AdapterPlugin
from cl_complora.engine.build import build_adapter
from cl_complora.engine.constraints import stable_seed
from cl_complora.engine.experience import ClipExperience, TrainingBatches, as_avalanche
from cl_complora.engine.training.optimisers import optimizer_factory
from cl_complora.engine.training.schedule import rate
from cl_complora.run.stream import run

from .timing import Case, Check, Goal, Side, Size, compare, worst

# All sides do the same arithmetic; what differs is the order in which threads add.
WEIGHTS, ACCURACY = 1e-3, 0.02
ALONE, LOADING = "the model alone", "loading alone"


@dataclass(frozen=True)
class _Work:
    tasks: int
    steps: int
    test_images: int
    repeats: int


_WORK: dict[Size, _Work] = {
    "tiny": _Work(1, 2, 20, 1),
    "quick": _Work(2, 20, 100, 1),
    "full": _Work(7, 80, 200, 1),
}


@dataclass
class _Steps:
    """One task as every side sees it: batches in order, drawn beforehand, and the label space of each."""

    batches: list[tuple[Tensor, Tensor]]
    spaces: list[LabelSpace]


class _Stream:
    """The stream, loaded once, and what is needed to train on it in three ways."""

    def __init__(self, work: _Work, folder: Path) -> None:
        self.folder, self.work = folder, work
        self.scenario, self.strategy = load_scenario("embedded"), load_strategy("complora-protected")
        settings = self.scenario.value.model_copy(
            update={"tasks": self.scenario.value.tasks[: work.tasks], "test_limit": work.test_images}
        )
        zero_shot = settings.zero_shot[0].model_copy(update={"images": 4 * work.test_images})
        settings = settings.model_copy(update={"zero_shot": [zero_shot]})
        self.scenario = dataclasses.replace(self.scenario, value=settings)
        training = self.strategy.value.training.model_copy(update={"steps": work.steps})
        short = self.strategy.value.model_copy(update={"training": training})
        self.strategy = dataclasses.replace(self.strategy, value=short)
        self.loaded = load_clip(settings.model)
        self.data = self.load()
        self.steps = [self._steps(index) for index in range(work.tasks)]
        self.runs = 0

    def _steps(self, index: int) -> _Steps:
        settings = self.strategy.value.training
        experience = ClipExperience([self.data.tasks[index]], index)
        seed = stable_seed(0, index, "batches")
        loader = TrainingBatches(experience, settings.steps, settings.batch_size, seed)
        steps = _Steps([], [])
        for images, labels, _ in loader:
            steps.batches.append((images, labels))
            space = experience.spaces[0]
            steps.spaces.append(space.with_template(loader.template % space.templates))
        return steps

    def load(self) -> StreamData:
        """The model and all pictures, which any program has to load before it begins."""
        pixels = load_clip(self.scenario.value.model).pixels
        return stream.load(planning.plan(self.scenario, 0), self.scenario.value.protocol, pixels)

    def sets(self) -> list[tuple[Images, LabelSpace]]:
        """Everything that is measured after a task."""
        return [*((task.test, task.space) for task in self.data.tasks), *self.data.zero_shot.values()]

    def classifier(self) -> tuple[ClipClassifier, AdapterPlugin]:
        """Fresh, with the strategy's adapter."""
        torch.manual_seed(0)
        loaded = self.loaded
        model = ClipClassifier(
            copy.deepcopy(loaded.model), loaded.tokenizer, mean=loaded.mean, std=loaded.std
        )
        open_slots(model.clip)
        return model.eval(), build_adapter(self.strategy.value.adapter, 0)

    # -- the three sides
    # ---------------------------------------------------------------------------------------------

    def ours(self) -> dict[str, Tensor]:
        """``run``, with everything that it leaves: records, deltas, answers, TensorBoard, analysis."""
        self.runs += 1
        result = run(self.scenario, self.strategy, out=self.folder / str(self.runs), device="cpu")
        self.seconds = [(d["train_seconds"], d["eval_seconds"]) for d in result.results["tasks_detail"]]
        return self._found(torch.tensor(result.results["accuracy"]), _deltas(result.folder))

    def bare(self) -> dict[str, Tensor]:
        """Model, loss, optimiser and decompositions, and nothing around them."""
        model, adapter = self.classifier()
        rows = [self._row(model)]
        for steps in self.steps:
            adapter.attach(model)
            model.train()
            trainable = [p for p in model.parameters() if p.requires_grad]
            optimizer = optimizer_factory(self.strategy.value.optimiser, adapter, model)(trainable)
            for number, ((images, labels), space) in enumerate(zip(steps.batches, steps.spaces, strict=True)):
                self._set_rate(optimizer, number)
                optimizer.zero_grad()
                F.cross_entropy(model(images, space), labels).backward()
                nn.utils.clip_grad_norm_(trainable, self.strategy.value.optimiser.clip_norm)
                optimizer.step()
            adapter.merge(model)
            model.eval()
            rows.append(self._row(model))
        return self._found(torch.tensor(rows), adapter.deltas)

    def avalanche(self) -> dict[str, Tensor]:
        """Naive with its loop, its loaders and its metrics; the same adapter as its plugin."""
        model, adapter = self.classifier()
        spaces = _Spaces(self)
        metrics = [
            *accuracy_metrics(minibatch=True, epoch=True, experience=True, stream=True),
            *loss_metrics(minibatch=True, epoch=True, experience=True, stream=True),
        ]
        settings = self.strategy.value
        strategy = _Naive(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
            criterion=nn.CrossEntropyLoss(),
            train_mb_size=len(self.steps[0].batches[0][1]),
            eval_mb_size=256,
            plugins=[adapter, spaces],
            evaluator=EvaluationPlugin(*metrics, loggers=[]),
        )
        strategy.make = lambda parameters: optimizer_factory(settings.optimiser, adapter, model)(parameters)
        train = [
            as_avalanche(Images(torch.cat([x for x, _ in s.batches]), torch.cat([y for _, y in s.batches])))
            for s in self.steps
        ]
        test = [as_avalanche(images) for images, _ in self.sets()]
        benchmark = benchmark_from_datasets(train=train, test=test)
        rows = [self._answers(strategy, benchmark.test_stream)]
        for index, experience in enumerate(benchmark.train_stream):
            strategy.train_mb_size = len(self.steps[index].batches[0][1])
            strategy.train(experience, shuffle=False)
            rows.append(self._answers(strategy, benchmark.test_stream))
        return self._found(torch.tensor(rows), adapter.deltas)

    def _answers(self, strategy: Naive, test_stream) -> list[float]:
        found = strategy.eval(test_stream)
        by_set = [value for name, value in found.items() if name.startswith("Top1_Acc_Exp/")]
        return by_set[: self.work.tasks]

    def _row(self, model: ClipClassifier) -> list[float]:
        right = []
        with torch.no_grad():
            for images, space in self.sets():
                found = torch.cat([model(part, space).argmax(1) for part in images.pixels.split(256)])
                right.append(float((found == images.labels).double().mean()))
        return right[: self.work.tasks]

    def _set_rate(self, optimizer: torch.optim.Optimizer, number: int) -> None:
        factor = rate(self.strategy.value.schedule, number, self.work.steps)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def _found(self, accuracy: Tensor, deltas: list) -> dict[str, Tensor]:
        found = {"accuracy": accuracy.double()}
        for index, delta in enumerate(deltas):
            for name, rows, change in delta.updates():
                found[f"{index}/{name}/{rows if isinstance(rows, slice) else ''}"] = change
        return found


class _Naive(Naive):
    """Naive with an optimiser over what the adapter trains; with every parameter the stock one works
    alike."""

    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]

    def check_model_and_optimizer(self, **kwargs) -> None:
        """A fresh one for every experience."""
        self.optimizer = self.make([p for p in self.model.parameters() if p.requires_grad])


class _Spaces(SupervisedPlugin, supports_distributed=False):
    """Tells the model the classes of the step or set, sets the rate and clips: what a user's plugin would
    do."""

    def __init__(self, of: _Stream) -> None:
        super().__init__()
        self.of, self.number = of, 0

    def before_training_exp(self, strategy, **kwargs) -> None:
        """From the first step."""
        self.number = 0

    def before_training_iteration(self, strategy, **kwargs) -> None:
        """Classes and rate of the step."""
        steps = self.of.steps[strategy.experience.current_experience]
        strategy.model.label_space = steps.spaces[self.number]
        self.of._set_rate(strategy.optimizer, self.number)
        self.number += 1

    def before_update(self, strategy, **kwargs) -> None:
        """Clip."""
        trainable = [p for p in strategy.model.parameters() if p.requires_grad]
        nn.utils.clip_grad_norm_(trainable, self.of.strategy.value.optimiser.clip_norm)

    def before_eval_exp(self, strategy, **kwargs) -> None:
        """Classes of the set."""
        strategy.model.label_space = self.of.sets()[strategy.experience.current_experience][1]


def _deltas(folder: Path) -> list:
    from cl_complora.store.deltas import load_delta

    return [load_delta(path) for path in sorted((folder / "deltas").iterdir())]


def measure(size: Size, device: str = "cpu") -> Iterator[Case]:
    """One case; the sides run on the CPU."""
    work = _WORK[size]
    with (
        tempfile.TemporaryDirectory() as name,
        patch.dict(os.environ, CL_COMPLORA_CACHE=str(Path(name) / "cache")),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        of = _Stream(work, Path(name))
        reference = of.ours()  # also fills the cache of decoded test images
        peers = [
            Side(told, side, _checks(side(), reference))
            for told, side in (("plain Avalanche", of.avalanche), (ALONE, of.bare))
        ]
        # The pictures to train on are drawn anew each time, those to test on come from the cache.
        same = Check("pictures", float(_differ(of.load(), of.data)), 0.5)
        peers.append(Side(LOADING, of.load, [same]))
        told = (
            f"embedded, complora-protected: {work.tasks} tasks of {work.steps} steps,"
            f" {work.test_images} test images each"
        )
        case = compare(
            "stream", told, Side("cl_complora.run (ours)", of.ours), peers, work.repeats, warmups=0
        )
        case.ours["train_s"], case.ours["eval_s"] = (sum(part) for part in zip(*of.seconds, strict=True))
        if ALONE in case.peers:
            whole, alone, loading = (
                side["cpu_median_s"] for side in (case.ours, case.peers[ALONE], case.peers[LOADING])
            )
            over = 100 * ((whole - loading) / alone - 1)
            told = "processor time over the model alone, loading left out, %"
            case.goals.append(Goal(told, over, 10.0, at_most=True))
        yield case


def _differ(one: StreamData, other: StreamData) -> bool:
    return any(
        not torch.equal(a.pixels, b.pixels)
        for x, y in zip(one.tasks, other.tasks, strict=True)
        for a, b in ((x.train, y.train), (x.test, y.test))
    )


def _checks(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[Check]:
    of_images = float((found["accuracy"] - wanted["accuracy"]).abs().max())
    weights = [{name: v for name, v in side.items() if name != "accuracy"} for side in (found, wanted)]
    return [
        Check("accuracy of every task after every task", of_images, ACCURACY),
        Check("update of every weight by every task", worst(*weights), WEIGHTS),
    ]
