"""Comp-LoRA as a plugin in a stock Avalanche strategy. Run: python examples/plugin_in_naive.py

Two experiences of four new kinds of objects each, among eight classes: class-incremental without old images.
All eight names stand in every loss, so those without images in it are unlearned (docs/protocols.md).
"""

import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from torch.utils.data import TensorDataset

from cl_complora import ClipClassifier, CompLoRAPlugin, LabelSpace, open_model
from cl_complora.clip.evaluate import accuracy
from cl_complora.world.source import World

loaded = open_model("embedded")
world = World("objects")
space = LabelSpace.from_templates(world.class_names[:8], world.prompts)
model = ClipClassifier(loaded.model, loaded.tokenizer, space, loaded.mean, loaded.std)


def images(split, classes, per_class):
    few = [i for i in world.items(split) if i.label in classes and int(i.key.split("/")[2]) < per_class]
    return world.load(few, loaded.pixels), torch.tensor([item.label for item in few])


def experience(classes):
    pixels, labels = images("train", classes, per_class=8)
    data = TensorDataset(model.normalise(pixels), labels)
    return AvalancheDataset([data], data_attributes=[DataAttribute(labels.tolist(), "targets")])


benchmark = benchmark_from_datasets(train=[experience(range(4)), experience(range(4, 8))])
plugin = CompLoRAPlugin(rank=8, energy=0.5)
strategy = Naive(
    model=model,
    optimizer=torch.optim.AdamW(model.parameters(), lr=2e-3),
    train_mb_size=16,
    train_epochs=10,
    plugins=[plugin],
    evaluator=EvaluationPlugin(loggers=[]),
)

tests = [images("test", range(first, first + 4), 20) for first in (0, 4)]
for step, train in enumerate([None, *benchmark.streams["train"]]):
    if train is not None:
        strategy.train(train, eval_streams=[])
    first, second = (100 * accuracy(model, pixels, labels, space) for pixels, labels in tests)
    print(f"after {step} experiences: objects 1-4 {first:.0f} %, objects 5-8 {second:.0f} %")
print("each unlearns the other's names, which its loss sees as wrong answers only: docs/protocols.md")
print("size of the two updates: " + ", ".join(f"{delta.norm():.2f}" for delta in plugin.deltas))
