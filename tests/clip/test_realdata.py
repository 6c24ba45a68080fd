"""Genuine CLIP embeddings and a real image tower, through the parts that every run is measured with.

Needs the folder ``shared/realdata`` beside the checkout, which is no part of the project; its README.md says
where everything comes from, and gives the figures that are asked for here.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from builders.places import LONG, SHARED
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.evaluate import accuracy, predictions
from cl_complora.clip.model import load_clip
from cl_complora.config.scenario import Model
from cl_complora.config.sources import FolderSource
from cl_complora.data.kinds import open_source
from cl_complora.data.labels import LabelSpace
from cl_complora.finished.model_files import classifier_of
from cl_complora.metrics import interval

REAL = SHARED / "realdata"
FEATURES, MODEL = REAL / "features", REAL / "model" / "mobilevit_xxs_clip.json"

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} (no part of the project) is not there")

# CIFAR-10's classes in label order, as LVIS calls them.
CIFAR10 = ["airplane", "car_(automobile)", "bird", "cat", "deer", "dog", "frog", "horse", "boat", "truck"]


class Recorded(nn.Module):
    """What ViT-B/32 answered, in the model's place: images are embeddings already, a text is its row's
    number."""

    def __init__(self, texts: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("texts", torch.from_numpy(texts))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(100.0)))

    def encode_image(self, images: Tensor) -> Tensor:
        return images

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self.texts[tokens[:, 0]]


def classifier(texts: dict[str, np.ndarray]) -> ClipClassifier:
    """Our classifier on recorded answers; ``texts`` are the raw embeddings of every prompt."""
    rows = {text: row for row, text in enumerate(texts)}
    model = Recorded(np.stack(list(texts.values())))
    return ClipClassifier(model, lambda asked, **_: torch.tensor([[rows[text]] for text in asked]))


@pytest.fixture(scope="module")
def embeddings() -> dict[str, np.ndarray]:
    with np.load(FEATURES / "openai_vitb32_text.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def cifar() -> tuple[Tensor, Tensor]:
    images = torch.load(FEATURES / "cifar10_500_image_embeddings.pt", weights_only=True)
    return images, torch.from_numpy(np.load(FEATURES / "cifar10_500_image_labels.npy"))


@pytest.mark.parametrize(("ship", "right"), [("boat", 451), ("cargo_ship", 441)])
def test_genuine_embeddings_give_the_published_accuracy(ship, right, embeddings, cifar):
    images, labels = cifar
    lvis = dict(zip(embeddings["lvis_names"].tolist(), embeddings["lvis_a"], strict=True))
    space = LabelSpace.from_templates([ship if name == "boat" else name for name in CIFAR10], ["{}"])
    model = classifier(lvis)
    found = accuracy(model, images, labels, space)
    assert found * len(labels) == pytest.approx(right, abs=1e-9)
    model.batch_size = 7
    assert accuracy(model, images, labels, space) == found
    low, high = interval(found, len(labels))
    assert low < found < high < low + 0.06


def test_an_ensemble_of_two_prompts_is_that_of_the_arithmetic(embeddings, cifar):
    """ImageNet's 1,000 classes in two templates: our predictions of the CIFAR-10 images against numpy's."""
    images, _ = cifar
    names = [str(number) for number in range(len(embeddings["imagenet_names"]))]
    texts = {f"a {name}": embeddings["imagenet_a"][int(name)] for name in names}
    texts |= {f"a photo of a {name}": embeddings["imagenet_photo"][int(name)] for name in names}
    model, space = classifier(texts), LabelSpace.from_templates(names, ["a {}", "a photo of a {}"])

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=-1, keepdims=True)

    expected = unit(unit(embeddings["imagenet_a"]) + unit(embeddings["imagenet_photo"]))
    assert np.allclose(model.text.features(space).numpy(), expected, atol=1e-6)
    scores = F.normalize(images, dim=-1).numpy() @ expected.T
    assert np.array_equal(predictions(model, images, space).numpy(), scores.argmax(1))


@pytest.mark.skipif(not LONG, reason="make test-faults")
def test_the_real_tower_tells_imagenet_apart():
    """Every fifth of the thousand pictures, open_clip's names: 48 % at the model's own 256 pixels."""
    files = {"config": str(MODEL), "pretrained": str(MODEL.with_suffix(".safetensors"))}
    loaded = load_clip(Model(name=MODEL.stem, **files, mean=[0.0, 0.0, 0.0], std=[1.0, 1.0, 1.0]))
    pictures = str(REAL / "imagenet-sample")
    folder = FolderSource(kind="folder", root=pictures, test_fraction=1.0, names="imagenet")
    source = open_source(folder, Path("."))
    items = source.items("test")[::5]
    labels = torch.tensor([item.label for item in items])
    assert len(items) == 200 and source.class_names[0] == "tench"
    space = LabelSpace.from_templates(source.class_names, ["a photo of a {}"])
    found = accuracy(classifier_of(loaded), source.load(items, loaded.pixels), labels, space)
    assert 0.45 <= found <= 0.51
