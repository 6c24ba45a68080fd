"""What ``cl-complora eval`` is asked for, in a form that another process can be told, and the model with what
it is asked about."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from ..clip.classifier import MEASURED_AT_ONCE, ClipClassifier
from ..clip.evaluate import share_changed
from ..clip.model import LoadedClip
from ..config.scenario import DEFAULT_PROMPTS
from ..data.checks.picture_notes import picture_notes
from ..data.images.cache import load_part
from ..errors import UserError
from ..run.devices import check_precision, device_of
from ..store.provenance import software
from ..store.tensors import digest_of, read_tensors, told_with
from .asked_sets import Asked, ClassSet, Measured, Part, answer_parts, parts_of
from .evaluation import Data, asked_among_all, data_asked, find_data, stream_asked, told, with_recorded
from .model_files import classifier_of, open_model
from .states import State, open_run
from .told_data import describe, refuse_empty


@dataclass(frozen=True)
class EvalRequest:
    """A state of a run, or a model, and what it is to be measured on.

    Attributes:
        what: a run's folder, or a model as :func:`~cl_complora.finished.model_files.open_model` takes it.
        is_run: which of the two.
        data: what to measure on; a run's own stream where nothing is named.
        prompts: templates in place of the data's own.
        after, factors: which state of a run: its last task, and (task, factor) of updates that are scaled.
        pretrained, model_config: of the model; of a run where they were moved.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        precision: of the towers; by default the run's own, and ``fp32`` of a model.
        batch_size: images at a time; by default the run's own, or 256 of a model.
        all_classes: whether the tasks that a run has learned are asked about among the classes of all of
            them; not for ``data``.
    """

    what: str
    is_run: bool
    data: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    after: str | None = None
    factors: tuple[tuple[str, float], ...] = ()
    pretrained: str | None = None
    model_config: str | None = None
    device: str = "auto"
    precision: str | None = None
    batch_size: int | None = None
    all_classes: bool = False


@dataclass(frozen=True)
class Opened:
    """A model on its device, and what it is asked about, of which no image is loaded.

    Attributes:
        loaded: the model.
        asked: the sets, in the order in which they are told.
        precision: of the towers.
        batch_size: images at a time.
        device: as torch names it.
        title: of a table.
        notes: what the user should know.
        state: of a run that is measured, None of a model.
        own: whether the sets are those of the run, in a state that it measured itself.
        data: what was named to measure on; empty where it is the run's own stream.
    """

    loaded: LoadedClip
    asked: list[Asked]
    precision: str
    batch_size: int
    device: str
    title: str
    notes: tuple[str, ...]
    state: State | None = None
    own: bool = False
    data: tuple[Data, ...] = ()

    @cached_property
    def classifier(self) -> ClipClassifier:
        """The model with its text head."""
        return classifier_of(self.loaded, self.batch_size)

    def described(self) -> list[str]:
        """What is measured, of data that were named; processes that only compute need not know."""
        return describe(self.data, self.asked, self.state)

    def answer(self, parts: Iterable[Part]) -> list[tuple[Part, dict[str, Tensor]]]:
        """Answers to parts of the sets."""
        with self.classifier.measured_in(self.precision):
            return list(answer_parts(self.classifier, self.asked, list(parts), self.loaded.pixels))

    def compared(self, parts: Iterable[Part]) -> tuple[int, int]:
        """How many answers are others than in 32 bits, and to how many images: the first batch of the first
        part whose images have classes; nothing where that is how they are answered."""
        for part in () if self.precision == "fp32" else parts:
            one = self.asked[part.place]
            if isinstance(one, ClassSet):
                images = min(part.stop - part.start, self.batch_size)
                pixels = load_part(one.source, one.items, self.loaded.pixels, part.start, part.start + images)
                share = share_changed(self.classifier, pixels, one.space, self.precision, one.head)
                return round(share * images), images
        return 0, 0

    def measured(self, found: list[tuple[Part, dict[str, Tensor]]]) -> list[Measured]:
        """What the answers to all parts come to."""
        with self.classifier.measured_in(self.precision):
            rows = told(self.classifier, self.asked, found)
        return with_recorded(self.state, rows) if self.own else rows

    def parts(self, number: int = 1, of: int = 1) -> list[Part]:
        """Share ``number`` of ``of`` equal shares of all sets' batches; by default every set as a whole."""
        return parts_of([len(one.items) for one in self.asked], self.batch_size, number, of)

    @cached_property
    def identity(self) -> str:
        """SHA-256 of what the answers follow from: weights, updates, heads, images, classes, prompts,
        batches, precision and versions; not the device, nor where files lie.

        Of the updates the files count, and not the sum, whose last bits are a matter of the machine.
        """
        loaded, deltas = self.loaded, () if self.state is None else self.state.deltas()
        about = {
            "weights": loaded.sha256,
            **loaded.beside_weights,
            "updates": [[_checksum(path), factor] for path, factor in deltas],
            "sets": [one.identity() for one in self.asked],
            "batch": self.batch_size,
            "precision": self.precision,
            "software": {name: text for name, text in software().items() if name not in ("python", "numpy")},
        }
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def open_request(request: EvalRequest, answered_here: bool = True) -> Opened:
    """Load the model and find what it is asked about.

    Args:
        request: what.
        answered_here: False where other machines answer, whose devices and precisions are theirs to tell.

    Raises:
        UserError: for a run, model, data, device or precision that there is not.
    """
    device = device_of(request.device if answered_here or request.device == "cpu" else "auto")
    able = device if answered_here else None
    if request.is_run:
        return _open_run(request, device, able)
    loaded = open_model(request.what, request.pretrained, request.model_config)
    if not request.data:
        raise UserError(f"{request.what}: is a model, which has no stream of its own; give --data")
    precision = _precision(request, "fp32", able)
    asked, notes, data = _of_data(request, loaded, DEFAULT_PROMPTS)
    loaded.model.to(device)
    batch_size = request.batch_size or MEASURED_AT_ONCE
    title = f"{loaded.name} ({loaded.pretrained or 'random weights'})"
    return Opened(loaded, asked, precision, batch_size, device, title, (*loaded.notes, *notes), data=data)


def _open_run(request: EvalRequest, device: str, able: str | None) -> Opened:
    state = open_run(
        Path(request.what), request.after, dict(request.factors), request.pretrained, request.model_config
    )
    precision = _precision(request, state.precision, able)
    state.loaded.model.to(device)
    notes: list[str] = []
    data: tuple[Data, ...] = ()
    among = ""
    if request.data:
        asked, notes, data = _of_data(request, state.loaded, state.scenario.value.prompts)
    elif request.all_classes:
        asked, told_of = asked_among_all(state)
        notes, among = [f"note: {one}" for one in told_of], ", among all classes learned so far"
    else:
        asked = stream_asked(state)
    edited = "".join(
        f", without {task}" if factor == 0 else f", {factor:g} × {task}" for task, factor in request.factors
    )
    title = f"{request.what} after {state.after[-1] if state.after else 'no task'}{edited}{among}"
    batch_size = request.batch_size or state.batch_size
    own = not (request.data or request.factors or among)
    return Opened(state.loaded, asked, precision, batch_size, device, title, tuple(notes), state, own, data)


def _precision(request: EvalRequest, default: str, able: str | None) -> str:
    chosen = request.precision or default
    option = "--precision" if request.precision else f"{request.what}: evaluation.precision"
    if able is not None:
        check_precision(chosen, able, option)
    return chosen


def _of_data(
    request: EvalRequest, loaded: LoadedClip, default: Iterable[str]
) -> tuple[list[Asked], list[str], tuple[Data, ...]]:
    found = tuple(find_data(one, request.prompts, tuple(default)) for one in request.data)
    for named, data in zip(request.data, found, strict=True):
        refuse_empty(named, data)
    asked = [one for data in found for one in data_asked(loaded, data)]
    return asked, [f"note: {note}" for data in found for note in picture_notes(data.plans)], found


def _checksum(path: Path) -> str:
    return told_with(path).get("sha256") or digest_of(read_tensors(path))
