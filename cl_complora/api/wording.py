"""Errors in the words of somebody who calls functions: no options of the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..errors import UserError, printable

# Phrases that say how something is done on the command line → how it is done here.
_PHRASES = {
    "a scenario is the first argument of 'cl-complora run'": "a scenario is the first argument of run()",
    "a strategy is given with --strategy": "a strategy is the second argument of run()",
    "is the first argument of 'cl-complora compare'": "is the first argument of compare()",
    "strategies are given with --strategies": "strategies are the second argument of compare()",
    "is for --sweep or --sweep-from": (
        "is for a sweep; leave it out, or give sweep as well (True, or a mapping like {'lr': [1e-4, 3e-4]})"
    ),
    "--sweep-from strategy": "sweep=True",
    "(--model, --model-config, --pretrained)": "(settings model.name, model.config, model.pretrained)",
    "model.pretrained (--pretrained) and model.config (--model-config)": "model.pretrained and model.config",
    "--model-config": "config",
    "the same command": "the same call",
    "--fresh": "fresh=True",
    "--elsewhere": "elsewhere=True",
    "--allow-plugins": "allow_plugins=True",
    "--set ": "settings: ",
    "--prompt": "prompts",
    "--range": "value_range",
    "--after chooses another": "after=… chooses another",
}
_OPTION = re.compile(r"(?<![\w-])--([a-z]+(?:-[a-z]+)*)")


@contextmanager
def callers_words() -> Iterator[None]:
    """Within, a :class:`UserError` names arguments where the command line would name options."""
    try:
        yield
    except UserError as error:
        first, *more = map(reworded, error.messages)
        raise UserError(first, tuple(more)) from error.__cause__


def reworded(message: str) -> str:
    """``--sweep-seeds 0,0: …`` → ``sweep_seeds 0,0: …``, and what else differs."""
    if message.startswith("-o "):  # elsewhere it stands in commands
        message = f"output {message.removeprefix('-o ')}"
    for phrase, here in _PHRASES.items():
        message = message.replace(phrase, here)
    return _OPTION.sub(lambda found: found[1].replace("-", "_"), message)


def overrides_of(settings: str | Sequence[str] | Mapping[str, Any] | None) -> list[str]:
    """Settings as ``key.path=value`` texts that say in messages how they were given.

    Args:
        settings: a mapping of key paths (or of sections) to values, or such texts.

    Raises:
        UserError: for a value that no YAML file could hold, and for what is neither.
    """
    from ..config.overrides import OfOption, as_overrides

    if settings is None:
        return []
    if not isinstance(settings, (str, Sequence, Mapping)) or isinstance(settings, bytes):
        raise UserError(
            f"settings: must be a mapping such as {{'training.steps': 40}}, got {type(settings).__name__}"
        )
    texts = as_overrides(settings)
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"settings: must be a mapping, or texts of the form key.path=value, got {settings!r}")
    if not isinstance(settings, Mapping):
        return [OfOption(text, f"settings {printable(text)!r}") for text in texts]
    return [OfOption(text, f"settings[{text.partition('=')[0]!r}]") for text in texts]
