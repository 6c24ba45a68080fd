"""What EWC keeps for eleven tasks on a ViT-B/16, ours and Avalanche's way. Run: python benchmarks/ewc_memory.py

Ours: the true per-sample Fisher of the effective q, k and v weights of both towers, really computed (random weights,
two images a task), and what the plugin holds after every task. Avalanche's: its plugin keeps a copy of every parameter
and of its importance per task, whether it is trained or not; that is counted from the parameters, not run.
"""

from __future__ import annotations

import time
from typing import Annotated

import open_clip
import torch
import typer

from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.slots import open_slots
from cl_complora.config.scenario import Augmentation
from cl_complora.config.strategy import Ewc
from cl_complora.data.labels import LabelSpace
from cl_complora.data.stream import Images, TaskData
from cl_complora.engine.ewc import EwcPlugin
from cl_complora.engine.experience import ClipExperience
from cl_complora.engine.plugin import CompLoRAPlugin
from cl_complora.provenance import PeakMemory


def main(
    tasks: Annotated[int, typer.Option(help="Tasks of the stream.")] = 11,
    samples: Annotated[int, typer.Option(help="Images for the Fisher of a task.")] = 2,
    model: Annotated[str, typer.Option(help="open_clip architecture.")] = "ViT-B-16",
    device: Annotated[str, typer.Option(help="Where.")] = "cpu",
) -> None:
    """Measure and print."""
    clip = open_clip.create_model(model)
    size = clip.visual.image_size
    size = size if isinstance(size, int) else size[0]
    space = LabelSpace.from_templates(["cat", "dog", "horse"], ["a photo of a {}."])
    classifier = ClipClassifier(clip, open_clip.get_tokenizer(model), space).to(device)
    open_slots(classifier.clip)
    adapter = CompLoRAPlugin(rank=2, matrices=["q", "k", "v"])
    adapter.prepare(classifier)
    images = Images(torch.randint(0, 256, (samples, 3, size, size), dtype=torch.uint8), torch.arange(samples) % 3)
    data = TaskData("t", 0, space, space, images, images, images, Augmentation(), None)
    strategy = type("Strategy", (), {"model": classifier, "experience": ClipExperience([data], 0)})()
    for online in (True, False):
        plugin = EwcPlugin(Ewc(kind="ewc", strength=1.0, online=online, samples=samples), adapter, 0)
        memory, began = PeakMemory(device), time.perf_counter()
        for _ in range(tasks):
            plugin.after_training_exp(strategy)
        held = sum(value.nbytes for value in plugin.tensors().values())
        seconds = (time.perf_counter() - began) / tasks / samples
        print(
            f"{'online' if online else 'separate':9} {held / 1e6:8.1f} MB held after {tasks} tasks, "
            f"{seconds:.2f} s an image for the Fisher, peak of the process {memory.bytes() / 1e9:.1f} GB"
        )
    stock = tasks * 2 * sum(p.nbytes for p in clip.parameters())
    print(f"stock     {stock / 1e6:8.1f} MB that Avalanche's plugin would hold (counted)")


if __name__ == "__main__":
    typer.run(main)
