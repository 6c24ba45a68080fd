"""Going on inside a task: everything that changes from step to step, written now and then and given back to
the bit."""

from __future__ import annotations

import hashlib
import math
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from avalanche.training.plugins import SupervisedPlugin
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim import Optimizer

from ..data.tasks import TaskData
from ..files import open_file, write_bytes
from ..lowrank import LowRankBlock
from ..store.folder import RunDir
from .task_state import tensors_of

# A save may take this share of the time, so that a large model is saved less often.
SHARE = 0.05


# States within a task that are kept: the newest, and one more in case that is damaged.
KEPT = 2
# Steps between two looks at the loss on a GPU.
LOOK = 10


class Diverged(Exception):
    """The loss is no number any more.

    Args:
        step, steps: at which step of how many.
        rates: learning rates of that step.
    """

    def __init__(self, step: int, steps: int, rates: Sequence[float]) -> None:
        super().__init__(
            f"at step {step} of {steps}, learning rate {' and '.join(f'{rate:.3g}' for rate in rates)}"
        )


class StepState(ABC):
    """Something that changes from step to step within an experience.

    A plugin of the user's own that does must be one, or runs with it can only go on after whole tasks.
    """

    @abstractmethod
    def step_state(self) -> dict[str, Tensor]:
        """All of it."""

    @abstractmethod
    def load_step_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Inverse of :meth:`step_state`, called after ``before_training_exp`` of every plugin."""


class CheckpointPlugin(SupervisedPlugin, supports_distributed=False):
    """Stands last among the plugins: gives back what was saved before the first step, and saves after some
    steps.

    Args:
        parts: plugins with a state of their own.
        save: writes tensors to disk.
        every: seconds between two saves; None where nothing can be saved, because something that changes from
            step to step does not say what it is.
        asked: whether the run shall stop; it is saved then, whenever the last save was.
        stop: called after that save; raises.
        tell: told where what was saved is of no use here.

    Attributes:
        restored: what to go on from; used by the next experience and forgotten.
        seconds: training time of the experience so far, that of earlier processes included.
    """

    def __init__(
        self,
        parts: Sequence[StepState],
        save: Callable[[int, dict[str, Tensor]], None],
        every: float | None,
        asked: Callable[[], bool],
        stop: Callable[[], None],
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        super().__init__()
        self.parts, self.save, self.asked, self.stop = list(parts), save, asked, stop
        self.saves, self.tell = every is not None, tell
        self.every = math.inf if every is None else every
        self.restored: Mapping[str, Tensor] | None = None
        self.seconds = 0.0
        self._wait = self.every

    def before_training_exp(self, strategy, **kwargs) -> None:
        """Go on from where the experience was cut off."""
        self.seconds, self._since, self._saved = 0.0, time.perf_counter(), time.perf_counter()
        self._frame = frame_of(strategy.model)
        if self.restored is not None:
            # A version that did not look at them left none.
            if same_frame(self.restored.get("frame", self._frame), self._frame):
                self._load(strategy, self.restored)
            else:
                self.tell("directions are others here than those of that state: the task begins again")
            self.restored = None

    def after_training_iteration(self, strategy, **kwargs) -> None:
        """Save where it is time, or where the run shall stop."""
        self._refuse_nan(strategy)
        asked = self.asked()
        now = time.perf_counter()
        # What follows the last step (merging, measuring) may take long as well.
        ended = strategy.dataloader.done == len(strategy.dataloader) and self.spent() >= self.every
        if asked or ended or now - self._saved >= self._wait:
            # Broken numbers are no state to go on from.
            if self.saves and bool(torch.isfinite(strategy.loss)):
                self.save(strategy.dataloader.done, self._state(strategy))
            self._saved = time.perf_counter()
            self._wait = max(self.every, (self._saved - now) / SHARE)
        if asked:
            self.stop()

    def _refuse_nan(self, strategy) -> None:
        """Raise where the loss is no number; on a GPU it is read now and then, since reading waits for the
        device."""
        step = strategy.dataloader.done
        looked = strategy.device.type == "cpu" or step % LOOK == 0 or step == len(strategy.dataloader)
        if looked and strategy.training_settings.on_nan == "stop" and not bool(torch.isfinite(strategy.loss)):
            rates = sorted({group["lr"] for group in strategy.optimizer.param_groups})
            raise Diverged(step, len(strategy.dataloader), rates)

    def spent(self) -> float:
        """Seconds of this experience until now."""
        return self.seconds + time.perf_counter() - self._since

    def _owners(self, strategy) -> dict[str, StepState]:
        return {"batches": strategy.dataloader} | {str(place): part for place, part in enumerate(self.parts)}

    def _state(self, strategy) -> dict[str, Tensor]:
        state = {f"weight/{place}": p.detach() for place, p in enumerate(strategy.trainable)}
        state |= {f"optimiser/{key}": value for key, value in optimiser_state(strategy.optimizer).items()}
        state |= {
            f"scaler/{key}": torch.tensor(float(v)) for key, v in strategy.loss_scaler.state_dict().items()
        }
        for name, owner in self._owners(strategy).items():
            held = tensors_of(owner, "step_state", owner.step_state())
            state |= {f"part/{name}/{key}": value for key, value in held.items()}
        state["random/cpu"] = torch.get_rng_state()
        if strategy.device.type == "cuda":
            state["random/cuda"] = torch.cuda.get_rng_state(strategy.device)
        state["seconds"] = torch.tensor(self.spent(), dtype=torch.float64)
        state["frame"] = self._frame
        state["skipped"] = torch.tensor(strategy.skipped)
        return {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}

    @torch.no_grad()
    def _load(self, strategy, state: Mapping[str, Tensor]) -> None:
        for place, p in enumerate(strategy.trainable):
            p.copy_(state[f"weight/{place}"])
        load_optimiser_state(strategy.optimizer, _below(state, "optimiser"))
        scaler = {key: float(value) for key, value in _below(state, "scaler").items()}
        if scaler:
            whole = {key: type(old)(scaler[key]) for key, old in strategy.loss_scaler.state_dict().items()}
            strategy.loss_scaler.load_state_dict(whole)
        for name, owner in self._owners(strategy).items():
            owner.load_step_state(_below(state, f"part/{name}"))
        torch.set_rng_state(state["random/cpu"])
        if "random/cuda" in state and strategy.device.type == "cuda":  # it may go on elsewhere
            torch.cuda.set_rng_state(state["random/cuda"], strategy.device)
        self.seconds = float(state["seconds"])
        strategy.skipped = int(state.get("skipped", 0))  # which an earlier version did not write


@torch.no_grad()
def frame_of(model: nn.Module) -> Tensor:
    """What tells the directions in which factors are trained, ``4 × tensors``, from others as good.

    Bases and fixed factors follow from the weights and are no part of a state. Another machine may find them
    turned or mirrored, and coordinates in the former ones mean something else there. Each is read through
    fixed vectors: c_iᵀ M w_i for i = 1 … 4.
    """
    blocks = [module for module in model.modules() if isinstance(module, LowRankBlock)]
    read = [
        _probes(m.shape[0]).mul(m.detach().cpu().float() @ _probes(m.shape[1])).sum(0)
        for block in blocks
        for m in block.buffers()
        if m.ndim == 2
    ]
    return torch.stack(read, 1) if read else torch.zeros(4, 0)


def _probes(size: int) -> Tensor:
    places = torch.arange(1, size + 1, dtype=torch.float32)
    return torch.cos(places[:, None] * torch.tensor([0.7, 1.1, 1.9, 2.3]))


def same_frame(saved: Tensor, found: Tensor) -> bool:
    """Whether they differ by rounding alone."""
    return saved.shape == found.shape and bool(torch.allclose(saved, found, rtol=1e-3, atol=1e-3))


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(f"{prefix}/"): value for key, value in state.items() if key.startswith(f"{prefix}/")
    }


def optimiser_state(optimiser: Optimizer) -> dict[str, Tensor]:
    """Moments and counters, flat: ``<parameter>/<name>`` for tensors, ``number/<parameter>/<name>`` for plain
    numbers, and ``group/<group>/<name>`` for numbers of a group (Prodigy's step size, schedule-free's
    counters)."""
    content = optimiser.state_dict()
    flat = {}
    for place, held in content["state"].items():
        for name, value in held.items():
            if isinstance(value, Tensor):
                flat[f"{place}/{name}"] = value
            elif isinstance(value, int | float):
                flat[f"number/{place}/{name}"] = _as_tensor(value)
    for place, group in enumerate(content["param_groups"]):
        numbers = {name: value for name, value in group.items() if isinstance(value, int | float)}
        flat |= {f"group/{place}/{name}": _as_tensor(value) for name, value in numbers.items()}
    return flat


def _as_tensor(number: float) -> Tensor:
    # A Python number keeps its bits and its type, which ``item`` gives back.
    return torch.tensor(number, dtype=torch.float64 if isinstance(number, float) else None)


def load_optimiser_state(optimiser: Optimizer, flat: Mapping[str, Tensor]) -> None:
    """Inverse of :func:`optimiser_state`, for an optimiser made with the same settings over the same
    parameters."""
    content = optimiser.state_dict()
    state: dict[int, dict[str, Tensor | float]] = {}
    for key, value in flat.items():
        *kind, place, name = key.split("/")
        if kind == ["group"]:
            content["param_groups"][int(place)][name] = value.item()
        else:
            state.setdefault(int(place), {})[name] = value.item() if kind else value
    optimiser.load_state_dict(content | {"state": state})


class Checkpoints:
    """States within the current task on the disk; the name of each holds a digest of its content.

    Args:
        folder: of the run.
        every: seconds between two saves.
        tell: told of a file that is damaged, and so passed over, and of one that is gone on from.
    """

    def __init__(self, folder: RunDir, every: float, tell: Callable[[str], None]) -> None:
        self.folder, self.every, self.tell = folder, every, tell
        self._task: TaskData | None = None

    def of(self, task: TaskData) -> dict[str, Tensor] | None:
        """The newest undamaged state within a task, if there is any; what is saved next is the task's."""
        self._task = task
        for path in sorted(self._of(task).glob("*.safetensors"), reverse=True):
            try:
                with open_file(path) as file:
                    content = file.read()
                if _digest(content) == path.stem.partition("-")[2]:
                    tensors = safetensors.torch.load(content)
                    self.tell("going on inside the task")
                    return tensors
            except (OSError, SafetensorError):
                pass
            self.tell(f"{path}: damaged, and passed over for the state before it")
        return None

    def save(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Store a state after a step of the current task."""
        task = self._task
        content = safetensors.torch.save(dict(tensors))
        write_bytes(self.folder.checkpoint(task.index, task.name, step, _digest(content)), content)
        for old in sorted(self._of(task).glob("*.safetensors"))[:-KEPT]:
            old.unlink(missing_ok=True)

    def forget(self, index: int, name: str) -> None:
        """Delete the states within a task that is finished."""
        shutil.rmtree(self.folder.checkpoint(index, name), ignore_errors=True)

    def _of(self, task: TaskData) -> Path:
        return self.folder.checkpoint(task.index, task.name)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
