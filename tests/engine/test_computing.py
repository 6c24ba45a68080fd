"""Ways to compute a step that save time or memory: each gives the same result but for rounding."""

from __future__ import annotations

import functools
import shutil

import open_clip
import pytest
import torch
from torch import nn

from builders.computing import assert_same, go
from builders.models import TINY
from builders.places import LONG
from cl_complora.clip import text
from cl_complora.clip.blocks import Computing, blocks_of, computed_again
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.slots import open_slots
from cl_complora.config import load_strategy
from cl_complora.data.labels import LabelSpace
from cl_complora.engine.updates import complora, stacked_blocks
from cl_complora.engine.updates.starts import gradient_components
from cl_complora.errors import UserError


@pytest.fixture(scope="module")
def plainly(tmp_path_factory, tiny_scenario):
    """(strategy, settings) → the folder of its run without any of these ways, made once."""

    @functools.cache
    def trained(strategy: str, *settings: str):
        return go(tiny_scenario, tmp_path_factory.mktemp("plainly"), strategy, settings).folder

    return trained


@pytest.mark.parametrize(
    ("strategy", "how"),
    [
        ("complora+lwf", "chunk=1"),
        ("lora+ewc", "checkpointing=true"),
        ("finetune", "chunk=1 checkpointing=true"),
        ("complora+lwf", "compile=true"),
    ],
)
def test_the_update_is_the_same(tmp_path, tiny_scenario, plainly, monkeypatch, strategy, how):
    """Of two tasks, the second with the classes of the first beside its own where the strategy looks back."""
    whole = plainly(strategy)
    made: list[object] = []
    # Compiled in earnest by the test below: for two towers and two tasks it takes a minute.
    monkeypatch.setattr(torch, "compile", lambda function, **how: made.append(function) or function)
    settings = [f"training.{one}" for one in how.split()]
    assert_same(whole, go(tiny_scenario, tmp_path, strategy, settings).folder)
    # Both towers, for both tasks.
    assert len(made) == (4 if how == "compile=true" else 0)


@pytest.mark.parametrize(
    ("strategy", "settings", "together"),
    [
        ("complora", [], True),
        ("complora-plain", ["adapter.rank=1"], True),
        ("lora+ewc", [], True),  # whose penalty composes by itself
        ("dora", [], False),
        ("complora", ["training.checkpointing=true"], False),
    ],
)
def test_factors_composed_at_once_train_the_same(
    tmp_path, tiny_scenario, plainly, monkeypatch, strategy, settings, together
):
    """As on a GPU, of two tasks."""
    whole = plainly(strategy, *(one for one in settings if not one.startswith("training.")))
    composed: list[int] = []
    compose = stacked_blocks.StackedBlocks.composed

    def counted(self, *given):
        composed.append(len(self.blocks))
        return compose(self, *given)

    monkeypatch.setattr(stacked_blocks.StackedBlocks, "composed", counted)
    monkeypatch.setattr(complora, "TOGETHER_ON", {"cpu"})
    assert_same(whole, go(tiny_scenario, tmp_path, strategy, settings).folder)
    assert bool(composed) == (together or strategy == "dora")  # dora's blocks then do so by themselves


# Inductor writes C++ and compiles it for half a minute; what comes before it does not.
@pytest.mark.skipif(LONG and shutil.which("g++") is None, reason="inductor needs g++ on the CPU")
@pytest.mark.parametrize("tower", ["image", "text"] if LONG else ["text"])
def test_a_compiled_tower_gives_the_same_gradient(tokenizer, tower, monkeypatch):
    if not LONG:
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    parts = {name: TINY[name] | {"layers": 1} for name in ("vision_cfg", "text_cfg")}
    model = open_clip.model.CLIP(**(TINY | parts))
    open_slots(model)
    classifier = ClipClassifier(model, tokenizer)
    images = torch.randint(
        0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    texts = tokenizer(["a photo of a red bird.", "a photo of blue.", "green"])
    gradients = []
    for how in (Computing(), Computing(compiled=True)):
        classifier.compute_as(how)
        classifier.zero_grad()
        features = classifier.image_features(images) if tower == "image" else classifier.text.encode(texts)
        (features * torch.arange(features.shape[1])).sum().backward()
        gradients.append(
            {name: p.grad.clone() for name, p in classifier.named_parameters() if p.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    for name, wanted in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], wanted, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("computing", "share"), [(Computing(chunk=4), 0.5), (Computing(checkpointing=True), 0.5)]
)
def test_less_is_remembered_for_the_same_gradient(clip_model, tokenizer, computing, share):
    classifier = ClipClassifier(clip_model, tokenizer)
    space = LabelSpace.from_templates([f"class {i}" for i in range(12)], ["a photo of a {}."])
    images = torch.randint(
        0, 256, (16, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    kept, gradients = {}, {}
    for how in (Computing(), computing):
        classifier.compute_as(how)
        classifier.zero_grad()
        held: dict[int, int] = {}

        def pack(tensor, held=held):
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = torch.nn.functional.cross_entropy(classifier(images, space), torch.arange(16) % 12)
        kept[how] = sum(held.values())
        loss.backward()
        gradients[how] = [p.grad.clone() for p in classifier.parameters() if p.grad is not None]
    assert kept[computing] < share * kept[Computing()]
    for ours, theirs in zip(gradients[computing], gradients[Computing()], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_blocks_are_their_own_again_afterwards(clip_model):
    name, blocks = blocks_of(clip_model.visual)
    assert name == "transformer.resblocks" and len(blocks) > 1
    with pytest.raises(KeyError), computed_again(blocks):
        assert all("forward" in vars(block) for block in blocks)
        raise KeyError
    assert not any("forward" in vars(block) for block in blocks)
    stages = nn.Sequential(
        nn.ModuleDict({"blocks": nn.Sequential()}), nn.ModuleDict({"blocks": nn.Sequential()})
    )
    assert blocks_of(stages) == ("", []) == blocks_of(nn.Linear(1, 1))


@pytest.mark.parametrize("other", ["chunk=2", "checkpointing=true"])
def test_compiling_goes_with_no_second_way(other):
    key = other.partition("=")[0]
    with pytest.raises(UserError, match=f"training.compile.*does not go with {key}"):
        load_strategy("lora", ["training.compile=true", f"training.{other}"])


def test_a_tower_that_is_no_list_of_blocks_cannot_be_checkpointed(tmp_path, tiny_scenario, monkeypatch):
    monkeypatch.setattr("cl_complora.engine.build.blocks_of", lambda tower: ("", []))
    with pytest.raises(UserError, match="the image tower is no list of blocks; training.chunk saves memory"):
        go(tiny_scenario, tmp_path, "lora", ["training.checkpointing=true"])


def test_what_cannot_be_compiled_is_told(tmp_path, tiny_scenario, monkeypatch):
    from torch._dynamo.exc import BackendCompilerFailed

    def refuse(self, features, *rest):
        if torch.is_grad_enabled():
            raise BackendCompilerFailed(print, RuntimeError("no compiler found"), None)
        return real(self, features, *rest)

    real = ClipClassifier.answers
    monkeypatch.setattr(ClipClassifier, "answers", refuse)
    with pytest.raises(
        UserError, match="torch.compile does not work here .*no compiler found.*leave training.compile"
    ):
        go(tiny_scenario, tmp_path, "lora")


def test_a_start_from_gradients_is_computed_as_training_is(tmp_path, tiny_scenario, monkeypatch):
    """Also before the first task of a process, which would otherwise begin a resumed task with other bits."""
    chunks, real = [], gradient_components.mean_gradients

    def noted(slots, model, *rest):
        chunks.append(model.computing.chunk)
        return real(slots, model, *rest)

    monkeypatch.setattr(gradient_components, "mean_gradients", noted)
    go(tiny_scenario, tmp_path, "lora-ga", ["training.chunk=2"])
    assert chunks == [2, 2]


def test_a_text_tower_that_stays_is_not_looked_at_in_every_step(tmp_path, tiny_scenario, monkeypatch):
    looked, real = [], text._state
    monkeypatch.setattr(text, "_state", lambda parameters: looked.append(1) or real(parameters))
    found = []
    for steps in (2, 5):
        looked.clear()
        go(tiny_scenario, tmp_path / str(steps), "image-lora", [f"training.steps={steps}"])
        found.append(len(looked))
    assert found[0] == found[1] > 0
