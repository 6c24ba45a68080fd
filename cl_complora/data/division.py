"""Test pictures set apart where a source names none: the same ones for every run and seed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

# What a source answers with all of its pictures where it is divided here and a user may want them undivided.
UNDIVIDED = "undivided"
# Where a source of a kind has its test images from.
NO_TESTS = {
    "manifest": "; rows for it say test in the column split, and without that column test_fraction sets them "
    "apart",
    "folder": "; they lie in test/<class>/…, and without such a folder test_fraction sets them apart",
    "coop": "; the list 'test' of its file is empty",
    "parquet": "; test: names its files, and without it test_fraction sets them apart",
    "huggingface": "; splits: names its split, and split: one alone, of which test_fraction is set apart",
}


def divided(keys: Sequence[str], name: str, fraction: float) -> tuple[list[str], list[str]]:
    """Training and test pictures of a class, each sorted: one fixed division for every run and seed, so that
    no test picture is ever trained on.

    Args:
        keys: of all pictures of the class.
        name: of the class.
        fraction: share that is set apart for the test.
    """
    shuffled = list(keys)
    # Bytes draw what their text would; names that are no text are refused later, and by name.
    random.Random(f"division/{name}".encode("utf-8", "surrogatepass")).shuffle(shuffled)
    cut = len(shuffled) - round(len(shuffled) * fraction)
    return sorted(shuffled[:cut]), sorted(shuffled[cut:])


def set_apart(pictures: Iterable[tuple[str, str]], fraction: float) -> set[str]:
    """Keys of a share of every class, which are its tests where nobody says which are.

    Args:
        pictures: class and key of each.
        fraction: as of :func:`divided`.
    """
    of_class: dict[str, list[str]] = {}
    for name, key in pictures:
        of_class.setdefault(name, []).append(key)
    return {key for name, keys in of_class.items() for key in divided(sorted(keys), name, fraction)[1]}
