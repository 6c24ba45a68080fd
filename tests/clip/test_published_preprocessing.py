"""Weight files of architectures whose published weights are not scaled as CLIP's."""

from __future__ import annotations

import pytest
from safetensors.torch import save_file

from builders.models import tiny_clip
from cl_complora.clip import model
from cl_complora.clip.published_preprocessing import published_scaling
from cl_complora.config.scenario import Model
from cl_complora.errors import UserError


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("ViT-B-16", {}),
        ("ViT-B-16-SigLIP", {"resize_mode": "squash"}),
        ("PE-Core-B-16", {"resize_mode": "squash", "interpolation": "bilinear"}),
        ("MobileCLIP-S1", {"interpolation": "bilinear"}),
    ],
)
def test_what_all_published_weights_want_is_taken(name, wanted):
    notes: list[str] = []
    assert published_scaling(name, notes) == wanted and not notes


def test_where_they_differ_the_usual_is_taken_and_told():
    notes: list[str] = []
    assert published_scaling("ViT-H-14", notes) == {}
    (note,) = notes
    assert "differ in resize_mode (shortest, squash): shortest is taken" in note


@pytest.mark.parametrize(
    ("name", "pretrained", "squashed"),
    [("ViT-B-16-SigLIP", "w.safetensors", True), ("ViT-B-16", "w.safetensors", False)],
)
def test_a_weight_file_is_given_it(tmp_path, monkeypatch, name, pretrained, squashed):
    save_file(tiny_clip().state_dict(), tmp_path / "w.safetensors")
    asked = []

    def create(name, weights, preprocess, size):
        asked.append(preprocess)
        raise RuntimeError("far enough")

    monkeypatch.setattr(model, "_create", create)
    with pytest.raises(UserError):
        model.load_clip(Model(name=name, pretrained=pretrained, mean=[0.5] * 3, std=[0.5] * 3), tmp_path)
    (preprocess,) = asked
    assert (preprocess.get("resize_mode") == "squash") == squashed
    assert tuple(preprocess["mean"]) == (0.5, 0.5, 0.5)
