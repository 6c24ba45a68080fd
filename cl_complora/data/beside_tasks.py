"""What is planned beside the tasks: sets for zero-shot classification, and the reference set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..config.loading import Located
from ..config.scenario import DEFAULT_PROMPTS, ReferenceSet, Scenario, ZeroShotSet
from ..errors import UserError
from .class_pools import by_class, spread
from .division import NO_TESTS, UNDIVIDED
from .images.pictures import Pictures
from .items import Item, Source, items_at
from .plans import Plan

# No task can have this name: names begin with a letter or digit.
REFERENCE = "_reference"


def plan_zero_shot(
    located: Located[Scenario], entry: ZeroShotSet, source: Source, seed: int, path: tuple
) -> Plan | None:
    """The images of a set for zero-shot classification; where settings are chosen, others than its tests,
    and None where it has none.

    Raises:
        UserError: where it has no test images.
    """
    every = range(len(source.class_names))
    test = spread(by_class(items_at(located, path, source, "test"), every), entry.images)
    if not test:
        hint = NO_TESTS.get(entry.source.kind, "")
        problem = f"zero-shot set '{entry.name}' has no test images{hint}"
        raise UserError(located.fault((*path, "source"), problem))
    if located.value.measure == "validation":
        # What a hyper-parameter is chosen by must not be what the chosen one is reported on, nor be read
        # with the range of its values.
        read_by = getattr(source, "source", source)
        if isinstance(read_by, Pictures):
            read_by.unasked |= {item.key for item in test}
        test = _not_for_testing(located, path, source, test)
        if not test:
            return None
    return _only_test(located, entry, source, entry.name, test)


def _not_for_testing(
    located: Located[Scenario], path: tuple, source: Source, test: Sequence[Item]
) -> list[Item]:
    """As many images as the test has, from the training split or else from what the test leaves over."""
    pool = items_at(located, path, source, "train")
    if not pool:
        taken = {item.key for item in test}
        pool = [item for item in items_at(located, path, source, "test") if item.key not in taken]
    return spread(by_class(pool, range(len(source.class_names))), len(test)) if pool else []


_NO_REFERENCE = (
    "the reference set has no training images that nothing else is measured on; images: N of a zero-shot set"
    " of the same source leaves some"
)


def measured(plans: Iterable[Sequence[Plan]]) -> set[str]:
    """Images that something is measured on, or chosen by, as any source knows them."""
    return {
        image
        for made in plans
        for one in made
        for image in one.source.identities([*one.test, *getattr(one, "validation", ())])
    }


def plan_reference(
    located: Located[Scenario], entry: ReferenceSet, source: Source, path: tuple, measured: set[str]
) -> Plan:
    """The images of a reference set, none of which is among ``measured``.

    Raises:
        UserError: where none is left.
    """
    # A source without splits of its own gives all that it has, but what else is measured on it.
    pool = items_at(located, path, source, UNDIVIDED) or items_at(located, path, source, "train")
    known = source.identities(pool)
    pool = [item for item, image in zip(pool, known, strict=True) if image not in measured]
    images = spread(by_class(pool, range(len(source.class_names))), entry.images)
    if not images:
        raise UserError(located.fault((*path, "source"), _NO_REFERENCE))
    return _only_test(located, entry, source, REFERENCE, images)


def _only_test(
    located: Located[Scenario],
    entry: ZeroShotSet | ReferenceSet,
    source: Source,
    name: str,
    test: Sequence[Item],
) -> Plan:
    return Plan(
        name=name,
        class_names=tuple(source.class_names),
        prompts=tuple(_ensemble(entry.prompts) or own_prompts(located.value, source)),
        train=(),
        validation=(),
        test=tuple(test),
        shots=0,
        augment=located.value.augment,
        source=source,
    )


def _ensemble(prompts: Sequence[str] | str | None) -> Sequence[str] | None:
    if not isinstance(prompts, str):
        return prompts
    from open_clip import zero_shot_metadata

    named = {"imagenet-80": "OPENAI_IMAGENET_TEMPLATES", "imagenet-7": "SIMPLE_IMAGENET_TEMPLATES"}
    return [template("{}") for template in getattr(zero_shot_metadata, named[prompts])]


def own_prompts(scenario: Scenario, source: Source) -> Sequence[str]:
    """Prompts of a task or set that names none."""
    # A source that comes with prompts knows its images better than a default that nobody wrote; one that
    # somebody wrote stands at the source's own entry as well (config.scenario).
    return scenario.prompts if scenario.prompts != DEFAULT_PROMPTS or not source.prompts else source.prompts
