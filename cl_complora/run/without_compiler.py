"""torch's optimisers without torch's compiler.

``Optimizer.__init__`` and every ``step`` import ``torch._dynamo``, some 900 modules and two seconds of a
run's start, to tell it what it must not compile (``disable``, ``graph_break``). Where nothing is compiled
there is nobody to tell.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch

NAME = "torch._dynamo"
# Where torch remembers of a function what the compiler made of it (``torch._compile``).
_REMEMBERED = "__dynamo_disable"


@contextmanager
def compiler_left_out() -> Iterator[None]:
    """Within, a stand-in answers for the compiler until somebody asks for more of it, who gets the real one.

    A compiler that is loaded already is left as it is.
    """
    if NAME in sys.modules:
        yield
        return
    absent, finder = _Absent(), _Loaded()
    sys.modules[NAME] = torch._dynamo = absent
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        absent.leave()


class _Absent(ModuleType):
    """Stands in for ``torch._dynamo``."""

    def __init__(self) -> None:
        super().__init__(NAME)
        self._passed: list[Callable] = []

    def graph_break(self, msg: str = "") -> None:
        """Nothing: no graph is being made."""

    def disable(self, fn: Callable | None = None, *args: Any, **more: Any) -> Callable:
        """The function itself, until the real one is asked."""
        if fn is None:
            return self._real().disable(fn, *args, **more)
        self._passed.append(fn)
        return fn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)

    def _real(self) -> ModuleType:
        self.leave()
        return importlib.import_module(NAME)

    def leave(self) -> None:
        """Be gone, with what torch's own functions remember of it."""
        for fn in self._passed:
            with suppress(AttributeError, TypeError):  # a class, or a function of C
                vars(fn).pop(_REMEMBERED, None)
        self._passed.clear()
        if sys.modules.get(NAME) is self:
            del sys.modules[NAME], torch._dynamo


class _Loaded(MetaPathFinder, Loader):
    """Finds the parts that came with the compiler: who imports a part first gets the whole on the way, after
    which the import system would load the part a second time."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A part that is there already."""
        there = fullname.startswith(f"{NAME}.") and fullname in sys.modules
        return ModuleSpec(fullname, self) if there else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """As the import system asks for it."""
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: that is done."""
