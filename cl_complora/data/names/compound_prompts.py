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
    texts = tuple(template.replace("{}", f"{class_names[a]} and {_a(class_names[b])}") for a, b in both)
    of: list[list[int]] = [[] for _ in class_names]
    for place, pair in enumerate(both):
        for label in pair:
            of[label].append(place)
    return CompoundPrompts(texts, tuple(map(tuple, of)))


def matched(class_names: Sequence[str], texts: Sequence[str]) -> CompoundPrompts:
    """Texts of the user's own, by the classes that they name."""
    named = [set(classes_in(text, class_names)) for text in texts]
    of = tuple(tuple(place for place, names in enumerate(named) if name in names) for name in class_names)
    return CompoundPrompts(tuple(texts), of)


def classes_in(text: str, class_names: Sequence[str]) -> list[str]:
    """The classes that a text names, in the singular or plural, as whole words.

    Lower case, letters and digits alone; the longest name is looked for first and its words are taken out, so
    that a wine glass is no glass. A name without either is named by no text.
    """
    found, rest = [], _words(text)
    names = [(name, words) for name in class_names if (words := _words(name))]
    for name, words in sorted(names, key=lambda one: -len(one[1])):
        forms = "|".join(map(re.escape, _forms(words)))
        rest, count = re.subn(rf"\b(?:{forms})\b", "|", rest)
        if count:
            found.append(name)
    return found


def _words(text: str) -> str:
    """Lower case, with one space for everything that is neither letter nor digit: an A320 is no 'a'."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def _forms(name: str) -> list[str]:
    """Singular and plural of a name, whose last word changes; the longest first."""
    before, _, last = name.rpartition(" ")
    forms = [last, *_IRREGULAR.get(last, ()), last + "s", last + "es"]
    if re.search(r"[^aeiou]y$", last):
        forms.append(last[:-1] + "ies")
    return sorted({f"{before} {form}".strip() for form in forms}, key=lambda form: (-len(form), form))


def _a(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
