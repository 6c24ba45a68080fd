"""Learning without forgetting and distillation on reference data, against Avalanche's own and formulas."""

from __future__ import annotations

import copy

import pytest
import torch
from avalanche.training.regularization import LearningWithoutForgetting
from torch.nn import functional as F

from builders.steps import OTHER, SPACE, Step, experience
from cl_complora.config import load_scenario, load_strategy
from cl_complora.config.penalties import Lwf, Reference, Similarities
from cl_complora.config.training import Training
from cl_complora.data.images.pixels import Pixels
from cl_complora.data.labels import LabelSpace
from cl_complora.data.planning import plan
from cl_complora.data.tasks import StreamData, load
from cl_complora.engine.adapter import FullPlugin
from cl_complora.engine.build import build_adapter, build_plugins, check_regularisers
from cl_complora.engine.clip_strategy import ClipStrategy
from cl_complora.engine.experience import ClipExperience
from cl_complora.engine.penalties.distillation import LwfPlugin, ReferencePlugin, SimilaritiesPlugin
from cl_complora.engine.updates.complora import CompLoRAPlugin
from cl_complora.errors import UserError
from cl_complora.run.stream import run


@pytest.mark.parametrize("kind", ["lowrank", "full"])
def test_lwf_is_zero_at_the_start_of_a_task_and_grows_as_it_leaves(model, kind):
    adapter = CompLoRAPlugin(rank=2) if kind == "lowrank" else FullPlugin()
    plugin = LwfPlugin(Lwf(kind="lwf", strength=1.0), adapter, 0)
    images = torch.randn(4, 3, 32, 32)
    step = Step(model, images, experience())
    assert plugin.penalty(step) is None
    plugin.after_training_exp(step)
    adapter.attach(model)
    plugin.before_training_exp(Step(model, images, experience(space=OTHER)))
    assert float(plugin.penalty(step)) == pytest.approx(0, abs=1e-5)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn_like(p))
    assert float(plugin.penalty(step)) > 1e-4


@pytest.mark.parametrize("kind", ["lowrank", "full"])
def test_lwf_agrees_with_avalanche_where_the_stock_one_works(model, kind):
    """One label space, the stock distillation on the logits of a frozen copy: the same number."""
    adapter = CompLoRAPlugin(rank=2) if kind == "lowrank" else FullPlugin()
    plugin = LwfPlugin(Lwf(kind="lwf", strength=1.0, temperature=2.0), adapter, 0)
    images = torch.randn(4, 3, 32, 32)
    step = Step(model, images, experience())
    plugin.after_training_exp(step)
    teacher = copy.deepcopy(model).eval()
    adapter.attach(model)
    plugin.before_training_exp(Step(model, images, experience(space=OTHER)))
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.05 * torch.randn_like(p))
    stock = LearningWithoutForgetting(alpha=1.0, temperature=2.0)
    expected = stock._distillation_loss(model(images, SPACE), teacher(images, SPACE).detach(), {0, 1, 2})
    assert torch.allclose(plugin.penalty(step), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", ["lwf", "similarities"])
def test_distillation_costs_one_pass_of_the_image_tower_without_gradients(model, kind, monkeypatch):
    """The student's features are those of the step; only the teacher's are computed beside them."""
    adapter = CompLoRAPlugin(rank=2, matrices=["q", "fc"])
    settings, plugin = {
        "lwf": (Lwf(kind="lwf", strength=1.0), LwfPlugin),
        "similarities": (Similarities(kind="similarities"), SimilaritiesPlugin),
    }[kind]
    distils = plugin(settings, adapter, 0)
    strategy = ClipStrategy(
        model=model,
        make_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        training=Training(steps=2, batch_size=4),
        plugins=[adapter, distils],
    )
    strategy.train(experience(), eval_streams=[])
    passes, encode = [], model._encode
    monkeypatch.setattr(
        model, "_encode", lambda images: passes.append(torch.is_grad_enabled()) or encode(images)
    )
    strategy.train(experience(space=OTHER), eval_streams=[])
    assert passes == [True, False] * 2
    assert strategy.mb_features is None  # nothing holds the last step's graph


def test_lwf_holds_no_answers_for_classes_that_have_images_again(model):
    """Another domain of the same classes, whose labels say better what the answer is. A space with one class
    that has no image is held."""
    adapter = CompLoRAPlugin(rank=2, matrices=["q"])
    plugin = LwfPlugin(Lwf(kind="lwf", strength=1.0), adapter, 0)
    plugin.meet(model, StreamData([], {}, shares_labels=True))
    adapter.attach(model)
    for space in (SPACE, OTHER):
        plugin.after_training_exp(Step(model, None, experience(space=space)))
    for space, images, held in ((SPACE, 5, [OTHER]), (OTHER, 5, [SPACE]), (SPACE, 2, [SPACE, OTHER])):
        plugin.before_training_exp(Step(model, None, experience(images, space)))
        assert [one for one, _ in plugin._held] == [space.with_template(0) for space in held]


@pytest.mark.parametrize("shares", [False, True])
def test_lwf_takes_equal_names_for_equal_classes_where_tasks_share_labels(model, shares):
    """Two questions that are answered with the same words are others, unless the prompts are the same."""
    asks = [LabelSpace.from_templates(["yes", "no", "none"], [text]) for text in ("a dog: {}", "a cat: {}")]
    adapter = CompLoRAPlugin(rank=2, matrices=["q"])
    plugin = LwfPlugin(Lwf(kind="lwf", strength=1.0), adapter, 0)
    plugin.meet(model, StreamData([], {}, shares_labels=shares))
    adapter.attach(model)
    plugin.after_training_exp(Step(model, None, experience(space=asks[0])))
    for space, held in ((asks[1], [] if shares else asks[:1]), (asks[0], [])):
        plugin.before_training_exp(Step(model, None, experience(space=space)))
        assert [one for one, _ in plugin._held] == held


@pytest.mark.parametrize("loss_classes", ["task", "seen"])
def test_lwf_holds_every_earlier_task_of_a_class_incremental_stream(model, loss_classes):
    """Labels of training images are places in what the loss contrasts, not in the joint label space."""
    located = load_scenario("embedded-classes")
    pixels, protocol = Pixels((8, 8)), located.value.protocol
    data = load(plan(located, 0), protocol, pixels, loss_classes, tests=False)
    assert len(data.tasks) > 2
    adapter = CompLoRAPlugin(rank=2, matrices=["q"])
    plugin = LwfPlugin(Lwf(kind="lwf", strength=1.0), adapter, 0)
    plugin.meet(model, data)
    adapter.attach(model)
    for task in data.tasks:
        step = Step(model, None, ClipExperience([task], task.index))
        plugin.before_training_exp(step)
        held = [space.class_names for space, _ in plugin._held]
        assert held == [before.train_space.class_names for before in data.tasks[: task.index]]
        plugin.after_training_exp(step)


def test_lwf_with_the_teachers_texts_holds_the_image_tower_alone(model):
    """No gradient reaches the text tower, and moved texts of the student change nothing."""
    penalties = {}
    for texts_of in ("teacher", "student"):
        torch.manual_seed(0)
        classifier, adapter = copy.deepcopy(model), FullPlugin()
        plugin = LwfPlugin(Lwf(kind="lwf", strength=1.0, texts_of=texts_of), adapter, 0)
        step = Step(classifier, torch.randn(4, 3, 32, 32), experience())
        plugin.after_training_exp(step)
        adapter.attach(classifier)
        plugin.before_training_exp(Step(classifier, step.mb_x, experience(space=OTHER)))
        with torch.no_grad():
            for name, p in classifier.clip.named_parameters():
                if p.requires_grad and not name.startswith("visual."):
                    p.add_(0.1 * torch.randn_like(p))
        penalties[texts_of] = float(plugin.penalty(step))
        with torch.no_grad():
            for name, p in classifier.clip.named_parameters():
                if p.requires_grad and name.startswith("visual."):
                    p.add_(0.1 * torch.randn_like(p))
        classifier.text.forget()
        plugin.penalty(step).backward()
        reached = [n for n, p in classifier.clip.named_parameters() if p.grad is not None and p.grad.any()]
        of_text = [name for name in reached if not name.startswith("visual.") and name != "logit_scale"]
        assert len(reached) > len(of_text) and bool(of_text) == (texts_of == "student")
    assert penalties["teacher"] == pytest.approx(0, abs=1e-5) and penalties["student"] > 1e-4


def test_the_reference_penalty_is_zero_for_the_pretrained_model_and_both_directions_of_kl_elsewhere(
    model, tokenizer
):
    images = experience(6).parts[0].train
    plugin = ReferencePlugin(
        Reference(kind="reference", strength=3.0, batch_size=6, texts=3, texts_of="student"), FullPlugin(), 0
    )
    plugin.meet(model, StreamData([], {}, (images, SPACE)))
    step = Step(model, None, experience())
    plugin.before_training_exp(step)
    assert float(plugin.penalty(step)) == pytest.approx(0, abs=1e-5)
    teacher = copy.deepcopy(model)
    with torch.no_grad():
        for p in model.clip.parameters():
            p.add_(0.05 * torch.randn_like(p))
        t, s = (m(images.pixels, SPACE) / 2.0 for m in (teacher, model))
    scale = float(teacher.clip.logit_scale.exp() / model.clip.logit_scale.exp())
    assert (
        scale != 1
    )  # the logit scale moved above, which no strategy does; the plugin uses the current one for both
    t = t / scale
    rows = F.kl_div(F.log_softmax(s, 1), F.softmax(t, 1), reduction="batchmean")
    columns = F.kl_div(F.log_softmax(s.mT, 1), F.softmax(t.mT, 1), reduction="batchmean")
    assert float(plugin.penalty(step)) == pytest.approx(4 * 3.0 * float(rows + columns), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("complora+linear-probe+lwf", ["adapter.towers=[text]"]),
        ("lora", ["adapter.towers=[text]", "regularisers=[{kind: similarities, strength: 1}]"]),
        ("lora", ["adapter.towers=[text]", "regularisers=[{kind: regions, strength: 1}]"]),
    ],
)
def test_what_reaches_nothing_that_is_trained_is_refused(name, settings, tiny_scenario, tmp_path):
    strategy = load_strategy(name, [*settings, "training.steps=1"])
    with pytest.raises(UserError, match="has no effect where nothing of the image tower is trained"):
        run(load_scenario(str(tiny_scenario)), strategy, out=tmp_path, analysis=False)


def test_beside_token_embeddings_alone_it_is_told(model):
    strategy = load_strategy("tokens", ["regularisers=[{kind: similarities, strength: 1}]"]).value
    adapter = build_adapter(strategy.adapter, 0)
    (line,) = check_regularisers(strategy, build_plugins(strategy, adapter, 0), model, adapter)
    assert "similarities has no effect where nothing of the image tower is trained" in line


def test_with_the_students_texts_a_text_tower_is_held(tiny_scenario, tmp_path):
    own = ["adapter.towers=[text]", "regularisers=[{kind: similarities, strength: 1, texts_of: student}]"]
    strategy = load_strategy("lora", [*own, "training.steps=1"])
    assert (
        run(load_scenario(str(tiny_scenario)), strategy, out=tmp_path, analysis=False).results["status"]
        == "done"
    )
