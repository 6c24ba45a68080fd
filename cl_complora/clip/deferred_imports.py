"""Libraries that another library imports and that nothing here uses: loaded when they are used, if ever.

open_clip imports timm, transformers where it is installed, and with torchvision torch's compiler, Avalanche
matplotlib, wandb, torchmetrics and with it much of SciPy, for models and metrics that most runs never see.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


@contextmanager
def deferred(*names: str) -> Iterator[None]:
    """Within, imports of these libraries give stand-ins, which load the real ones when they are used.

    Libraries that are loaded already, or are not installed, are left as they are.

    Args:
        names: of libraries or parts of them, as in ``import name``.
    """
    there = {n for n in names if n not in sys.modules and importlib.util.find_spec(n) is not None}
    finder = _Finder(there - sys.modules.keys())  # where a part is looked for, the whole is loaded
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for module in finder.made:
            module.__dict__["_open"] = False
            sys.modules.pop(module.__name__, None)
            # The import system made it an attribute of what it is a part of.
            whole, _, part = module.__name__.rpartition(".")
            if vars(sys.modules.get(whole, module)).get(part) is module:
                delattr(sys.modules[whole], part)


class _Finder(MetaPathFinder, Loader):
    def __init__(self, names: set[str]) -> None:
        self.names, self.made = names, []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A stand-in for what belongs to one of the libraries."""
        if not any(f"{fullname}.".startswith(f"{name}.") for name in self.names):
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """As the import system asks for it."""
        module = _DeferredModule(spec.name)
        self.made.append(module)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: that is what it is for."""


class _DeferredModule(ModuleType):
    """Stands in for a module; while imports are deferred its attributes are stand-ins as well."""

    _open = True

    def __getattr__(self, name: str) -> Any:
        # What the import system and ``inspect`` ask of any module.
        if name.startswith("__") and name != "__version__":
            raise AttributeError(name)
        return _Deferred(self.__name__, name) if self._open else _real(self.__name__, name)


class _Deferred:
    """Stands in for a class or function of a module that is not loaded yet."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return _real(self._module, self._name)(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_real(self._module, self._name), name)

    def __instancecheck__(self, instance: object) -> bool:
        # Of a class that nobody has loaded there is no instance.
        return self._module in sys.modules and isinstance(instance, _real(self._module, self._name))

    def __or__(self, other: object) -> Any:
        # ``Class | None`` in an annotation; nobody asks what is in it.
        return Any

    __ror__ = __or__

    def __mro_entries__(self, bases: tuple) -> tuple:
        return (_real(self._module, self._name),)


def _real(module: str, name: str) -> Any:
    found = sys.modules.get(module)
    if not isinstance(found, ModuleType) or isinstance(found, _DeferredModule):
        with _without_stand_ins():
            found = importlib.import_module(module)
    return getattr(found, name)


@contextmanager
def _without_stand_ins() -> Iterator[None]:
    """Within, imports are real, also where others are deferred meanwhile."""
    finders = [finder for finder in sys.meta_path if isinstance(finder, _Finder)]
    put_aside = {n: m for n, m in sys.modules.items() if isinstance(m, _DeferredModule)}
    for finder in finders:
        sys.meta_path.remove(finder)
    for name in put_aside:
        del sys.modules[name]
    try:
        yield
    finally:
        sys.meta_path[:0] = finders
        for name, module in put_aside.items():
            sys.modules.setdefault(name, module)
