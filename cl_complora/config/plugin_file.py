"""A plugin of the user's own: whether it may run, and the file beside a strategy that holds it, from whose
content numbers follow."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import UserError
from .loading import Located
from .strategy import Strategy


def plugin_told(strategy: Strategy) -> str:
    """A plugin as messages call it."""
    return f"strategy '{strategy.name}': plugin: {strategy.plugin}"


def refuse_plugin(strategy: Strategy) -> None:
    """Refuse a strategy that names code of the user's own, who did not allow any: naming a class runs it.

    Raises:
        UserError: for one with a ``plugin``.
    """
    if strategy.plugin is not None:
        raise UserError(
            f"{plugin_told(strategy)}: this runs Python code that is no part of cl_complora; allow it with"
            " --allow-plugins"
        )


def plugin_file(strategy: Located[Strategy]) -> Path | None:
    """``module.py`` of ``plugin: module:Class``; None for an installed module and where there is none."""
    module, colon, _ = (strategy.value.plugin or "").partition(":")
    return module_file(module, strategy.folder) if colon else None


def module_file(module: str, folder: Path) -> Path | None:
    """A module's file in a folder; None for a part of a package, and where there is none."""
    file = folder / f"{module}.py"
    return file if "." not in module and file.is_file() else None


def plugin_code(strategy: Located[Strategy]) -> str | None:
    """SHA-256 of that file."""
    file = plugin_file(strategy)
    return None if file is None else hashlib.sha256(file.read_bytes()).hexdigest()


def made_with_plugin(strategy: Located[Strategy]) -> dict[str, str]:
    """What a run records of that file, beside what else it was made with."""
    code = plugin_code(strategy)
    return {} if code is None else {"plugin_sha256": code}
