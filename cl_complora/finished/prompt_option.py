"""Templates that a user gives with ``--prompt``."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import UserError


def check_prompts(prompts: Iterable[str]) -> None:
    """Refuse a template that is none.

    Raises:
        UserError: for one without a place for the class name, or with several.
    """
    for template in prompts:
        if template.count("{}") != 1:
            raise UserError(f"--prompt {template!r}: must hold {{}} once, where the class name goes")
