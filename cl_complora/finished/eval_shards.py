"""An evaluation in shards: each answers a slice of the images and leaves a small file, and all of them
together come to what one evaluation comes to, to the bit on one kind of device.

A slice is a run of whole batches among those of all sets, so that every image is computed in the batch that
it has without shards (see ``asked_sets.py``). The files are named after everything that answers follow from.
A shard that is there is not computed again; one that is computed twice leaves the same answers twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import telling
from ..errors import UserError
from ..files import write_bytes
from ..run.devices import device_of, told_device, visible_gpus
from ..run.worker_processes import Ended, WorkerProcesses, cores
from ..store.tensors import read_tensors, told_with, with_checksum
from .asked_sets import Part
from .eval_request import EvalRequest, Opened, open_request

# Names of files: enough of a digest to tell evaluations apart; the whole of it stands in the file.
_DIGITS = 16
Found = list[tuple[Part, dict[str, Tensor]]]


@dataclass(frozen=True)
class Shards:
    """The shards of one evaluation, and where their files are.

    Attributes:
        opened: the model and what it is asked about.
        of: how many shards.
        folder: of the files.
        identity: of the evaluation.
    """

    opened: Opened
    of: int
    folder: Path
    identity: str

    @classmethod
    def find(cls, opened: Opened, of: int, folder: Path) -> Shards:
        """Those of an evaluation, computed or not."""
        return cls(opened, of, folder, opened.identity)

    def parts(self, number: int) -> list[Part]:
        """What a shard answers; nothing where there are more shards than batches."""
        return self.opened.parts(number, self.of)

    def path(self, number: int) -> Path:
        """File of a shard."""
        width = len(str(self.of))
        name = f"shard-{number:0{width}d}-of-{self.of}-{self.identity[:_DIGITS]}.safetensors"
        return self.folder / name

    def read(self, number: int, tell: Callable[[str], None] = lambda sentence: None) -> Found | None:
        """Answers of a shard; None where they are to be computed.

        Args:
            number: of the shard, from 1.
            tell: told why a file that is there is not used.
        """
        path, parts = self.path(number), self.parts(number)
        if not parts or not path.exists():
            return None if parts else []
        try:
            tensors, said = read_tensors(path), told_with(path)
        except UserError as error:
            tell(f"{error.messages[0]}; computed again")
            return None
        if said.get("identity") != self.identity or said.get("shard") != f"{number}/{self.of}":
            tell(f"{path}: is of other weights, data or settings; computed again")
            return None
        found: Found = []
        for part in parts:
            name = f"{part.place}/"
            answered = {
                key.removeprefix(name): tensors.pop(key) for key in list(tensors) if key.startswith(name)
            }
            if not self.opened.asked[part.place].fits(answered, part.stop - part.start):
                break
            found.append((part, answered))
        if tensors or len(found) < len(parts):
            tell(f"{path}: damaged (it holds other answers than a shard's); computed again")
            return None
        return found

    def compute(self, number: int) -> None:
        """Answer a shard and write its file.

        Raises:
            UserError: where it cannot be written.
        """
        found = self.opened.answer(self.parts(number))
        tensors = {f"{part.place}/{key}": value for part, by in found for key, value in by.items()}
        said = {"identity": self.identity, "shard": f"{number}/{self.of}", "computed": self._where()}
        said["changed"] = "/".join(map(str, self.opened.compared(self.parts(number))))
        try:
            write_bytes(self.path(number), with_checksum(tensors, "shard", said))
        except OSError as error:
            raise UserError(
                f"{self.path(number)}: cannot be written ({error.strerror}); see --shard-folder"
            ) from None

    def counts(self, found: Found) -> list[dict[str, Any]]:
        """Of every part of a shard the set's name, images, the first of them (from 0), and how many answers
        are right; None where an image alone has no right answer."""
        return [
            {
                "name": self.opened.asked[part.place].name,
                "images": part.stop - part.start,
                "from": part.start,
                "right": self.opened.asked[part.place].right(answered, part.start, part.stop),
            }
            for part, answered in found
        ]

    def _where(self) -> str:
        """The kind of device, and of the CPU the threads: what last bits depend on."""
        device = self.opened.device
        if device.startswith("cuda"):
            return told_device(device).partition("(")[2].rstrip(")")
        return f"{device}, {torch.get_num_threads()} threads"

    def computed(self, number: int) -> str:
        """Where a shard was computed; empty of one without images."""
        return told_with(self.path(number)).get("computed", "") if self.parts(number) else ""

    def changed(self) -> tuple[int, int]:
        """How many answers are others than in 32 bits, and to how many images of all shards; as of
        :meth:`~cl_complora.finished.eval_request.Opened.compared`."""
        said = [told_with(self.path(number)) for number in range(1, self.of + 1) if self.parts(number)]
        pairs = [re.fullmatch(r"(\d+)/(\d+)", one.get("changed", "")) for one in said]
        others, images = (sum(int(pair[place]) for pair in pairs if pair) for place in (1, 2))
        return others, images

    def others(self) -> int:
        """Number of files in the folder that belong to other evaluations of as many shards."""
        ours = self.identity[:_DIGITS]
        return sum(ours not in path.name for path in self.folder.glob(f"shard-*-of-{self.of}-*.safetensors"))


def gather(
    request: EvalRequest,
    shards: Shards,
    tell: Callable[[str], None],
    places: Sequence[str] | None = None,
    compute: Callable[[Sequence[int]], None] | None = None,
) -> Found:
    """Read the shards that are there, compute the others, and put all together.

    Args:
        request: what was asked for.
        shards: of it.
        tell: told what is being done.
        places: device of every process that computes at the same time; :func:`places_for` where None.
        compute: computes shards, by their numbers, elsewhere than in processes of this machine.

    Raises:
        UserError: for a shard whose process was killed twice, and where files cannot be written.
    """
    numbers = range(1, shards.of + 1)
    missing = [number for number in numbers if shards.read(number, tell) is None]
    there = shards.of - len(missing)
    if there:
        tell(f"{there} of {shards.of} shards are there, or have no images")
    if missing and (others := shards.others()):
        tell(f"{shards.folder}: holds {counted(others)} of other weights, data or settings: left alone")
    if missing and compute is not None:
        compute(missing)
    elif missing:
        chosen = list(places or places_for(request.device, len(missing), tell))[: len(missing)]
        tell(f"computing {counted(len(missing))}, {len(chosen)} at a time")
        if len(chosen) == 1:
            for number in missing:
                shards.compute(number)
        else:
            _compute_all(request, shards, missing, chosen)
    found = []
    for number in numbers:
        answered = shards.read(number, tell)
        if answered is None:
            raise UserError(
                f"{shards.path(number)}: was written and cannot be read; the same command goes on"
            )
        found += answered
    kinds = sorted({shards.computed(number) for number in numbers} - {""})
    if len(kinds) > 1:
        tell(
            f"the shards were computed on {' and on '.join(kinds)}: last bits of probabilities may be others"
            " than those of an evaluation on one of them"
        )
    return found


def counted(shards: int) -> str:
    """``1 shard``, ``2 shards``."""
    return telling.counted(shards, "shard")


def places_for(device: str, shards: int, tell: Callable[[str], None] = lambda sentence: None) -> list[str]:
    """Device of every process that computes at the same time.

    All GPUs that are visible, or the one that was named. On the CPU every process has as many threads as an
    evaluation without shards, since last bits depend on their number, and so only as many processes fit.
    """
    if device in ("auto", "cuda") and (gpus := visible_gpus()):
        return gpus[:shards]
    chosen = device_of(device)
    if chosen.startswith("cuda"):
        return [chosen]
    threads = torch.get_num_threads()
    at_once = min(shards, max(1, cores() // threads))
    if at_once < min(shards, cores()):
        tell(
            f"every shard is computed with {threads} threads, as without shards, for the same bits;"
            f" OMP_NUM_THREADS=1 computes {min(shards, cores())} at a time"
        )
    return [chosen] * at_once


def _compute_all(request: EvalRequest, shards: Shards, missing: Sequence[int], places: Sequence[str]) -> None:
    arguments = [(request, number, shards.of, shards.folder) for number in missing]
    ended: dict[int, Ended] = {}
    with WorkerProcesses(places, torch.get_num_threads()) as workers:
        for index, done in workers.each(compute_shard, arguments):
            if isinstance(done, Ended):
                ended[missing[index]] = done
            elif done:
                raise UserError(done[0], tuple(done[1:]))
    if ended:
        first = min(ended)
        one = ended[first]
        memory = f" (not enough memory for {len(places)} at a time?)" if one.killed else ""
        twice = "" if one.starting else f", twice{memory}"
        raise UserError(
            f"shard {first}/{shards.of}: {one.why}{twice}; the others are kept, and the same command goes on"
        )


def compute_shard(request: EvalRequest, number: int, of: int, folder: Path, device: str) -> tuple[str, ...]:
    """One shard, in a process of its own; what went wrong, in sentences."""
    try:
        Shards.find(_opened(replace(request, device=device)), of, folder).compute(number)
    except UserError as error:
        return error.messages
    return ()


@lru_cache(1)
def _opened(request: EvalRequest) -> Opened:
    """The model of the shard before is that of the next."""
    return open_request(request)
