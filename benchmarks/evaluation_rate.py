"""How near answering comes to the raw forward pass of the image tower, in every precision of a scenario's
``evaluation``.

Ours takes uint8 pixels in the memory of the machine and ends with labels and probabilities there: copies,
normalisation, logits, softmax. The raw pass takes normalised pixels that lie on the device and leaves its
features there. The prompts are encoded before: once a state of the model, however many images there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.evaluate import answers, share_changed
from cl_complora.clip.slots import open_slots
from cl_complora.data.labels import LabelSpace

from .clips import TEMPLATE, class_names, image_size, random_clip, tokenizer
from .timing import Case, Check, Goal, Side, Size, compare

# Of the raw pass with logits made from its features, in the same precision. Random weights answer by next to
# nothing, so that rounding decides here and there.
OTHERWISE = 0.01


@dataclass(frozen=True)
class _Work:
    model: str
    images: int
    classes: int
    repeats: int


_WORK: dict[Size, _Work] = {
    "tiny": _Work("tiny", 6, 3, 1),
    "quick": _Work("small-224", 512, 100, 3),
    "full": _Work("ViT-B-16", 512, 1000, 3),
}
# A GPU computes 2,048 in a few seconds.
_ON_GPU = 4


def measure(size: Size, device: str = "cpu") -> Iterator[Case]:
    """One case for each precision that the device has."""
    work = _WORK[size]
    images = work.images * (_ON_GPU if device.startswith("cuda") and size != "tiny" else 1)
    clip = random_clip(work.model).to(device).eval()
    classifier = ClipClassifier(clip, tokenizer()).to(device).eval()
    open_slots(clip)
    side = image_size(clip)
    pixels = torch.randint(
        256, (images, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    space = LabelSpace.from_templates(class_names(work.classes), [TEMPLATE])
    told = f"{work.model}, {images:,} images of {side} px, {work.classes} classes"
    for precision in ("fp32", "tf32", "bf16") if device.startswith("cuda") else ("fp32", "bf16"):
        yield _case(classifier, pixels, space, precision, f"{told}, {precision}", work.repeats, device)


@torch.no_grad()
def _case(
    classifier: ClipClassifier,
    pixels: torch.Tensor,
    space: LabelSpace,
    precision: str,
    told: str,
    repeats: int,
    device: str,
) -> Case:
    normalised = [classifier.normalise(part.to(device)) for part in pixels.split(classifier.batch_size)]
    # Features with the tower's own modules and arithmetic, and nothing else.
    with classifier.measured_in(precision):
        classifier.text.features(space)

        def ours() -> tuple[torch.Tensor, torch.Tensor]:
            return answers(classifier, pixels, space)

        def raw() -> list[torch.Tensor]:
            return [classifier.image_features(part) for part in normalised]

        labels = torch.cat([classifier.head(part, space).argmax(1) for part in raw()]).cpu()
        others = float((labels != ours()[0]).double().mean())
        case = compare(
            "rate",
            told,
            Side("answers to uint8 images in memory (ours)", ours),
            [
                Side(
                    "raw forward of the image tower",
                    raw,
                    [Check("share of images answered otherwise", others, OTHERWISE)],
                )
            ],
            repeats,
            device=device,
        )
    case.ours["images_per_second"] = len(pixels) / case.ours["median_s"]
    if precision != "fp32":
        case.ours["changed_answers"] = share_changed(classifier, pixels, space, precision)
    peer = case.peers.get("raw forward of the image tower")
    if peer is not None and device.startswith("cuda"):
        case.goals.append(Goal("share of the tower's raw rate", peer["ratio"], 0.9))
    return case
