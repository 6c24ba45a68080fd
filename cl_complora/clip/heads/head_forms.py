"""Heads by the name of their form, and as tensors that hold everything of them."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import Tensor

from ...files import parse_json
from .head import Head
from .key_cache import CacheHead
from .linear import AffineHead, MeanHead, PairedHead, RowHead
from .mask import MaskHead
from .regression import KernelHead, RandomFeatureHead

FORMS: dict[str, type[Head]] = {
    form.kind: form
    for form in (
        *(AffineHead, PairedHead, MeanHead, RowHead),
        *(RandomFeatureHead, KernelHead, CacheHead, MaskHead),
    )
}

_ABOUT = "about"


def to_tensors(head: Head) -> dict[str, Tensor]:
    """Everything of a head; what is no tensor stands as JSON in ``about``, within the file's checksum."""
    about = {"kind": head.kind, "classes": list(head.classes), "numbers": head.numbers()}
    text = json.dumps(about, ensure_ascii=False, sort_keys=True).encode("utf-8")
    tensors = {name: value.detach().cpu().contiguous() for name, value in head.tensors().items()}
    return tensors | {_ABOUT: torch.frombuffer(bytearray(text), dtype=torch.uint8)}


def from_tensors(tensors: Mapping[str, Tensor]) -> Head:
    """Inverse of :func:`to_tensors`.

    Raises:
        ValueError: for what is no head.
    """
    try:
        about = parse_json(bytes(tensors[_ABOUT].tolist()), own=True)
        classes, numbers = tuple(about["classes"]), dict(about["numbers"])
        values = {name: value for name, value in tensors.items() if name != _ABOUT}
        head = FORMS[about["kind"]](classes=classes, **values, **numbers)
        named = (
            classes and all(isinstance(name, str) for name in classes) and len(set(classes)) == len(classes)
        )
        if not named or not all(isinstance(value, float) for value in numbers.values()):
            raise ValueError("names no classes, or one twice")
        head.check()
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"holds no head ({' '.join(str(error).split())[:100]})") from None
    return head
