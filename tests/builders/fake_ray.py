"""Stands in for Ray where it is not installed: nodes of any size, whose tasks are computed in this process,
with what goes in and comes out pickled as in an object store."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any

import torch


class RayError(Exception):
    """Of Ray itself: a lost node, say."""


class RayTaskError(RayError):
    """Of what a task computed."""


class FakeRay(ModuleType):
    """The part of ``ray`` that is used here.

    Args:
        nodes: resources of each.

    Attributes:
        begun: options of every task, in order.
        cancelled: options of those that were called off.
        lose: asked with the task's place whether its node is lost.
        busy: asked with the task's options whether no node is free for it.
        running: whether it was initialised.
    """

    __version__ = "0.0"

    def __init__(self, nodes: Sequence[Mapping[str, float]]) -> None:
        super().__init__("ray")
        self._nodes, self.running = nodes, False
        self.begun: list[dict[str, Any]] = []
        self.cancelled: list[dict[str, Any]] = []
        self.lose: Callable[[int], bool] = lambda place: False
        self.busy: Callable[[dict[str, Any]], bool] = lambda options: False

    def is_initialized(self) -> bool:
        return self.running

    def init(self, address: str, **options: Any) -> None:
        self.running = True

    def shutdown(self) -> None:
        self.running = False

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "NodeID": str(i), "Resources": dict(n)} for i, n in enumerate(self._nodes)]

    def remote(self, function: Callable) -> _Remote:
        return _Remote(self, function, {})

    def wait(
        self, tasks: Sequence[_Task], num_returns: int, timeout: float | None = None
    ) -> tuple[list[_Task], list[_Task]]:
        """Those that do not wait for a busy node, the last ones first."""
        free = [task for task in tasks if not self.busy(task.options)]
        ready = free[-num_returns:]
        assert timeout is not None or len(ready) == num_returns, "this would wait for ever"
        for task in ready:
            with suppress(Exception):
                task.result()
        return ready, [task for task in tasks if task not in ready]

    def get(self, task: _Task) -> Any:
        return task.result()

    def cancel(self, task: _Task, force: bool) -> None:
        self.cancelled.append(task.options)


class _Remote:
    def __init__(self, ray: FakeRay, function: Callable, options: dict[str, Any]) -> None:
        self._ray, self._function, self._options = ray, function, options

    def options(self, **options: Any) -> _Remote:
        return _Remote(self._ray, self._function, {**self._options, **options})

    def remote(self, *arguments: Any) -> _Task:
        self._ray.begun.append(self._options)
        place = len(self._ray.begun) - 1
        return _Task(self._ray, place, self._function, pickle.dumps(arguments), self._options)


class _Task:
    def __init__(
        self, ray: FakeRay, place: int, function: Callable, arguments: bytes, options: dict[str, Any]
    ) -> None:
        self._ray, self._place, self._function, self._arguments = ray, place, function, arguments
        self.options = options

    def result(self) -> Any:
        if not hasattr(self, "_found"):
            try:
                self._found, self._error = self._computed(), None
            except Exception as error:
                self._found, self._error = None, error
        if self._error is not None:
            raise self._error
        return self._found

    def _computed(self) -> Any:
        if self._ray.lose(self._place):
            raise RayError("the node died\nwith many lines")
        threads, folder = torch.get_num_threads(), os.getcwd()
        try:
            return pickle.loads(pickle.dumps(self._function(*pickle.loads(self._arguments))))
        finally:
            torch.set_num_threads(threads)
            os.chdir(folder)


def install(monkeypatch: Any, nodes: Sequence[Mapping[str, float]]) -> FakeRay:
    """Make ``import ray`` give a cluster of such nodes, for one test."""
    ray = FakeRay([{"object_store_memory": 1e8, **node} for node in nodes])
    exceptions, util = ModuleType("ray.exceptions"), ModuleType("ray.util")
    exceptions.RayError, exceptions.RayTaskError = RayError, RayTaskError
    scheduling = ModuleType("ray.util.scheduling_strategies")
    scheduling.NodeAffinitySchedulingStrategy = lambda node, soft: node
    parts = {"ray": ray, "ray.exceptions": exceptions, "ray.util": util, scheduling.__name__: scheduling}
    for name, module in parts.items():
        monkeypatch.setitem(sys.modules, name, module)
    return ray
