"""cl_complora: continual few-shot learning of vision-language models, with Comp-LoRA for each experience.

import cl_complora
result = cl_complora.run_stream("embedded", "complora", seed=0)
result.results["last"], result.results["retention"]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .data import kinds
from .errors import UserError
from .version import __version__

if TYPE_CHECKING:
    from .progress import Progress
    from .run.stream import RunResult

__all__ = ["UserError", "__version__", "run_stream"]

# The room of the embedded world lies above data/, which therefore cannot name it.
kinds.register("world", "cl_complora.world.source:open_world")


def run_stream(
    scenario: str | Path = "embedded",
    strategy: str | Path = "complora",
    seed: int = 0,
    settings: Sequence[str] | Mapping[str, Any] = (),
    progress: Progress | bool | None = None,
    **options: Any,
) -> RunResult:
    """Run a scenario with a strategy, both by shipped name or YAML path.

    Args:
        scenario, strategy: names (``cl-complora list``) or paths.
        seed: of shots, order, initialisation and augmentation.
        settings: ``key.path=value`` changes, as ``--set`` on the command line; or a mapping of key paths
            (or of sections) to values.
        progress: told what happens; True shows it as the command line does.
        **options: ``out``, ``device``, ``fresh`` and others of :func:`cl_complora.run.stream.run`.

    Returns:
        The finished run: ``.results`` (content of results.json) and ``.folder``.

    Raises:
        UserError: for input that cannot work.
    """
    from .config import load_scenario, load_strategy
    from .config.loading import as_overrides, split_overrides

    for_scenario, for_strategy = split_overrides(as_overrides(settings))
    located = load_scenario(_named(scenario, "scenario"), for_scenario)
    chosen = load_strategy(_named(strategy, "strategy"), for_strategy)
    if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise UserError(f"seed: must be a whole number from 0 to {2**32 - 1}, got {seed!r}")
    if "out" in options:
        options["out"] = Path(options["out"])

    from .run.stream import run

    if progress is True:
        from rich.console import Console

        from .progress import display

        with display(Console()) as shown:
            return run(located, chosen, int(seed), progress=shown, **options)
    return run(located, chosen, int(seed), progress=progress or None, **options)


def _named(given: str | Path, kind: str) -> str:
    """A name as it is; a path so that it cannot be taken for a name."""
    if isinstance(given, str):
        return given
    if not isinstance(given, PathLike):
        raise UserError(f"{kind}: must be a name or a path, got {type(given).__name__}")
    path = fspath(given)
    return path if path.endswith((".yaml", ".yml")) or Path(path).parent != Path(".") else f"./{path}"
