"""cl_complora: continual few-shot learning of vision-language models, with Comp-LoRA for each experience.

import cl_complora

learned = cl_complora.run("embedded", "complora", seed=0, settings={"training.steps": 40}, progress=True)
learned.matrix                   # accuracy after every task on every task, labelled
learned.summary()["last"]        # percent; also forgetting, retention with its interval, …
learned.plot().savefig("curves.png")

cl_complora.compare("embedded", ["zeroshot", "lora", "complora"], seeds=[0, 1, 2]).plot()
cl_complora.load_run("runs/embedded/complora/seed0").to_frame()
learned.predict("new pictures/", top=3)
learned.export("mine.safetensors")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .data import kinds
from .errors import UserError
from .version import __version__

# Two functions are called as the rooms that they lead to. A package's name is set on its parent once, when it
# is first imported, so that both rooms are (they import nothing) before the functions take the names.
for _room in ("run", "compare"):
    import_module(f"{__name__}.{_room}")

from .api.comparing import ComparedMethods, compare, load_comparison  # noqa: E402
from .api.opening import open_model  # noqa: E402
from .api.run_results import Run  # noqa: E402
from .api.running import load_run, run  # noqa: E402

if TYPE_CHECKING:
    from .clip.classifier import ClipClassifier
    from .data.labels import LabelSpace
    from .engine.updates.complora import CompLoRAPlugin

__all__ = [
    "ClipClassifier",
    "CompLoRAPlugin",
    "ComparedMethods",
    "LabelSpace",
    "Run",
    "UserError",
    "__version__",
    "compare",
    "load_comparison",
    "load_run",
    "open_model",
    "run",
    "run_stream",
]

# What run was called before 0.2; it stays.
run_stream = run

# The room of the embedded world lies above data/, which therefore cannot name it.
kinds.register("world", "cl_complora.world.source:open_world")

# What a strategy of Avalanche's own needs; it loads torch, so that it is imported when it is first named.
_WITH_TORCH = {
    "ClipClassifier": "clip.classifier",
    "CompLoRAPlugin": "engine.updates.complora",
    "LabelSpace": "data.labels",
}


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WITH_TORCH[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WITH_TORCH})
