"""Ways to compute a step that save time or memory: each gives the same result but for rounding."""

from __future__ import annotations

import copy
import shutil

import open_clip
import pytest
import torch
from avalanche.training.plugins import SupervisedPlugin
from torch import nn

from builders.models import TINY, tiny_clip
from builders.places import LONG
from builders.runs import deltas_of
from cl_complora.clip.attention import SplitAttention
from cl_complora.clip.blocks import Computing, blocks_of, computed_again, gives_one_token
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.slots import open_slots
from cl_complora.config import load_scenario, load_strategy
from cl_complora.config.scenario import Augmentation
from cl_complora.config.training import Training
from cl_complora.data.labels import LabelSpace
from cl_complora.data.tasks import Images, TaskData
from cl_complora.engine.clip_strategy import ClipStrategy
from cl_complora.engine.complora import CompLoRAPlugin
from cl_complora.engine.constraints import Constraint
from cl_complora.engine.experience import ClipExperience
from cl_complora.engine.frozen_features import FrozenBeginning
from cl_complora.errors import UserError
from cl_complora.lowrank import LowRankBlock
from cl_complora.run.stream import run
from cl_complora.store.folder import RunDir

# Adam makes as much of a gradient that is rounding as of any other; SGD does not.
PLAIN = [
    "training.steps=3",
    "training.batch_size=4",
    "optimiser.name=sgd",
    "optimiser.lr=0.01",
    "optimiser.momentum=0",
]
AS_THEY_ARE = ["augment.crop=[1,1]", "augment.flip=false"]
LAST = ["adapter.layers=[-1]"]


def go(tiny_scenario, out, strategy, settings=(), scenario=()):
    located = load_scenario(str(tiny_scenario), list(scenario))
    return run(located, load_strategy(strategy, [*PLAIN, *settings]), out=out)


def assert_same(folder, other, digits: float = 2e-3) -> None:
    whole, found = deltas_of(folder), deltas_of(other)
    assert whole.keys() == found.keys()
    for file, tensors in whole.items():
        assert any(float(value.float().abs().max()) > 0 for value in tensors.values())
        for key, value in tensors.items():
            scale = float(value.float().abs().max()) or 1.0
            torch.testing.assert_close(
                found[file][key].float(), value.float(), atol=digits * scale, rtol=1e-3
            )


@pytest.mark.parametrize(
    ("strategy", "how"),
    [
        ("complora+lwf", "chunk=1"),
        ("lora+ewc", "checkpointing=true"),
        ("finetune", "chunk=1 checkpointing=true"),
        ("complora+lwf", "compile=true"),
    ],
)
def test_the_update_is_the_same(tmp_path, tiny_scenario, monkeypatch, strategy, how):
    """Of two tasks, the second with the classes of the first beside its own where the strategy looks back."""
    whole = go(tiny_scenario, tmp_path / "whole", strategy)
    made: list[object] = []
    # Compiled in earnest by the test below: for two towers and two tasks it takes a minute.
    monkeypatch.setattr(torch, "compile", lambda function, **how: made.append(function) or function)
    settings = [f"training.{one}" for one in how.split()]
    assert_same(whole.folder, go(tiny_scenario, tmp_path / "other", strategy, settings).folder)
    # Both towers, for both tasks.
    assert len(made) == (4 if how == "compile=true" else 0)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on the CPU")
@pytest.mark.parametrize("tower", ["image", "text"] if LONG else ["image"])
def test_a_compiled_tower_gives_the_same_gradient(tokenizer, tower):
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

    def refuse(self, images, *rest):
        if torch.is_grad_enabled():
            raise BackendCompilerFailed(print, RuntimeError("no compiler found"), None)
        return real(self, images, *rest)

    real = ClipClassifier.forward
    monkeypatch.setattr(ClipClassifier, "forward", refuse)
    with pytest.raises(
        UserError, match="torch.compile does not work here .*no compiler found.*leave training.compile"
    ):
        go(tiny_scenario, tmp_path, "lora")


# -- the last block
# --------------------------------------------------------------------------------------------------


@pytest.fixture
def wide(monkeypatch):
    """Every tower counts as wide; how many tokens each call of a last block gave."""
    tokens: list[int] = []
    real = SplitAttention.forward

    def noted(self, query, *args, **kwargs):
        tokens.append(query.shape[1])
        return real(self, query, *args, **kwargs)

    monkeypatch.setattr("cl_complora.clip.blocks.WIDE", 1)
    monkeypatch.setattr(SplitAttention, "forward", noted)
    return tokens


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [
        ("complora+lwf", []),
        ("lora+ewc", []),
        ("finetune", ["training.chunk=1", "training.checkpointing=true"]),
        ("lora", ["training.precision=bf16"]),
        ("inflora", []),
    ],
)
def test_only_the_token_that_is_read_is_computed(tmp_path, tiny_scenario, request, strategy, settings):
    whole = go(tiny_scenario, tmp_path / "whole", strategy, settings, AS_THEY_ARE)
    tokens = request.getfixturevalue("wide")
    found = go(tiny_scenario, tmp_path / "found", strategy, settings, AS_THEY_ARE)
    assert tokens.count(1) > 0.2 * len(tokens)
    assert_same(whole.folder, found.folder, 2e-3 if "training.precision=bf16" not in settings else 5e-2)
    assert found.results["accuracy"] == whole.results["accuracy"]


@pytest.mark.parametrize("layer_scale", [None, 0.1])
def test_one_token_of_a_row_is_that_of_all(wide, tokenizer, layer_scale):
    """Features and gradients of both towers, the untouched open_clip model against the opened one."""
    parts = {name: TINY[name] | {"ls_init_value": layer_scale} for name in ("vision_cfg", "text_cfg")}
    torch.manual_seed(0)
    plain = open_clip.model.CLIP(**(TINY | parts)).eval()
    model = copy.deepcopy(plain)
    open_slots(model)
    classifier = ClipClassifier(model, tokenizer)
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    texts = tokenizer(["a", "a photo of two birds", "a photo"])
    towers = (
        (images, plain.encode_image, classifier._encode),
        (texts, plain.encode_text, classifier.text.encode),
    )
    for given, theirs, ours in towers:
        wide.clear()
        wanted, found = theirs(given), ours(given)
        assert 1 in wide
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
        for one, features in ((plain, wanted), (model, found)):
            one.zero_grad()
            (features * torch.arange(features.shape[1])).sum().backward()
        gradients = {name: p.grad for name, p in plain.named_parameters()}
        for name, p in model.named_parameters():
            assert (p.grad is None) == (gradients[name] is None), name
            if p.grad is not None:
                torch.testing.assert_close(p.grad, gradients[name], atol=1e-3, rtol=1e-3)
    assert not any("forward" in vars(module) for module in model.modules())


def test_towers_that_read_more_are_computed_whole(wide, tokenizer):
    model = tiny_clip()
    open_slots(model)
    classifier, images = ClipClassifier(model, tokenizer), torch.zeros(2, 3, 32, 32)
    classifier._encode(images)
    assert wide.count(1) == 1
    model.visual.pool_type = "avg"
    classifier._encode(images)
    model.visual.pool_type = "tok"
    with classifier.computing_everything():
        classifier._encode(images)
        classifier.text.encode(tokenizer(["a"]))
    factors = LowRankBlock(48, 48, 2, dropout=0.5)
    last = model.visual.transformer.resblocks[-1]
    last.attn.adapters.attach("q", last.attn.rows("q"), factors.train())
    classifier._encode(images)
    assert wide.count(1) == 1
    factors.eval()
    classifier._encode(images)
    assert wide.count(1) == 2
    last.__class__ = type("Other", (type(last),), {"forward": lambda self, x, **kwargs: x})
    classifier._encode(images)
    assert wide.count(1) == 2


def test_narrow_towers_are_computed_whole(tokenizer):
    model = tiny_clip()
    open_slots(model)
    assert not gives_one_token(model.visual.transformer.resblocks[-1])


@pytest.mark.parametrize("precision", ["fp32", "bf16"] if LONG else ["bf16"])
def test_a_resumed_run_takes_the_same_ways(tmp_path, tiny_scenario, wide, used, precision):
    """Stopped after its first task, and gone on with by what has measured nothing before."""
    settings = [*LAST, f"training.precision={precision}"]
    whole = go(tiny_scenario, tmp_path / "whole", "complora", settings, AS_THEY_ARE)
    parts = go(tiny_scenario, tmp_path / "parts", "complora", settings, AS_THEY_ARE)
    folder = RunDir(parts.folder)
    for file in (folder.record(1, "cold"), folder.delta(1, "cold"), folder.results):
        file.unlink()
    again = go(tiny_scenario, tmp_path / "parts", "complora", settings, AS_THEY_ARE)
    assert again.reused == 1 and used == [(1, 6)] * 5
    for file, tensors in deltas_of(whole.folder).items():
        assert all(torch.equal(value, deltas_of(again.folder)[file][key]) for key, value in tensors.items())


# -- the frozen beginning
# --------------------------------------------------------------------------------------------


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
