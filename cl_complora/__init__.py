"""cl_complora: continual few-shot learning of vision-language models, with Comp-LoRA for each experience.

import cl_complora
result = cl_complora.run_stream("embedded", "complora", seed=0)
result.results["last"], result.results["retention"]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .data import kinds
from .errors import UserError
from .version import __version__

if TYPE_CHECKING:
    from .run.stream import RunResult

__all__ = ["UserError", "__version__", "run_stream"]

# The room of the embedded world lies above data/, which therefore cannot name it.
kinds.register("world", "cl_complora.world.source:open_world")


def run_stream(
    scenario: str = "embedded",
    strategy: str = "complora",
    seed: int = 0,
    settings: Sequence[str] = (),
    **options: Any,
) -> RunResult:
    """Run a scenario with a strategy, both by shipped name or YAML path.

    Args:
        scenario, strategy: names (``cl-complora list``) or paths.
        seed: of shots, order, initialisation and augmentation.
        settings: ``key.path=value`` changes, as ``--set`` on the command line.
        **options: ``out``, ``device``, ``fresh``, ``progress`` of :func:`cl_complora.run.stream.run`.

    Returns:
        The finished run: ``.results`` (content of results.json) and ``.folder``.

    Raises:
        UserError: for input that cannot work.
    """
    from .config import load_scenario, load_strategy
    from .config.loading import split_overrides
    from .run.stream import run

    for_scenario, for_strategy = split_overrides(settings)
    if "out" in options:
        options["out"] = Path(options["out"])
    return run(load_scenario(scenario, for_scenario), load_strategy(strategy, for_strategy), seed, **options)
