"""Forward and backward pass of our step, launched by the program and replayed as one CUDA graph: what a graph
would bring, and for which sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from cl_complora.engine.constraints import Constraint

from .clips import image_size, pictures, random_clip
from .peers import Engine
from .step import told, tolerances
from .timing import Case, Check, Side, Size, compare, worst

_MODELS: dict[Size, tuple[str, ...]] = {
    "tiny": ("tiny",),
    "quick": ("small-224",),
    "full": ("small-224", "ViT-B-16"),
}
_CLASSES: dict[Size, tuple[int, ...]] = {"tiny": (5,), "quick": (10,), "full": (10, 100, 1000)}
LAUNCHED, REPLAYED = "launched by the program (ours)", "replayed as a CUDA graph"


def measure(size: Size, device: str = "cpu") -> Iterator[Case]:
    """One case for each model, precision and number of classes; on the CPU nothing is replayed."""
    batch = 4 if size == "tiny" else 32
    for model in _MODELS[size]:
        for precision in (torch.float32, torch.bfloat16) if device != "cpu" else (torch.float32,):
            engine = Engine("ours", random_clip(model), Constraint(), device, precision=precision)
            images = pictures(batch, image_size(engine.classifier.clip), batch).pixels.to(device)
            images = engine.classifier.normalise(images)
            for classes in _CLASSES[size]:
                what = f"{model}, batch {batch}, {classes} classes, {told(precision)}"
                labels = (torch.arange(batch) * 7 % classes).to(device)
                engine.show(images, labels, classes)
                yield _case(engine, images, labels, f"forward and backward pass, {what}", device)


def _case(engine: Engine, images: Tensor, labels: Tensor, what: str, device: str) -> Case:
    classifier, space = engine.classifier.train(), engine.strategy.experience.spaces[0]
    trained = [p for p in classifier.parameters() if p.requires_grad]

    def passes() -> None:
        F.cross_entropy(classifier(images, space), labels).backward()

    def launched() -> None:
        for parameter in trained:
            parameter.grad = None
        passes()

    launched()
    wanted = _gradients(trained)
    peers, left_out = [], {}
    if device == "cpu":
        left_out[REPLAYED] = "the CPU has no graphs"
    else:
        try:
            replay = _captured(launched, passes, trained, device)
        except RuntimeError as error:
            left_out[REPLAYED] = str(error).strip().splitlines()[0]
        else:
            replay()
            differ = worst(_gradients(trained), wanted)
            allowed = tolerances(device, classifier.precision).gradients
            peers = [Side(REPLAYED, replay, [Check("gradients", differ, allowed)])]
    # The graph writes its gradients where they were when it was captured, whatever the parameters hold now.
    case = compare(
        "graph", what, Side(LAUNCHED, launched), peers, 10 if device != "cpu" else 1, device=device
    )
    case.left_out = left_out
    return case


def _captured(
    launched: Callable[[], None], passes: Callable[[], None], trained: list[Tensor], device: str
) -> Callable[[], None]:
    """The passes as a graph; its gradients are those of the parameters until the next step clears them."""
    beside = torch.cuda.Stream(device)
    beside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(beside):
        for _ in range(3):
            launched()
    torch.cuda.current_stream(device).wait_stream(beside)
    for parameter in trained:
        parameter.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        passes()
    return graph.replay


def _gradients(trained: list[Tensor]) -> dict[str, Tensor]:
    return {str(place): p.grad.detach().clone() for place, p in enumerate(trained)}
