"""Which images and which prompts a step is trained with: the order of an experience's batches, and of a
class's templates one drawn for the step, always the first, or the mean of all."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from avalanche.training.plugins import SupervisedPlugin
from torch.nn import functional as F

from builders.clip_models import tiny_clip
from builders.steps import OTHER, SPACE, experience
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.config.scenario import Augmentation
from cl_complora.config.strategy import Memory
from cl_complora.config.training import Training
from cl_complora.data.labels import LabelSpace
from cl_complora.engine.adapter import FullPlugin
from cl_complora.engine.clip_strategy import ClipStrategy
from cl_complora.engine.experience import ClipExperience, TrainingBatches
from cl_complora.engine.replay import ReplayPlugin


def drawn(where: ClipExperience, steps: int, batch_size: int, seed: int = 0) -> list[list[int]]:
    """Places of the images of every batch."""
    batches = TrainingBatches(where, steps, batch_size, seed)
    return [batches.chosen.tolist() for _ in batches]


@pytest.mark.parametrize("batch_size", [3, 4, 10])
def test_every_image_comes_once_before_any_comes_again(batch_size):
    found = drawn(experience(images=10), 30, batch_size)
    assert [len(batch) for batch in found] == [batch_size] * 30
    inline = [place for batch in found for place in batch]
    rounds = [inline[start : start + 10] for start in range(0, len(inline), 10)]
    assert all(sorted(one) == list(range(10)) for one in rounds)
    assert len(set(map(tuple, rounds))) == len(rounds), "every round has an order of its own"


def test_images_of_tasks_that_are_trained_together_come_in_the_same_rounds():
    parts = [experience(images, space).parts[0] for images, space in ((4, SPACE), (7, OTHER))]
    batches = TrainingBatches(ClipExperience(parts, 1), 11, 3, 0)
    seen = [place for _ in batches for place in batches.chosen.tolist()]
    assert all(sorted(seen[start : start + 11]) == list(range(11)) for start in (0, 11, 22))


def test_the_order_hangs_on_the_seed_alone():
    where = experience(images=10)
    first = drawn(where, 6, 4)
    torch.rand(5)
    assert drawn(where, 6, 4) == first
    assert all(drawn(where, 6, 4, seed) != first for seed in range(1, 5))


def test_fewer_images_than_a_batch_has_make_it_smaller():
    found = drawn(experience(images=5), 3, 8)
    assert [sorted(batch) for batch in found] == [list(range(5))] * 3


def test_a_batch_has_the_images_labels_and_tasks_of_its_places():
    as_they_are = Augmentation(crop=[1.0, 1.0], flip=False)
    parts = [
        replace(experience(images, space).parts[0], augment=as_they_are)
        for images, space in ((4, SPACE), (7, OTHER))
    ]
    where = ClipExperience(parts, 1)
    batches = TrainingBatches(where, 8, 3, 0)
    for pixels, labels, tasks in batches:
        assert torch.equal(pixels, where.pixels[batches.chosen])
        assert torch.equal(labels, torch.cat([part.train.labels for part in parts])[batches.chosen])
        assert torch.equal(tasks, (batches.chosen >= 4).long())


def test_tasks_that_share_their_classes_are_one_space():
    parts = [experience(images, space).parts[0] for images, space in ((4, SPACE), (7, OTHER), (5, SPACE))]
    where = ClipExperience(parts, 2)
    assert (
        where.spaces == [SPACE, OTHER]
        and where.place == [0, 1, 0]
        and where.of_parts == [SPACE, OTHER, SPACE]
    )
    assert [int(counts.sum()) for counts in where.class_counts] == [9, 7]
    batches = TrainingBatches(where, 4, 16, 0)
    for _, _, places in batches:
        assert torch.equal(places, ((batches.chosen >= 4) & (batches.chosen < 11)).long())


TEMPLATES = ("a photo of a {}", "{} paint", "so {}")


class Noted(SupervisedPlugin, supports_distributed=False):
    """Images and logits of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[torch.Tensor, torch.Tensor]] = []

    def after_forward(self, strategy, **kwargs) -> None:
        self.steps.append((strategy.mb_x, strategy.mb_output.detach()))


def steps_with(prompts: str, tokenizer) -> tuple[ClipClassifier, list[tuple[torch.Tensor, torch.Tensor]]]:
    """A model that nothing is learned by, and the images and logits of its twelve steps."""
    model, noted = ClipClassifier(tiny_clip(), tokenizer), Noted()
    strategy = ClipStrategy(
        model=model,
        make_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0),
        training=Training(steps=12, batch_size=3, prompts=prompts),
        plugins=[FullPlugin(), noted],
    )
    space = LabelSpace.from_templates(["red", "green", "blue"], TEMPLATES)
    strategy.steps = 12
    strategy.train(experience(9, space), eval_streams=[])
    return model.eval(), noted.steps


@torch.no_grad()
def logits_of(model: ClipClassifier, images: torch.Tensor, templates: tuple[str, ...]) -> torch.Tensor:
    """Cosines with the mean of the templates' unit features, times the model's scale."""
    of_each = [
        model.text.encode_space(LabelSpace.from_templates(["red", "green", "blue"], [template]))
        for template in templates
    ]
    texts = F.normalize(torch.stack(of_each).mean(0), dim=-1)
    return model.clip.logit_scale.exp() * model.image_features(images) @ texts.mT


@pytest.mark.parametrize(("prompts", "templates"), [("first", TEMPLATES[:1]), ("ensemble", TEMPLATES)])
def test_the_first_template_or_the_mean_of_all_answers_every_step(tokenizer, prompts, templates):
    model, steps = steps_with(prompts, tokenizer)
    assert len(steps) == 12
    for images, logits in steps:
        torch.testing.assert_close(logits, logits_of(model, images, templates), atol=1e-4, rtol=1e-4)


def test_a_template_is_drawn_for_every_step(tokenizer):
    model, steps = steps_with("sample", tokenizer)
    found = set()
    for images, logits in steps:
        off = [float((logits - logits_of(model, images, (one,))).abs().max()) for one in TEMPLATES]
        assert min(off) < 1e-4 < sorted(off)[1]
        found.add(off.index(min(off)))
    assert found == {0, 1, 2}


@pytest.mark.parametrize(
    ("prompts", "read"),
    [("first", {TEMPLATES[:1]}), ("ensemble", {TEMPLATES}), ("sample", {(one,) for one in TEMPLATES})],
)
def test_what_is_replayed_is_answered_by_the_same_prompts(tokenizer, prompts, read):
    space = LabelSpace.from_templates(["red"], TEMPLATES)
    memory = ReplayPlugin(Memory(kind="replay", batch_size=4), seed=0)
    memory.remember(
        experience(4, replace(SPACE, class_names=("red",) * 3, prompts=space.prompts * 3)).parts[0]
    )
    model, asked = ClipClassifier(tiny_clip(), tokenizer), []
    model.register_forward_pre_hook(lambda module, args: asked.append(args[1][0].prompts[0]))
    strategy = ClipStrategy(
        model=model,
        make_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0),
        training=Training(steps=12, batch_size=3, prompts=prompts),
        plugins=[FullPlugin(), memory],
    )
    strategy.steps = 12
    strategy.train(experience(9), eval_streams=[])
    assert len(asked) == 12
    assert set(asked) == {tuple(one.replace("{}", "red") for one in texts) for texts in read}
