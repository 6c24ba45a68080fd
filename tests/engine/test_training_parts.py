"""What a step is made of beside the method: rates, clipping, averaging, smoothing, pictures, memory."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from builders.clip_models import tiny_clip
from builders.steps import SPACE, experience
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.compare.choosing import SCORES
from cl_complora.config.scenario import Augmentation
from cl_complora.config.strategy import Memory
from cl_complora.config.training import Optimiser, Schedule, Training
from cl_complora.data.images.pixels import augment
from cl_complora.engine.adapter import FullPlugin
from cl_complora.engine.clip_strategy import ClipStrategy
from cl_complora.engine.replay import ReplayPlugin
from cl_complora.engine.training.schedule import AveragePlugin, SchedulePlugin
from cl_complora.engine.training.training_loss import smoothed_cross_entropy


def test_every_step_has_its_rate():
    """Warm-up over a quarter of eight steps, then a cosine to a tenth, times each group's own rate."""
    groups = [{"initial_lr": 1.0, "lr": 9.0}, {"initial_lr": 4.0, "lr": 9.0}]
    step = SimpleNamespace(optimizer=SimpleNamespace(param_groups=groups), dataloader=range(8))
    plugin = SchedulePlugin(Schedule(name="cosine", warmup=0.25, end=0.1), Optimiser(lr=1.0))
    for _ in range(2):  # every experience anew
        plugin.before_training_exp(step)
        found = []
        for _ in range(8):
            plugin.before_training_iteration(step)
            found.append(groups[0]["lr"])
            assert groups[1]["lr"] == 4 * groups[0]["lr"]
        wanted = [1 / 3, 2 / 3, 1.0, 0.939711, 0.775, 0.55, 0.325, 0.160289]
        assert found == pytest.approx(wanted, abs=1e-5)


def test_gradients_are_clipped_to_the_norm_and_without_one_left():
    for most, wanted in ((0.5, 0.5), (50.0, 10.0), (None, 10.0)):
        p = nn.Parameter(torch.zeros(4))
        p.grad = torch.full((4,), 5.0)
        plugin = SchedulePlugin(Schedule(), Optimiser(lr=1.0, clip_norm=most))
        plugin.before_update(SimpleNamespace(trainable=[p]))
        assert float(p.grad.norm()) == pytest.approx(wanted, rel=1e-4)


def test_the_mean_of_the_states_is_what_an_experience_leaves():
    plugin, p = AveragePlugin(2), nn.Parameter(torch.zeros(3))
    step = SimpleNamespace(trainable=[p])
    plugin.before_training_exp(step)
    for value in (1.0, 2.0, 3.0, 7.0, 100.0):
        p.data.fill_(value)
        plugin.after_update(step)
    plugin.after_training_epoch(step)
    assert p.tolist() == pytest.approx([3.0] * 3)  # of 0, 2 and 7


def test_smoothing_is_torchs_and_spreads_over_an_images_own_classes():
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    for smoothing in (0.0, 0.2):
        wanted = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        assert torch.allclose(smoothed_cross_entropy(logits, labels, smoothing), wanted)
    filled = F.pad(logits, (0, 2), value=torch.finfo(torch.float32).min)
    assert torch.allclose(smoothed_cross_entropy(filled, labels, 0.2), wanted)


@pytest.mark.parametrize("flip", [False, True])
def test_pictures_are_mirrored_in_half_and_only_where_asked(flip):
    pixels = torch.randint(
        0, 256, (200, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    found = augment(pixels, (1.0, 1.0), flip, torch.Generator().manual_seed(1))
    same = (found == pixels).flatten(1).all(1)
    mirrored = (found == pixels.flip(3)).flatten(1).all(1)
    assert bool((same | mirrored).all())
    assert (60 < int(mirrored.sum()) < 140) if flip else bool(same.all())


@pytest.mark.parametrize("crop", [(0.3, 0.6), (0.5, 0.5)])
def test_crops_hold_the_share_of_the_area_that_was_asked_for(crop):
    """Told from pictures that show where each pixel came from: red grows to the right, green downwards."""
    ramp = torch.arange(64, dtype=torch.uint8) * 4
    picture = torch.stack(
        [ramp.expand(64, 64), ramp[:, None].expand(64, 64), torch.zeros_like(ramp.expand(64, 64))]
    )
    found = augment(picture.expand(400, -1, -1, -1), crop, False, torch.Generator().manual_seed(0)).float()
    left, right, top, bottom = found[:, 0, 0, 0], found[:, 0, 0, -1], found[:, 1, 0, 0], found[:, 1, -1, 0]
    wide, high = (right - left) / (63 * 4), (bottom - top) / (63 * 4)
    area, aspect = wide * high, wide / high
    assert area.min() > crop[0] - 0.01 and area.max() < crop[1] + 0.01
    assert area.max() - area.min() > 0.9 * (crop[1] - crop[0])
    assert 3 / 4 - 0.02 < aspect.min() < 0.77 and 1.3 < aspect.max() < 4 / 3 + 0.02
    # Every place that the crop fits in is taken, and none beyond the frame (where pictures are mirrored).
    for begin, share in ((left / (63 * 4), wide), (top / (63 * 4), high)):
        place = begin / (1 - share)
        assert -0.02 < place.min() < 0.05 and 0.95 < place.max() < 1.03
        assert float(place.mean()) == pytest.approx(0.5, abs=0.05)
        assert float(place.std()) == pytest.approx(1 / 12**0.5, abs=0.03)  # as uniform as can be


def test_the_memory_adds_its_weighted_loss(tokenizer):
    """weight · cross-entropy of a batch of what was kept, which is one image of each class here."""
    model = ClipClassifier(tiny_clip(), tokenizer).eval()
    memory = ReplayPlugin(Memory(kind="replay", per_class=1, batch_size=16, weight=3.0), seed=0)
    strategy = ClipStrategy(
        model=model,
        make_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        training=Training(steps=1, batch_size=4, label_smoothing=0.3),
        plugins=[FullPlugin(), memory],
    )
    first = experience(images=9)
    memory.remember(replace(first.parts[0], augment=Augmentation(crop=[1.0, 1.0], flip=False)))
    ((task, places),) = memory.kept
    assert sorted(task.train.labels[places].tolist()) == [0, 1, 2]
    pixels, labels = task.train.pixels[places], task.train.labels[places]
    strategy.experience, strategy.loss = first, torch.zeros(())
    strategy.dataloader = SimpleNamespace(template=0)
    with torch.no_grad():
        each = F.cross_entropy(model(pixels, SPACE), labels, reduction="none", label_smoothing=0.3)
        memory.before_backward(strategy)
    found = float(strategy.loss) / 3.0
    assert float(each.min()) - 1e-4 <= found <= float(each.max()) + 1e-4 and found > 0
    generator = ReplayPlugin(memory.settings, seed=0).generator
    drawn = torch.randint(3, (16,), generator=generator)
    assert found == pytest.approx(float(each[drawn].mean()), rel=1e-3)


def test_the_harmonic_score_is_that_of_last_and_what_is_left_of_the_zero_shot_sets():
    results = {"last": 0.8, "average": 0.5, "zero_shot": {"general": [0.9, 0.6]}}
    assert SCORES["harmonic"](results) == pytest.approx(2 * 80 * 60 / 140)
    worse = {**results, "last": 0.85, "zero_shot": {"general": [0.9, 0.5]}}
    assert SCORES["last"](worse) > SCORES["last"](results)
    assert SCORES["harmonic"](worse) < SCORES["harmonic"](results)
