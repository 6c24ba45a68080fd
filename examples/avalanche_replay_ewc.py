"""Comp-LoRA beside Avalanche's own replay, EWC, metrics and loggers.

Run: python examples/avalanche_replay_ewc.py [FOLDER OF LOGS [EPOCHS]]

The same two experiences as plugin_in_naive.py, class-incremental, learned by stock strategies: Naive, and the
Replay and EWC that Avalanche ships, each with CompLoRAPlugin among its plugins. Accuracy and forgetting are
measured by Avalanche, and go to a CSV file and to TensorBoard through its loggers.
"""

import sys
import warnings
from pathlib import Path

import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute
from avalanche.evaluation.metrics import accuracy_metrics, forgetting_metrics
from avalanche.logging import CSVLogger, TensorboardLogger
from avalanche.training.plugins import EvaluationPlugin, EWCPlugin, ReplayPlugin
from avalanche.training.supervised import Naive
from torch.utils.data import TensorDataset

from cl_complora import ClipClassifier, CompLoRAPlugin, LabelSpace, open_model
from cl_complora.world.source import World

LOGS = Path(sys.argv[1] if len(sys.argv) > 1 else "avalanche-logs")
EPOCHS = int(sys.argv[2]) if len(sys.argv) > 2 else 10
warnings.simplefilter("ignore", DeprecationWarning)  # Avalanche 0.6 calls what it will drop in 0.7


def classifier():
    """The embedded CLIP with eight class names as its head; any open_clip model and tag work alike."""
    loaded = open_model("embedded")
    space = LabelSpace.from_templates(world.class_names[:8], world.prompts)
    return ClipClassifier(loaded.model, loaded.tokenizer, space, loaded.mean, loaded.std), loaded.pixels


def experience(model, pixels, split, classes, per_class):
    few = [i for i in world.items(split) if i.label in classes and int(i.key.split("/")[2]) < per_class]
    labels = torch.tensor([item.label for item in few])
    data = TensorDataset(model.normalise(world.load(few, pixels)), labels)
    return AvalancheDataset([data], data_attributes=[DataAttribute(labels.tolist(), "targets")])


def learn(name, *plugins):
    """Accuracy on both experiences after the stream, as Avalanche measures it."""
    torch.manual_seed(0)
    model, pixels = classifier()
    parts = (range(4), range(4, 8))
    benchmark = benchmark_from_datasets(
        train=[experience(model, pixels, "train", part, 8) for part in parts],
        test=[experience(model, pixels, "test", part, 10) for part in parts],
    )
    loggers = [CSVLogger(str(LOGS / name)), TensorboardLogger(str(LOGS / name / "tensorboard"))]
    strategy = Naive(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=2e-3),
        train_mb_size=16,
        train_epochs=EPOCHS,
        eval_mb_size=64,
        plugins=[CompLoRAPlugin(rank=8, energy=0.5), *plugins],
        evaluator=EvaluationPlugin(
            accuracy_metrics(experience=True, stream=True), forgetting_metrics(stream=True), loggers=loggers
        ),
    )
    for train in benchmark.streams["train"]:
        strategy.train(train)
        found = strategy.eval(benchmark.streams["test"])
    first, second = (
        100 * value for key, value in sorted(found.items()) if key.startswith("Top1_Acc_Exp/eval_phase")
    )
    print(f"{name:8} objects 1-4 {first:5.1f} %, objects 5-8 {second:5.1f} %")


world = World("objects")
learn("naive")
learn("ewc", EWCPlugin(ewc_lambda=100.0))
learn("replay", ReplayPlugin(mem_size=16))
print(f"figures of every step: {LOGS}/*/eval_results.csv, tensorboard --logdir {LOGS}")
