"""A method from outside the package: a plugin class named in a strategy file."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from avalanche.training.plugins import SupervisedPlugin

from ..config.plugin_file import module_file, plugin_told, refuse_plugin
from ..config.strategy import Strategy
from ..errors import UserError
from .adapter import AdapterPlugin
from .checkpoint import StepState
from .regularisers import RegulariserPlugin
from .stock_plugins import stock_kind
from .task_state import CarryingPlugin, WrongAnswer

GROUP = "cl_complora.plugins"
# Lines of a traceback that are told at its beginning and at its end; between them it repeats itself.
_FIRST, _LAST = 12, 6
# What their code may raise; sys.exit would end a whole comparison without a word.
_THEIRS = (Exception, SystemExit)


def build_external(
    strategy: Strategy, adapter: AdapterPlugin, seed: int, folder: Path | None
) -> SupervisedPlugin:
    """The plugin that ``plugin:`` names, made with (settings, adapter, seed) like the package's own.

    ``module:Class`` is looked for as ``module.py`` beside the strategy file, then among the installed
    modules; a plain name among the entry points of the group ``cl_complora.plugins``.

    Args:
        strategy: has a ``plugin``.
        adapter, seed: as for the package's own plugins.
        folder: of the strategy file; None refuses.

    Raises:
        UserError: where the class is not there, is no plugin, or is derived from one of Avalanche's own.
    """
    name = plugin_told(strategy)
    if folder is None:
        refuse_plugin(strategy)
    module, colon, attribute = strategy.plugin.partition(":")
    try:
        source = _module(module, folder) if colon else None
        found = getattr(source, attribute, None) if colon else _entry_point(strategy.plugin)
    except _THEIRS as error:  # it is somebody's program, and may fail in any way
        raise UserError(f"{name}: cannot be loaded: {_told(error)}") from error
    if found is None:
        there = ", ".join(_plugins_of(source)) or "none"
        wanted = attribute or "class of an empty name"
        raise UserError(f"{name}: cannot be loaded: {module} has no {wanted}; its plugins: {there}")
    if not (isinstance(found, type) and issubclass(found, SupervisedPlugin)):
        raise UserError(f"{name}: must be a class derived from avalanche's SupervisedPlugin, got {found!r}")
    if kind := stock_kind(found):
        raise UserError(
            f"{name}: is derived from Avalanche's {kind}, which calls the model, the data and the optimiser"
            " in its own way; here label spaces, batches and optimisers belong to the task. Use regularisers:"
            " (ewc, lwf, l2-init, reference, orthogonal) or memory: of the strategy file, or derive from"
            " cl_complora.engine.regularisers.RegulariserPlugin"
        )
    _refuse_signatures(name, found)
    try:
        return found(strategy.settings, adapter, seed)
    except UserError:
        raise
    except _THEIRS as error:
        places = lines_of(error, found.__module__) or traceback.extract_tb(error.__traceback__)[-1:]
        made = f"{name}: cannot be made with (settings, adapter, seed)"
        raise _failed(made, error, places) from error


@contextmanager
def told_of_plugin(strategy: Strategy, plugin: SupervisedPlugin | None) -> Iterator[None]:
    """Around all that calls a plugin of the user's own: an error of its code is told with the lines from its
    file on, without those of whoever called it.

    Args:
        strategy: may have a ``plugin``.
        plugin: that one; None where it has none.

    Raises:
        UserError: naming plugin and hook, with the error itself as its cause.
    """
    try:
        yield
    except UserError:  # a sentence of the plugin's author
        raise
    except WrongAnswer as error:
        if strategy.plugin is None:
            raise
        raise UserError(f"{plugin_told(strategy)}: {error}") from error
    except _THEIRS as error:  # it is somebody's program, and may fail in any way
        places = lines_of(error, type(plugin).__module__) if strategy.plugin else []
        if not places:
            raise
        raise _failed(f"{plugin_told(strategy)}: {places[0].name} failed", error, places) from error


def _refuse_signatures(name: str, found: type[SupervisedPlugin]) -> None:
    """Refuse methods that cannot be called as those in whose place they stand; it would be told in the middle
    of a run, by lines of whoever calls them.

    Raises:
        UserError: naming the first of them.
    """
    known = (RegulariserPlugin, CarryingPlugin, SupervisedPlugin, StepState)
    bases = [one for one in known if issubclass(found, one)]
    for method, function in inspect.getmembers(found, inspect.isfunction):
        base = next((one for one in bases if hasattr(one, method)), None)
        if method.startswith("_") or base is None:
            continue
        parameters = inspect.signature(getattr(base, method)).parameters.values()
        named = [one for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
        wanted = [one.name for one in named if one.default is one.empty]
        has = inspect.signature(function)
        try:
            has.bind(*wanted)
        except TypeError:
            raise UserError(f"{name}: {method} must take ({', '.join(wanted)}), got {has}") from None


def lines_of(error: BaseException, module: str) -> list[traceback.FrameSummary]:
    """The part of an error's traceback from the first line of a module on; empty where it passed none."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__") != module:
        trace = trace.tb_next
    return list(traceback.extract_tb(trace))


def _failed(what: str, error: BaseException, places: list[traceback.FrameSummary]) -> UserError:
    lines = [f"at {place.filename}:{place.lineno}, in {place.name}: {place.line}" for place in places]
    if len(lines) > _FIRST + _LAST:
        left_out = f"… {len(lines) - _FIRST - _LAST} more …"
        lines = [*lines[:_FIRST], left_out, *lines[-_LAST:]]
    return UserError(f"{what}: {type(error).__name__}: {error}", tuple(lines))


def _told(error: BaseException) -> str:
    """What went wrong, and in which line of whose file."""
    if isinstance(error, ImportError | SyntaxError):
        return str(error)
    places = traceback.extract_tb(error.__traceback__)
    return f"{places[-1].filename}:{places[-1].lineno}: {type(error).__name__}: {error}"


def _module(name: str, folder: Path):
    file = module_file(name, folder)
    if file is None:
        return importlib.import_module(name)
    file = file.resolve()
    # A name of its own: two files called method.py in two folders are two modules, and so is a file that
    # was changed since.
    own = f"cl_complora_plugin_{abs(hash((str(file), file.read_bytes())))}_{name}"
    if own not in sys.modules:
        spec = importlib.util.spec_from_file_location(own, file)
        sys.modules[own] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(sys.modules[own])
        except BaseException:
            del sys.modules[own]  # or the next attempt would take the half of it that ran
            raise
    return sys.modules[own]


def _plugins_of(module: ModuleType | None) -> Iterator[str]:
    """Names of the plugin classes that a module, if any, defines itself."""
    for name, found in inspect.getmembers(module, inspect.isclass):
        if issubclass(found, SupervisedPlugin) and found.__module__ == module.__name__:
            yield name


def _entry_point(name: str):
    known = {point.name: point for point in entry_points(group=GROUP)}
    if name not in known:
        there = ", ".join(sorted(known)) or "none"
        raise ImportError(
            f"no entry point of this name in the group {GROUP} (there are {there}), and no module:Class"
        )
    return known[name].load()
