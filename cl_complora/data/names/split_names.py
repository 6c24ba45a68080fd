"""Folders (and cells of tables) that are called like the splits of a data set, in any of the usual
spellings."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

_TRAIN, _TEST, _VALIDATION, _UNLABELLED = "train", "test", "validation", "unlabelled"
# English, German, French, Spanish, Italian, Portuguese, Russian, Chinese, Japanese and Korean.
_SPELLINGS = {
    _TRAIN: "train training trainval trn tr trainings trainieren entrainement apprentissage entrenamiento"
    " addestramento treino treinamento обучение 训练 訓練 学習 훈련 학습",
    _TEST: "test testing tst eval evaluation holdout heldout tests testen prueba pruebas prova teste"
    " тест 测试 測試 テスト 테스트",
    _VALIDATION: "val valid validation validate dev devel development validierung validacion validazione"
    " validacao валидация 验证 驗證 検証 검증",
    _UNLABELLED: "pred predict prediction unlabelled unlabeled",
}


def _plain(name: str) -> str:
    """Letters and digits alone, without case and accents."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKD", name.casefold()))


# What stands before or after it: ``seg_train``, ``train_images``, ``Training Set``, ``images.test``,
# ``01_train``, ``train_v2``.
_AROUND = (
    "(?:set|sets|data|dataset|daten|images?|imgs?|pics?|pictures?|split|folder|seg"
    f"|{'|'.join(map(_plain, ('集', 'データ')))})?"
)
_ROLES = {
    role: re.compile(rf"\d{{0,2}}{_AROUND}(?:{'|'.join(map(_plain, words.split()))}){_AROUND}(?:v?\d)?")
    for role, words in _SPELLINGS.items()
}


def role_of(name: str) -> str | None:
    """``train``, ``test``, ``validation`` or ``unlabelled`` where a folder is called like a split, else
    None."""
    return next((role for role, pattern in _ROLES.items() if pattern.fullmatch(_plain(name))), None)


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


def _unshared(names: list[str]) -> dict[str, str]:
    """Name → what it does not share with all others before or after a separator (``my-train``)."""
    before = re.match(r".*[\W_]|", os.path.commonprefix(names)).group()
    after = re.match(r".*[\W_]|", os.path.commonprefix([name[::-1] for name in names])).group()[::-1]
    return {name: name.removeprefix(before).removesuffix(after) for name in names}


def roles_of(names: Iterable[str]) -> Roles:
    """Sort folder names by their role; what all of them begin or end with says nothing where the rest names
    a training part and another."""
    names = sorted(names)
    found = {name: role_of(name) for name in names}
    if len(names) > 1 and not any(found.values()):
        apart = {name: role_of(rest) for name, rest in _unshared(names).items()}
        if all(apart.values()) and _TRAIN in apart.values() and len({*apart.values()}) > 1:
            found = apart
    roles = Roles()
    for name in names:
        getattr(roles, found[name] or "others").append(name)
    return roles
