"""Folders (and cells of tables) that are called like the splits of a data set, in any of the usual
spellings."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_TRAIN, _TEST, _VALIDATION, _UNLABELLED = "train", "test", "validation", "unlabelled"
_SPELLINGS = {
    _TRAIN: "train training trainval trn tr",
    _TEST: "test testing tst eval evaluation holdout heldout",
    _VALIDATION: "val valid validation validate dev devel development",
    _UNLABELLED: "pred predict prediction unlabelled unlabeled",
}
# What stands before or after it: ``seg_train``, ``train_images``, ``Training Set``, ``images.test``.
_AROUND = r"(?:set|sets|data|dataset|images?|imgs?|pics?|pictures?|split|folder|seg)?"
_ROLES = {
    role: re.compile(rf"{_AROUND}(?:{'|'.join(words.split())}){_AROUND}\d?")
    for role, words in _SPELLINGS.items()
}


def role_of(name: str) -> str | None:
    """``train``, ``test``, ``validation`` or ``unlabelled`` where a folder is called like a split, else
    None."""
    plain = re.sub(r"[\W_]+", "", name.casefold())
    return next((role for role, pattern in _ROLES.items() if pattern.fullmatch(plain)), None)


@dataclass(frozen=True)
class Roles:
    """Folders by what they are called.

    Attributes:
        train, test, validation, unlabelled: those called like a split.
        others: the rest.
    """

    train: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    validation: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    @property
    def splits(self) -> list[str]:
        """All that are called like a split with labels."""
        return [*self.train, *self.test, *self.validation]


def roles_of(names: Iterable[str]) -> Roles:
    """Sort folder names by their role."""
    roles = Roles()
    for name in sorted(names):
        getattr(roles, role_of(name) or "others").append(name)
    return roles
