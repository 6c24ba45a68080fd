"""Fixtures of the engine's tests."""

from __future__ import annotations

import pytest

from builders.models import tiny_clip
from builders.steps import SPACE
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.slots import open_slots


@pytest.fixture
def model(tokenizer) -> ClipClassifier:
    """A tiny model whose linear maps are opened for low-rank updates."""
    classifier = ClipClassifier(tiny_clip(), tokenizer, SPACE)
    open_slots(classifier.clip)
    return classifier.eval()
