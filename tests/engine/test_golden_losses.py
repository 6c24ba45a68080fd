"""Losses of ZSCL, its LwF, O-LoRA and CoDyRA against what their authors' programs compute, and formulas
beside them that must not pass."""

from __future__ import annotations

import math
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from builders.golden import FORMS, agrees, golden, tensor
from cl_complora.config.penalties import L2Init, Orthogonal, Reference, Sentences, Similarities, TextToImage
from cl_complora.data.labels import LabelSpace
from cl_complora.data.tasks import Images
from cl_complora.engine.penalties import distillation, random_sentences
from cl_complora.engine.penalties.distillation import ReferencePlugin, SimilaritiesPlugin
from cl_complora.engine.penalties.random_sentences import RandomSentencesPlugin
from cl_complora.engine.penalties.text_to_image import TextToImagePlugin
from cl_complora.engine.regularisers import L2InitPlugin, OrthogonalPlugin
from cl_complora.engine.training.schedule import AveragePlugin

SPACE = LabelSpace.from_templates([f"c{i}" for i in range(7)], ["{}"])


def clip_with(file: dict, images: torch.Tensor):
    """A model whose towers give the file's features, whatever they are shown."""
    texts = tensor(file["inputs"]["student_texts_unused"], torch.float32)
    text = SimpleNamespace(
        tokens=lambda space: torch.arange(len(texts)),
        encode=lambda tokens: texts[tokens],
        features=lambda space: texts,
        encode_space=lambda space: tensor(file["inputs"]["teacher_texts"], torch.float32),
    )
    clip = SimpleNamespace(logit_scale=tensor(math.log(file["scale"])))
    return SimpleNamespace(clip=clip, text=text, image_features=lambda shown: images.float()[shown])


def reference_penalty(file: dict, images: torch.Tensor, texts_of: str = "teacher") -> torch.Tensor:
    """Through the plugin: ZSCL's reference data."""
    settings = Reference(kind="reference", batch_size=6, texts=7, texts_of=texts_of)
    plugin = ReferencePlugin(settings, None, 0)
    plugin.images, plugin.space = Images(torch.arange(6), torch.arange(6)), SPACE
    plugin._teacher_images = tensor(file["inputs"]["teacher_images"], torch.float32)
    plugin._teacher_texts = tensor(file["inputs"]["teacher_texts"], torch.float32)[None]
    return plugin.penalty(SimpleNamespace(model=clip_with(file, images)))


def similarities_penalty(file: dict, images: torch.Tensor, texts_of: str = "teacher") -> torch.Tensor:
    """Through the plugin of ZSCL's LwF, with the same figures as the batch's own images and classes."""
    teacher = tensor(file["inputs"]["teacher_images"], torch.float32)
    model = clip_with(file, images)
    model.image_features = lambda shown: teacher
    adapter = SimpleNamespace(previous=nullcontext)
    plugin = SimilaritiesPlugin(Similarities(kind="similarities", texts_of=texts_of), adapter, 0)
    step = SimpleNamespace(model=model, mb_x=torch.arange(6), mb_features=images.float(), spaces=[SPACE])
    return plugin.penalty(step)


def sentences_penalty(file: dict, images: torch.Tensor, texts_of: str = "teacher") -> torch.Tensor:
    """Through the plugin of its LwF-VR, with the file's texts in place of random sentences."""
    teacher = tensor(file["inputs"]["teacher_images"], torch.float32)
    model = clip_with(file, images)
    model.image_features = lambda shown: teacher
    settings = Sentences(kind="sentences", texts_of=texts_of, sentences=7)
    plugin = RandomSentencesPlugin(settings, SimpleNamespace(previous=nullcontext), 0)
    plugin.space = SPACE
    plugin._teacher_texts = tensor(file["inputs"]["teacher_texts"], torch.float32)
    return plugin.penalty(SimpleNamespace(model=model, mb_x=torch.arange(6), mb_features=images.float()))


PENALTIES = [reference_penalty, similarities_penalty, sentences_penalty]


def check_zscl(file: dict, penalty) -> None:
    """Value and gradient; the authors' cross-entropies hold the teacher's entropies beside the
    divergences."""
    images = tensor(file["inputs"]["student_images"]).requires_grad_()
    found = penalty(file, images)
    t, scale = file["temperature"], file["scale"]
    teacher_texts = tensor(file["inputs"]["teacher_texts"])
    teacher = tensor(file["outputs"]["logits_teacher"]) / t
    entropies = sum(-(F.softmax(x, 1) * F.log_softmax(x, 1)).sum(1).mean() for x in (teacher, teacher.mT))
    expected = file["outputs"]["image_loss"] + file["outputs"]["text_loss"]
    agrees(file, found + t**2 * entropies, expected, "loss")
    (gradient,) = torch.autograd.grad(found, images)
    by_hand = tensor(file["outputs"]["grad_logits_student"]) @ (scale * teacher_texts)
    agrees(file, gradient, by_hand, "gradient")


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("form", FORMS)
def test_zscl_and_what_it_calls_lwf(form, penalty):
    check_zscl(golden("zscl", form), penalty)


def _without_t_squared(student, teacher, temperature):
    return true_loss(student, teacher, temperature) / temperature**2


def _other_way(student, teacher, temperature):
    return true_loss(teacher, student, temperature)


def _one_direction(student, teacher, temperature):
    return temperature**2 * distillation._distillation(student / temperature, teacher / temperature)


def _cold(student, teacher, temperature):
    return temperature**2 * true_loss(student, teacher, 1.0)


true_loss = distillation.similarity_loss


@pytest.mark.parametrize("wrong", [_without_t_squared, _other_way, _one_direction, _cold])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_another_distillation_is_noticed(monkeypatch, penalty, wrong):
    for module in (distillation, random_sentences):
        monkeypatch.setattr(module, "similarity_loss", wrong)
    with pytest.raises(AssertionError):
        check_zscl(golden("zscl"), penalty)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_students_own_texts_are_another_loss(penalty):
    with pytest.raises(AssertionError):
        check_zscl(golden("zscl"), lambda file, images: penalty(file, images, "student"))


def test_no_gradient_reaches_the_text_tower():
    """With the teacher's texts; with its own ones it does."""
    file = golden("zscl")
    for texts_of, reached in (("teacher", False), ("student", True)):
        images = tensor(file["inputs"]["student_images"], torch.float32)
        model = clip_with(file, images)
        texts = tensor(file["inputs"]["student_texts_unused"], torch.float32).requires_grad_()
        model.text.features = lambda space, texts=texts: texts
        model.image_features = lambda shown, images=images: images
        settings = Similarities(kind="similarities", texts_of=texts_of)
        plugin = SimilaritiesPlugin(settings, SimpleNamespace(previous=nullcontext), 0)
        student = images.clone().requires_grad_()
        step = SimpleNamespace(model=model, mb_x=torch.arange(6), mb_features=student, spaces=[SPACE])
        (gradient,) = torch.autograd.grad(plugin.penalty(step), texts, allow_unused=True)
        assert (gradient is not None) == reached


def test_zscl_averages_the_start_and_every_state():
    file = golden("zscl")["ensemble"]
    plugin, p = AveragePlugin(1), torch.nn.Parameter(tensor(file["start"]))
    step = SimpleNamespace(trainable=[p])
    plugin.before_training_exp(step)
    for state, expected in zip(file["states"], file["after_each"], strict=True):
        p.data = tensor(state)
        plugin.after_update(step)
        assert torch.allclose(plugin._mean[0], tensor(expected), atol=1e-6)


def test_zscl_pulls_towards_the_start_of_the_task():
    file = golden("zscl")["l2"]
    now = {"w": tensor(file["from"])}
    adapter = SimpleNamespace(effective_weights=lambda: now, previous=nullcontext)
    plugin = L2InitPlugin(L2Init(kind="l2-init", strength=1.0, to="previous"), adapter, 0)
    plugin.before_training_exp(None)
    now["w"] = tensor(file["to"])
    assert float(plugin.penalty(None)) == pytest.approx(file["loss"])


def olora_penalty(file: dict, settings: Orthogonal):
    """The penalty, and the new factors that it is of."""
    given = {key: tensor(value) for key, value in file["inputs"].items() if key != "labels"}
    a = {m: given[f"{m}.A_new"].requires_grad_() for m in "qv"}
    b = {m: given[f"{m}.B_new"].requires_grad_() for m in "qv"}
    earlier = SimpleNamespace(factors={m: (given[f"{m}.B_old"], given[f"{m}.A_old"]) for m in "qv"})
    adapter = SimpleNamespace(
        deltas=[earlier],
        factors=lambda: {m: (b[m], a[m]) for m in "qv"},
        trained_factors=lambda: [*a.values(), *b.values()],
    )
    plugin = OrthogonalPlugin(settings, adapter, 0)
    plugin.before_training_exp(SimpleNamespace(device="cpu"))
    return plugin.penalty(None), a


def check_olora(file: dict, strength: float = 0.5, norm: float = 0.1) -> None:
    out = file["outputs"]
    penalty, a = olora_penalty(file, Orthogonal(kind="orthogonal", strength=strength))
    agrees(file, penalty, out["penalty_at_05"], "penalty")
    for matrix, gradient in zip("qv", torch.autograd.grad(penalty, list(a.values())), strict=True):
        agrees(file, gradient, out[f"grad_penalty_{matrix}.A_new"], "gradient")
    both, _ = olora_penalty(file, Orthogonal(kind="orthogonal", strength=strength, norm=norm))
    expected = out["loss_lambda1_05_lambda2_01"] - out["loss_lambda1_0"]
    assert float(both.detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_olora(form):
    check_olora(golden("olora", form))


def _squared_norms(plugin, strategy):
    factors = plugin.adapter.factors()
    overlap = sum((factors[k][1] @ a.mT).abs().sum() for k, a in plugin._earlier.items())
    norms = sum(f.square().sum() for f in plugin.adapter.trained_factors())
    return plugin.settings.strength * overlap + plugin.settings.norm * norms


def _squared_overlap(plugin, strategy):
    factors = plugin.adapter.factors()
    overlap = sum((factors[k][1] @ a.mT).square().sum() for k, a in plugin._earlier.items())
    norms = sum(f.norm() for f in plugin.adapter.trained_factors())
    return plugin.settings.strength * overlap + plugin.settings.norm * norms


@pytest.mark.parametrize("wrong", [_squared_norms, _squared_overlap])
def test_another_olora_is_noticed(monkeypatch, wrong):
    monkeypatch.setattr(OrthogonalPlugin, "penalty", wrong)
    with pytest.raises(AssertionError):
        check_olora(golden("olora"))


@pytest.mark.parametrize("settings", [{"strength": 1.0}, {"norm": 0.05}])
def test_other_weights_of_olora_are_noticed(settings):
    with pytest.raises(AssertionError):
        check_olora(golden("olora"), **settings)


def test_texts_find_their_images():
    """Rows are texts; earlier tasks' count in the mean, and those without an image give nothing."""
    logits, labels = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 2, 2, 2])
    space = LabelSpace.from_templates(["a", "b", "c"], ["{}"])
    plugin = TextToImagePlugin(TextToImage(kind="text-to-image", strength=2.0), None, 0)
    step = SimpleNamespace(spaces=[space], mb_x=logits, mb_output=logits, mb_y=labels)
    one_hot = F.one_hot(labels, 3).double().mT
    expected = -(one_hot * F.log_softmax(logits.mT, 1)).sum(1)
    assert torch.allclose(plugin.penalty(step), 2.0 * expected.mean())
    plugin.remember(SimpleNamespace(train_space=LabelSpace.from_templates(["x", "y", "a"], ["{}"])))
    assert torch.allclose(plugin.penalty(step), 2.0 * expected.sum() / 5)
