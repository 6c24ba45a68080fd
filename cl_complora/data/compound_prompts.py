"""Prompts that name several classes, and which classes a text names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

# Plurals that no ending makes.
_IRREGULAR = {
    "person": ("people", "persons"),
    "man": ("men",),
    "woman": ("women",),
    "child": ("children",),
    "mouse": ("mice",),
    "goose": ("geese",),
    "foot": ("feet",),
    "tooth": ("teeth",),
    "ox": ("oxen",),
    "sheep": ("sheep",),
    "deer": ("deer",),
    "fish": ("fish", "fishes"),
    "knife": ("knives",),
    "wife": ("wives",),
    "life": ("lives",),
    "leaf": ("leaves",),
    "loaf": ("loaves",),
    "half": ("halves",),
    "shelf": ("shelves",),
    "scarf": ("scarves",),
    "wolf": ("wolves",),
    "calf": ("calves",),
    "thief": ("thieves",),
}


@dataclass(frozen=True)
class CompoundPrompts:
    """Texts that name classes together.

    Attributes:
        texts: P texts.
        of: of every class, the places of the texts that name it.
    """

    texts: tuple[str, ...]
    of: tuple[tuple[int, ...], ...]

    @property
    def most(self) -> int:
        """The most texts of a class."""
        return max(map(len, self.of), default=0)


def pairs(class_names: Sequence[str], template: str) -> CompoundPrompts:
    """Every two classes in one text, such as ``a photo of a cat and a dog.``

    Args:
        class_names: K names.
        template: with ``{}`` where ``cat and a dog`` goes.
    """
    both = list(itertools.combinations(range(len(class_names)), 2))
    texts = tuple(template.format(f"{class_names[a]} and {_a(class_names[b])}") for a, b in both)
    of = tuple(
        tuple(place for place, pair in enumerate(both) if label in pair) for label in range(len(class_names))
    )
    return CompoundPrompts(texts, of)


def matched(class_names: Sequence[str], texts: Sequence[str]) -> CompoundPrompts:
    """Texts of the user's own, by the classes that they name."""
    named = [set(classes_in(text, class_names)) for text in texts]
    of = tuple(tuple(place for place, names in enumerate(named) if name in names) for name in class_names)
    return CompoundPrompts(tuple(texts), of)


def classes_in(text: str, class_names: Sequence[str]) -> list[str]:
    """The classes that a text names, in the singular or plural, as whole words.

    Lower case, letters alone; the longest name is looked for first and its words are taken out, so that a
    wine glass is no glass.
    """
    found, rest = [], _letters(text)
    for name in sorted(class_names, key=lambda name: -len(_letters(name))):
        forms = "|".join(map(re.escape, _forms(_letters(name))))
        rest, count = re.subn(rf"\b(?:{forms})\b", "|", rest)
        if count:
            found.append(name)
    return found


def _letters(text: str) -> str:
    """Lower case, with one space for everything that is no letter."""
    return " ".join(re.findall(r"[^\W\d_]+", text.lower()))


def _forms(name: str) -> list[str]:
    """Singular and plural of a name, whose last word changes; the longest first."""
    before, _, last = name.rpartition(" ")
    forms = [last, *_IRREGULAR.get(last, ()), last + "s", last + "es"]
    if re.search(r"[^aeiou]y$", last):
        forms.append(last[:-1] + "ies")
    return sorted({f"{before} {form}".strip() for form in forms}, key=lambda form: (-len(form), form))


def _a(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
