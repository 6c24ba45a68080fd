"""Distillation on sentences of random words (LwF-VR): what they are made of, and the loss on them."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from builders.steps import OTHER, Step, experience
from cl_complora.config.penalties import Sentences
from cl_complora.engine.adapter import FullPlugin
from cl_complora.engine.penalties.random_sentences import RandomSentencesPlugin, words_of


def sentences(seed: int = 0, **settings) -> RandomSentencesPlugin:
    return RandomSentencesPlugin(
        Sentences(**{"kind": "sentences", "sentences": 6, "words": 3, "texts": 6} | settings),
        FullPlugin(),
        seed,
    )


def drawn(plugin: RandomSentencesPlugin, model, position: int = 0) -> tuple[str, ...]:
    task = experience()
    task.current_experience = position
    plugin.before_training_exp(Step(model, None, task))
    return plugin.space.class_names


def moved(model, prefix: str = "") -> None:
    with torch.no_grad():
        for name, p in model.clip.named_parameters():
            if name != "logit_scale" and name.startswith(prefix):
                p.add_(0.05 * torch.randn_like(p))


def test_sentences_are_words_of_the_vocabulary_drawn_anew_for_every_task_and_seed(model):
    words = set(words_of(model.text.tokenizer))
    found = [drawn(sentences(seed), model, position) for seed, position in ((0, 0), (0, 1), (1, 0), (0, 0))]
    assert found[0] == found[3] and len({*found}) == 3
    assert all(len(texts) == 6 for texts in found)
    assert all(len(text.split()) == 3 and words.issuperset(text.split()) for text in found[0])


def test_words_are_what_entries_of_the_vocabulary_spell():
    entries = ["<pad>", "a", "dog", " dog", "##ing", "7", "e2e", "Hund", "größe"]
    inner = SimpleNamespace(vocab_size=len(entries), decode=lambda entry: entries[entry[0]])
    assert words_of(inner) == words_of(SimpleNamespace(tokenizer=inner)) == ["dog", "Hund", "größe"]


def test_a_tokeniser_without_a_list_of_words_is_refused_before_any_work(model):
    model = SimpleNamespace(text=SimpleNamespace(tokenizer=lambda texts: None))
    with pytest.raises(ValueError, match="does not list its vocabulary"):
        sentences().fits(model)


@pytest.mark.parametrize("texts_of", ["teacher", "student"])
def test_the_loss_is_both_divergences_from_the_state_before_the_task(model, texts_of):
    """By hand, from the logits of a frozen copy; 0 before the first step of the very first task."""
    torch.manual_seed(0)
    moved(model)
    plugin, images = sentences(strength=3.0, texts_of=texts_of), torch.randn(4, 3, 32, 32)
    plugin.adapter.attach(model)
    step = Step(model, images, experience())
    plugin.before_training_exp(step)
    assert plugin.penalty(step).item() == pytest.approx(0, abs=1e-4)
    teacher = copy.deepcopy(model)
    moved(model)
    with torch.no_grad():
        texts = (teacher if texts_of == "teacher" else model).text.encode_space(plugin.space)
        scale = model.clip.logit_scale.exp() / 2.0
        s = scale * model.image_features(images) @ texts.mT
        t = scale * teacher.image_features(images) @ teacher.text.encode_space(plugin.space).mT
    rows = F.kl_div(F.log_softmax(s, 1), F.softmax(t, 1), reduction="batchmean")
    columns = F.kl_div(F.log_softmax(s.mT, 1), F.softmax(t.mT, 1), reduction="batchmean")
    assert float(rows) > 1e-4
    found = plugin.penalty(Step(model, images, experience()))
    assert found.item() == pytest.approx(4 * 3.0 * float(rows + columns), rel=1e-3)


def test_the_teacher_of_a_later_task_is_the_state_before_that(model):
    plugin, images = sentences(), torch.randn(4, 3, 32, 32)
    plugin.adapter.attach(model)
    plugin.before_training_exp(Step(model, images, experience()))
    moved(model)
    plugin.after_training_exp(Step(model, images, experience()))
    plugin.adapter.attach(model)
    step = Step(model, images, experience(space=OTHER))
    plugin.before_training_exp(step)
    assert plugin.penalty(step).item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("texts_of", ["teacher", "student"])
def test_the_text_tower_is_held_with_its_own_texts_alone(model, texts_of):
    torch.manual_seed(0)
    plugin, images = sentences(texts_of=texts_of), torch.randn(4, 3, 32, 32)
    plugin.adapter.attach(model)
    step = Step(model, images, experience())
    plugin.before_training_exp(step)
    moved(model)
    plugin.penalty(Step(model, images, experience())).backward()
    reached = {n for n, p in model.clip.named_parameters() if p.grad is not None and p.grad.any()}
    of_text = {name for name in reached if not name.startswith("visual.") and name != "logit_scale"}
    assert reached - of_text and bool(of_text) == (texts_of == "student")


def test_a_step_reads_as_many_as_it_is_told_and_others_in_the_next(model):
    plugin, images = sentences(texts=2), torch.randn(4, 3, 32, 32)
    plugin.adapter.attach(model)
    step = Step(model, images, experience())
    plugin.before_training_exp(step)
    moved(model)
    state = plugin.step_state()
    step = Step(model, images, experience())
    first, second = plugin.penalty(step).item(), plugin.penalty(step).item()
    plugin.load_step_state(state)
    assert first != second and plugin.penalty(step).item() == first
