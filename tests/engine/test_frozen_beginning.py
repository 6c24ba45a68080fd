"""What the frozen blocks at the beginning compute is remembered: the same result but for rounding."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from avalanche.training.plugins import SupervisedPlugin
from torch import nn

from builders.computing import AS_THEY_ARE, LAST, assert_same, count_every_tower_as_wide, go
from builders.places import LONG
from builders.runs import deltas_of
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.config.scenario import Augmentation
from cl_complora.config.training import Training
from cl_complora.data.labels import LabelSpace
from cl_complora.data.tasks import Images, TaskData
from cl_complora.engine.clip_strategy import ClipStrategy
from cl_complora.engine.constraints import Constraint
from cl_complora.engine.experience import ClipExperience
from cl_complora.engine.frozen_features import FrozenBeginning
from cl_complora.engine.updates.complora import CompLoRAPlugin
from cl_complora.store.folder import RunDir


@pytest.fixture
def wide(monkeypatch):
    return count_every_tower_as_wide(monkeypatch)


@pytest.mark.parametrize("precision", ["fp32", "bf16"] if LONG else ["bf16"])
def test_a_resumed_run_takes_the_same_ways(tmp_path, tiny_scenario, wide, used, precision):
    """Stopped after its first task, and gone on with by what has measured nothing before."""
    settings = [*LAST, f"training.precision={precision}"]
    whole = go(tiny_scenario, tmp_path / "whole", "complora", settings, AS_THEY_ARE)
    parts = shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    folder = RunDir(parts / whole.folder.relative_to(tmp_path / "whole"))
    for file in (folder.record(1, "cold"), folder.delta(1, "cold"), folder.results):
        file.unlink()
    again = go(tiny_scenario, parts, "complora", settings, AS_THEY_ARE)
    assert again.reused == 1 and used == [(1, 6)] * 3
    for file, tensors in deltas_of(whole.folder).items():
        assert all(torch.equal(value, deltas_of(again.folder)[file][key]) for key, value in tensors.items())


@pytest.fixture
def used(monkeypatch):
    """(blocks that are not computed, images) of every experience in which something was remembered."""
    seen: list[tuple[int, int]] = []
    made = FrozenBeginning.of.__func__

    def noted(cls, model, batches):
        found = made(cls, model, batches)
        if found is not None:
            seen.append((len(found.blocks), len(found.known)))
        return found

    monkeypatch.setattr(FrozenBeginning, "of", classmethod(noted))
    return seen


@pytest.mark.parametrize(
    ("strategy", "settings", "blocks"),
    [
        ("lora", [*LAST, "adapter.dropout=0.2"], 1),
        ("tokens", [], 1),
        ("complora+lwf", LAST, 1),
        ("lora", [*LAST, "training.precision=bf16", "training.checkpointing=true"], 1),
        ("replay", ["adapter.whole=[tokens]"], 1),
    ],
)
def test_the_frozen_beginning_is_remembered(tmp_path, tiny_scenario, used, strategy, settings, blocks):
    whole = go(
        tiny_scenario, tmp_path / "whole", strategy, [*settings, "training.remember=false"], AS_THEY_ARE
    )
    assert not used
    found = go(tiny_scenario, tmp_path / "found", strategy, settings, AS_THEY_ARE)
    assert used == [(blocks, 6)] * 2
    assert_same(whole.folder, found.folder)


@pytest.mark.parametrize(
    ("strategy", "settings", "scenario"),
    [
        ("lora", LAST, []),
        ("lora", [], AS_THEY_ARE),
        ("finetune", [], AS_THEY_ARE),
        ("lora", [*LAST, "training.chunk=2"], AS_THEY_ARE),
        ("lora", [*LAST, "training.steps=1"], AS_THEY_ARE),
    ],
)
def test_nothing_is_remembered_where_that_saves_nothing(
    tmp_path, tiny_scenario, used, strategy, settings, scenario
):
    go(tiny_scenario, tmp_path, strategy, settings, scenario)
    assert not used


class Mixing(SupervisedPlugin):
    """What a plugin of a user's own may do to a batch."""

    def before_forward(self, strategy, **kwargs):
        strategy.mbatch[0] = strategy.mbatch[0].flip(3)


def test_images_that_a_plugin_put_there_are_computed(clip_model, tokenizer, used):
    pixels = torch.randint(
        0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )
    space = LabelSpace.from_templates(["one", "two"], ["a {}"])
    images = Images(pixels, torch.arange(6) % 2)
    task = TaskData("task", 0, space, space, images, images, images, Augmentation(crop=[1.0, 1.0]), None)
    updates = {}
    for plugins in ((), (Mixing(),)):
        for remember in (False, True):
            classifier = ClipClassifier(copy.deepcopy(clip_model), tokenizer)
            adapter = CompLoRAPlugin(rank=2, layers=[-1], constraint=Constraint(select="none"))
            strategy = ClipStrategy(
                model=classifier,
                make_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
                training=Training(steps=3, batch_size=4, remember=remember),
                plugins=[adapter, *plugins],
            )
            strategy.train(ClipExperience([task], 0), eval_streams=[])
            tensors = adapter.deltas[0].tensors()
            updates[len(plugins), remember] = torch.cat(
                [tensors[name].flatten().float() for name in sorted(tensors)]
            )
            assert strategy.beginning is None
    assert len(used) == 2
    for number in (0, 1):
        torch.testing.assert_close(updates[number, True], updates[number, False], atol=1e-5, rtol=1e-3)
    assert not torch.allclose(updates[0, True], updates[1, True], atol=1e-5, rtol=1e-3)


def test_what_drops_at_random_is_computed_every_time(tmp_path, tiny_scenario, used, monkeypatch):
    from cl_complora.engine import frozen_features as frozen

    monkeypatch.setattr(frozen, "draws", lambda module: isinstance(module, nn.LayerNorm))
    go(tiny_scenario, tmp_path, "tokens", [], AS_THEY_ARE)
    assert not used and frozen.draws(nn.LayerNorm(2))
    monkeypatch.undo()
    assert (
        frozen.draws(nn.Dropout(0.1))
        and not frozen.draws(nn.Dropout(0.0))
        and not frozen.draws(nn.Linear(1, 1))
    )
