"""Label spaces: the classes that images are told apart into, each with the texts that describe it."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..config.yaml_lines import shown

# No context of a text tower holds as many characters, and a tokeniser's time grows faster than a name.
MAX_NAME = 500


def name_fault(name: str) -> str | None:
    """What is wrong with a class name, or None: it becomes part of texts, files and tables of one line a
    row."""
    if not name.strip():
        return "a class name is empty"
    if len(name) > MAX_NAME:
        return f"the class name {shown(name)} has {len(name)} characters; at most {MAX_NAME} are taken"
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
        held = "a line break, another control character, or bytes that are not UTF-8"
        return f"the class name {shown(name)} holds {held}"
    return None


@dataclass(frozen=True)
class LabelSpace:
    """The classes that an image is classified into, each with its prompts.

    Attributes:
        class_names: names in label order.
        prompts: for every class its full texts (template filled in); classes of several data sets may have
            more or fewer.
    """

    class_names: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.class_names)

    @classmethod
    def from_templates(cls, class_names: Sequence[str], templates: Sequence[str]) -> LabelSpace:
        """Every class name filled into every template (``"a photo of a {}."``).

        Raises:
            ValueError: for a bare text or nothing in place of a list, for a name that is empty or stands
                twice, and for a template that does not hold ``{}`` once.
        """
        for argument, texts in (("class_names", class_names), ("templates", templates)):
            if isinstance(texts, str) or len(texts) == 0:
                raise ValueError(f"{argument}: must be a list of one text or more, got {texts!r}")
        known: set[str] = set()
        for name in class_names:
            if not name.strip() or name in known:
                problem = f"{name!r} stands twice" if name.strip() else "a class name is empty"
                raise ValueError(f"class_names: {problem}")
            known.add(name)
        for template in templates:
            if template.count("{}") != 1:
                raise ValueError(f"templates: {template!r} must hold {{}} once, where the class name goes")
        # Not str.format: a class name or template from a data file may hold braces of its own.
        prompts = tuple(tuple(template.replace("{}", name) for template in templates) for name in class_names)
        return cls(tuple(class_names), prompts)

    @classmethod
    def of_texts(cls, texts: Iterable[str]) -> LabelSpace:
        """Texts that stand for themselves, which may be the same twice."""
        names = tuple(texts)
        return cls(names, tuple((text,) for text in names))

    @property
    def templates(self) -> int:
        """Number of prompts per class, each class's own repeated where others have more: the least common
        multiple, with which every prompt keeps its share of a class."""
        return math.lcm(*{len(texts) for texts in self.prompts})

    @property
    def even(self) -> bool:
        """Whether all classes have as many prompts, so that none are repeated."""
        return len({len(texts) for texts in self.prompts}) <= 1

    def with_template(self, index: int) -> LabelSpace:
        """The same classes with their ``index``-th prompt only, counted from the first again after the
        last."""
        return LabelSpace(self.class_names, tuple((texts[index % len(texts)],) for texts in self.prompts))

    def evened(self) -> LabelSpace:
        """The same classes with :attr:`templates` prompts each; this space where they have as many."""
        if self.even:
            return self
        most = self.templates
        repeated = tuple(tuple(texts[i % len(texts)] for i in range(most)) for texts in self.prompts)
        return LabelSpace(self.class_names, repeated)

    def joined(self, other: LabelSpace) -> LabelSpace:
        """This space followed by the classes of ``other`` that are new, each with its own prompts.

        They are not made as many here: with the templates of ten well-known data sets that would be 408 for
        every class, and 449,208 texts where 6,652 differ.
        """
        new = [i for i, name in enumerate(other.class_names) if name not in self.class_names]
        names = self.class_names + tuple(other.class_names[i] for i in new)
        return LabelSpace(names, self.prompts + tuple(other.prompts[i] for i in new))

    def of(self, class_names: Sequence[str]) -> LabelSpace:
        """Some of its classes, in the order in which they are named."""
        prompts = dict(zip(self.class_names, self.prompts, strict=True))
        return LabelSpace(tuple(class_names), tuple(prompts[name] for name in class_names))
