"""Parts of an update have names of their own, and each has the figures of its own change."""

from __future__ import annotations

import pytest
import torch

from builders.models import tiny_clip
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.data.labels import LabelSpace
from cl_complora.delta import TaskDelta
from cl_complora.finished.explain import _Changed
from cl_complora.finished.samples import Samples
from cl_complora.finished.update_parts import coarse_parts, directions, finer_parts, pieces


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_every_parameter_of_a_full_update_is_measured_by_itself(tokenizer):
    """Five biases of a block are of one kind; none may pass for another."""
    classifier = ClipClassifier(tiny_clip(), tokenizer).eval()
    parameters = {
        name: p for name, p in classifier.clip.named_parameters() if p.ndim and "embedding" not in name
    }
    changes = {name: 0.3 * drawn(*p.shape, seed=seed) for seed, (name, p) in enumerate(parameters.items())}
    space = LabelSpace.from_templates(["red", "green", "blue"], ["a photo of a {}."])
    pixels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    sets = {"one": (pixels, torch.arange(6) % 3, space)}
    with torch.no_grad():
        for name, change in changes.items():
            parameters[name] += change
    changed = _Changed(Samples(classifier, sets), parameters, ["one"])
    layers = [p for p in coarse_parts(pieces(TaskDelta(dense=changes))) if p.kind == "layer"]
    matrices = [part for layer in layers for part in finer_parts(layer)]
    names = [part.name for part in matrices]
    assert len(set(names)) == len(names) and len({layer.name for layer in layers}) == len(layers)
    assert {"vision 1 fc", "vision 1 mlp.c_fc.bias", "vision 1 ln_1.bias", "vision ln_pre.bias"} <= set(names)
    biases = [part for part in matrices if part.name.startswith("vision 1") and "bias" in part.name]
    terms = list(directions(next(part for part in matrices if part.name == "vision 1 fc"), 2))
    told, direct = {}, {}
    for part in (*biases, *terms):
        told[part.name] = changed.without(part)["one"].probability
        (piece,) = part.pieces
        with torch.no_grad():
            before = {name: p.clone() for name, p in parameters.items()}
            piece.add_to(parameters, -1.0)
            direct[part.name] = Samples(classifier, sets).measure(["one"])["one"].probability
            for name, value in before.items():
                parameters[name].copy_(value)
    assert told == pytest.approx(direct, rel=1e-5)
    assert len(biases) >= 5 and len(set(direct.values())) == len(direct)


def test_the_stages_of_a_resnet_are_layers():
    names = [f"visual.layer{stage}.{block}.conv1.weight" for stage in (1, 4) for block in (0, 1)]
    names += ["visual.layer1.0.bn1.bias", "visual.layer1.0.bn2.bias", "visual.ln_pre.bias", "visual.bn1.bias"]
    parts = coarse_parts(pieces(TaskDelta(dense={name: torch.ones(2) for name in names})))
    layers = {
        part.name: sorted(piece.name for piece in part.pieces) for part in parts if part.kind == "layer"
    }
    assert layers == {
        "vision 1.0": ["vision 1.0 bn1.bias", "vision 1.0 bn2.bias", "vision 1.0 conv1"],
        "vision 1.1": ["vision 1.1 conv1"],
        "vision 4.0": ["vision 4.0 conv1"],
        "vision 4.1": ["vision 4.1 conv1"],
        "vision ln_pre.bias": ["vision ln_pre.bias"],
        "vision bn1.bias": ["vision bn1.bias"],
    }


def test_parameters_that_no_place_tells_apart_have_their_whole_names():
    keys = ["one.0.norm.bias", "other.0.norm.bias", "one.0.norm.weight"]
    found = pieces(TaskDelta(dense={key: torch.ones(2) for key in keys}))
    assert [piece.name for piece in found] == [*keys[:2], "text 0 norm"]
