"""A full evaluation round, eleven sets and a zero-shot one, against a loader that decodes JPEG files every
time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.evaluate import answers
from cl_complora.clip.slots import open_slots
from cl_complora.data.images.pixels import Pixels
from cl_complora.data.labels import LabelSpace

from .clips import class_names, image_size, random_clip, tokenizer
from .timing import Case, Check, Goal, Side, Size, compare, relative

BATCH = 256
# Share of images that may be answered otherwise: two classes may tie to the last digit.
TIES = 0.005
# Width and height of the JPEG files: what the photographs of ImageNet, Food-101 and Oxford Pets mostly have.
PHOTO = (500, 375)


@dataclass(frozen=True)
class _Work:
    models: tuple[str, ...]
    sets: int
    images: int
    classes: int
    zero_shot_classes: int
    workers: int
    repeats: int


_WORK: dict[Size, _Work] = {
    "tiny": _Work(("tiny",), 2, 6, 3, 5, 0, 1),
    "quick": _Work(("small-224",), 3, 100, 10, 50, 2, 2),
    "full": _Work(("small-224", "ViT-B-32"), 11, 200, 20, 1000, 2, 3),
}


class _Files(Dataset):
    """JPEG files and their labels, through open_clip's own transform."""

    def __init__(self, paths: list[Path], side: int) -> None:
        self.paths, self.transform = paths, open_clip.image_transform(side, is_train=False)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB"))


@dataclass
class _Set:
    paths: list[Path]
    space: LabelSpace
    pixels: Tensor


def measure(size: Size, device: str = "cpu") -> Iterator[Case]:
    """One case for each model."""
    work = _WORK[size]
    for model in work.models:
        yield _of_model(model, work, device)


def _of_model(model: str, work: _Work, device: str) -> Case:
    clip = random_clip(model).to(device).eval()
    side = image_size(clip)
    with tempfile.TemporaryDirectory() as folder:
        sets = _sets(Path(folder), work, side)
        plain = random_clip(model).to(device).eval()  # as open_clip makes it, not opened for adaptation
        classifier = ClipClassifier(clip, tokenizer()).to(device).eval()
        open_slots(clip)
        found: dict[str, list[tuple[Tensor, Tensor]]] = {}
        features: list[Tensor] = []

        def ours() -> None:
            classifier.text.forget()  # after a task the weights are others, so that every set is encoded once
            found["ours"] = [answers(classifier, s.pixels, s.space) for s in sets]

        def ordinary() -> None:
            found["ordinary"] = [_ordinary(plain, s, side, work.workers, device) for s in sets]

        normalised = [classifier.normalise(s.pixels.to(device)) for s in sets]

        @torch.no_grad()
        def raw() -> None:
            features[:] = [
                torch.cat([clip.encode_image(x) for x in part.split(BATCH)]) for part in normalised
            ]

        ours()
        ordinary()
        raw()
        with torch.no_grad():
            logits = [
                classifier.head(F.normalize(f, dim=-1), s.space) for f, s in zip(features, sets, strict=True)
            ]
            by_raw = [_answered(part) for part in logits]
        case = compare(
            "eval",
            f"{model} at {side} px, {work.sets} sets of {work.images} JPEG files of {PHOTO[0]} × {PHOTO[1]} "
            f"in {work.classes} classes and one in {work.zero_shot_classes}: answers to all, "
            "weights new since the last round",
            Side("pixel and text cache (ours)", ours),
            [
                Side(
                    f"JPEG loader of {work.workers} workers",
                    ordinary,
                    _same(found["ordinary"], found["ours"]),
                ),
                Side("raw forward of the image tower", raw, _same(by_raw, found["ours"])),
            ],
            work.repeats,
            warmups=0,  # every side has run once
            device=device,
        )
    _goals(case, model, device)
    return case


def _goals(case: Case, model: str, device: str) -> None:
    ratios = {name: peer["ratio"] for name, peer in case.peers.items()}
    for name, ratio in ratios.items():
        if "JPEG" in name and model != "ViT-B-32":
            case.goals.append(Goal("the loader takes 5 times as long", ratio, 5.0))
        if "raw" in name and device.startswith("cuda"):
            case.goals.append(Goal("share of the tower's raw throughput", ratio, 0.9))


def _sets(folder: Path, work: _Work, side: int) -> list[_Set]:
    sets, pixels = [], Pixels((side, side))
    for number in range(work.sets + 1):
        rng = np.random.default_rng(number)
        paths = []
        for index in range(work.images):
            paths.append(folder / f"{number}-{index}.jpg")
            _photo(rng).save(paths[-1], quality=90)
        zero_shot = number == work.sets
        names = class_names(work.zero_shot_classes if zero_shot else work.classes)
        space = LabelSpace.from_templates(names, [f"a photo {number} of a {{}}."])
        sets.append(_Set(paths, space, torch.stack([pixels.read(path) for path in paths])))
    return sets


def _photo(rng: np.random.Generator) -> Image.Image:
    """As busy as a photograph: coarse colours with some noise."""
    coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize(PHOTO)
    noisy = np.asarray(coarse, dtype=np.float32) + rng.normal(0, 8, (PHOTO[1], PHOTO[0], 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


@torch.no_grad()
def _ordinary(clip: torch.nn.Module, of: _Set, side: int, workers: int, device: str) -> tuple[Tensor, Tensor]:
    tokens = tokenizer()([text for texts in of.space.prompts for text in texts]).to(device)
    texts = F.normalize(clip.encode_text(tokens), dim=-1)
    logits = []
    for images in DataLoader(_Files(of.paths, side), batch_size=BATCH, num_workers=workers):
        features = F.normalize(clip.encode_image(images.to(device)), dim=-1)
        logits.append(clip.logit_scale.exp() * features @ texts.mT)
    return _answered(torch.cat(logits))


def _answered(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Labels and their softmax probabilities."""
    shares, labels = logits.softmax(1).max(1)
    return labels.cpu(), shares.cpu()


def _same(found: list[tuple[Tensor, Tensor]], wanted: list[tuple[Tensor, Tensor]]) -> list[Check]:
    labels, shares = (
        tuple(torch.cat([pair[i] for pair in side]) for side in (found, wanted)) for i in (0, 1)
    )
    other = (labels[0] != labels[1]).double().mean()
    return [
        Check("share of images answered otherwise", float(other), TIES),
        Check("probability of the answer", relative(*shares), 1e-4),
    ]
