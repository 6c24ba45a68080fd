"""The file beside a strategy that holds its plugin, and its content: numbers follow from both."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .loading import Located
from .strategy import Strategy


def plugin_file(strategy: Located[Strategy]) -> Path | None:
    """``module.py`` of ``plugin: module:Class``; None for an installed module and where there is none."""
    module, colon, _ = (strategy.value.plugin or "").partition(":")
    file = strategy.folder / f"{module}.py"
    return file if colon and file.is_file() else None


def plugin_code(strategy: Located[Strategy]) -> str | None:
    """SHA-256 of that file."""
    file = plugin_file(strategy)
    return None if file is None else hashlib.sha256(file.read_bytes()).hexdigest()
