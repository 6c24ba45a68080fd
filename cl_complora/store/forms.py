"""What a run wrote, read back without being trusted: the right form, of bearable size, or one line about
it."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from ..data.labels import name_fault
from ..errors import UserError, printable
from ..files import finite, parse_json, read_bytes
from .plain_yaml import values_of

# A record of a thousand matrices has half a megabyte; a config of 200 tasks a tenth.
MAX_JSON = 2**27
MAX_YAML = 1_000_000
# Of a million images: 65 MB where they are named, five times that with their captions.
MAX_SPLIT = 2**30

Number = float | None
Count = Annotated[int, Field(ge=0)]
_Form = TypeVar("_Form", bound=BaseModel)

# Of retrieval: of every image the texts, and of every text the images; shares found among the first k.
DIRECTIONS = ("image_to_text", "text_to_image")
RECALLS = {"R@1": 1, "R@5": 5, "R@10": 10}

# Of images with several labels: mAP of the cosines, and of SPARC's scores without and with compound prompts,
# which see the whole set at once.
PRECISIONS = ("mAP", "mAP_normalised", "mAP_sparc")
TRANSDUCTIVE = PRECISIONS[1:]

# Of accuracy by shots: the groups of classes, and the figures that are told, the mean over all classes first.
SHOT_GROUPS = ("many", "medium", "few")
BY_SHOTS = ("macro", *SHOT_GROUPS)


class Form(BaseModel):
    """Keys that are read somewhere and what they must be; others may stand beside them."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Model(Form):
    name: str
    sha256: str


class Elsewhere(Form):
    """From which task on a run was computed elsewhere, and what was, and is, different there."""

    from_task: str
    changed: dict[str, Annotated[list[str], Field(min_length=2, max_length=2)]]


class _Named(Form):
    name: str


class _Files(Form):
    pretrained: str | None = None
    config: str | None = None


class _Scenario(Form):
    tasks: list[_Named]
    model: _Files | None = None


class _Optimiser(Form):
    lr: Number = None
    rates: dict[str, float] | None = None


class _Strategy(Form):
    adapter: dict[str, Any] | None = None
    head: dict[str, Any] | None = None
    optimiser: _Optimiser | None = None


class Config(Form):
    """config.yaml."""

    scenario: _Scenario
    strategy: _Strategy
    seed: int
    model: _Model
    splits: dict[str, str]
    software: dict[str, str] = {}
    files: dict[str, str] = {}
    device: str = ""
    gpu: str = ""
    elsewhere: list[Elsewhere] = []
    threads: Annotated[int, Field(ge=1)] = 1


class ByShots(Form):
    """Accuracy by shots, in results.json where shots are uneven."""

    many_above: int
    few_below: int
    classes: dict[str, dict[str, int]]
    accuracy: dict[str, list[list[Number]]]
    last: dict[str, Number]


class HeadDrift(Form):
    """What a task's head got right when it was fitted, and gets right now."""

    fitted: Number
    now: Number


class ChangedAnswers(Form):
    """Share of answers that are others than in 32 bits."""

    set: str
    images: int
    share: float


class EvaluatedIn(Form):
    """How answers were computed, and what that changes against 32 bits."""

    precision: str
    changed_answers: ChangedAnswers | None = None


class Detail(Form):
    """What a task was and cost, as far as anything is computed or drawn of it."""

    classes: Number = None
    shots: int | Annotated[list[int], Field(min_length=1)] | None = None
    train_images: Number = None
    test_images: Count | None = None
    steps: Number = None
    train_seconds: Number = None
    eval_seconds: Number = None
    delta_norm: Number = None
    trainable_parameters: Number = None
    stored_bytes: Number = None
    carried_bytes: Number = None
    peak_memory_bytes: Number = None


class Results(Form):
    """results.json."""

    scenario: str
    strategy: str
    seed: int
    model: dict[str, Any]
    tasks: list[str]
    zero_shot_sets: list[str]
    zero_shot_images: dict[str, Count] = {}
    accuracy: list[list[Number]]
    zero_shot: dict[str, list[Number]]
    transfer: Number
    average: Number
    last: Number
    forgetting: Number
    bwt: Number
    retention: dict[str, Number]
    retrieval: dict[str, dict[str, dict[str, list[Number]]]] = {}
    retrieval_retention: dict[str, dict[str, Number]] = {}
    retrieval_queries: dict[str, dict[str, int]] = {}
    task_measures: dict[str, str] = {}
    multi_label: dict[str, dict[str, list[Number]]] = {}
    multi_label_retention: dict[str, Number] = {}
    multi_label_images: dict[str, dict[str, int]] = {}
    tasks_detail: list[Detail]
    status: str
    independent: bool = False
    by_shots: ByShots | None = None
    head_drift: dict[str, HeadDrift] = {}
    software: dict[str, str]
    device: str
    evaluation: EvaluatedIn | None = None
    elsewhere: list[Elsewhere] = []


class StoredRecord(Form):
    """tasks/*.json."""

    model_config = ConfigDict(extra="forbid", strict=True)

    row: list[Number]
    zero_shot: dict[str, Number]
    detail: Detail = Detail()
    geometry: dict[str, dict[str, Any]] = {}
    adapter_state: dict[str, Any] = {}
    curve: list[Number] = []
    retrieval: dict[str, dict[str, dict[str, Number]]] = {}
    by_shots: dict[str, dict[str, Number]] = {}
    multi_label: dict[str, dict[str, Number]] = {}
    training_accuracy: list[Number] = []
    sha256: str | None = None  # absent where something else wrote the record


class MovedWord(Form):
    """A token and the norm of the change of its embedding."""

    word: str
    norm: Number


class MovedWords(Form):
    """Token embeddings that a task moved: how many, and those that moved furthest."""

    moved: int = 0
    furthest: list[MovedWord] = []


class Analysis(Form):
    """analysis/*.json."""

    matrices: dict[str, dict[str, Any]] = {}
    cka: dict[str, Number] = {}
    words: MovedWords | None = None


def _a_class_name(name: str) -> str:
    if fault := name_fault(name):
        raise PydanticCustomError("class_name", "{fault}", {"fault": fault})
    return name


class Labels(Form):
    """One entry of classes.json."""

    classes: list[Annotated[str, AfterValidator(_a_class_name)]]
    prompts: list[str]


def damaged(path: Path, why: object) -> UserError:
    """The line about a file that is not as a run writes it."""
    return UserError(f"{path}: damaged, or of another version ({printable(' '.join(str(why).split()), 200)})")


def read_json(path: Path) -> Any:
    """Content of a JSON file, or None if it is not there.

    Raises:
        UserError: if the file is damaged.
    """
    return _read(path, MAX_JSON, functools.partial(parse_json, own=True))


def read_yaml(path: Path) -> Any:
    """Content of a YAML file that this package wrote, or None if it is not there.

    Raises:
        UserError: if the file is damaged.
    """
    return copy.deepcopy(_read(path, MAX_YAML, values_of))


def _read(path: Path, most: int, parse: Callable[[bytes], Any]) -> Any:
    try:
        return parse(read_bytes(path, most))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise damaged(path, error.strerror or error) from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise damaged(path, error) from None


def checked(path: Path, form: type[BaseModel], content: Any) -> dict[str, Any]:
    """The content as it stands, if it has the form.

    Raises:
        UserError: naming the first key that is missing or of another kind.
    """
    parsed(path, form, content)
    return content


def parsed(path: Path, form: type[_Form], content: Any) -> _Form:
    """The content in its form.

    Raises:
        UserError: as :func:`checked`.
    """
    try:
        return form.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise damaged(path, f"{where}: {first['msg']}" if where else first["msg"]) from None


def checked_results(path: Path, content: Any) -> dict[str, Any]:
    """Results whose rows, sets and tasks are as many as they should be.

    Raises:
        UserError: as :func:`checked`.
    """
    results = checked(path, Results, content)
    rows, tasks = results["accuracy"], results["tasks"]
    if not (len(set(tasks)) == len(tasks) and len(rows) <= len(tasks) + 1 and tasks):
        raise damaged(path, "accuracy: has more rows than tasks, or a task stands twice")
    if any(len(row) != len(tasks) for row in rows):
        raise damaged(path, "accuracy: a row has not one number for every task")
    for name in results["zero_shot_sets"]:
        if len(results["zero_shot"].get(name, ())) != len(rows):
            raise damaged(path, f"zero_shot.{name}: has not one number for every row of accuracy")
    if set(results["retention"]) - set(results["zero_shot_sets"]):
        raise damaged(path, "retention: names no zero-shot set")
    retrieval = results.get("retrieval", {})
    for name, both in retrieval.items():
        if set(both) != set(DIRECTIONS) or any(set(shares) != set(RECALLS) for shares in both.values()):
            raise damaged(path, f"retrieval.{name}: must hold {', '.join(RECALLS)} of both directions")
        if any(len(values) != len(rows) for shares in both.values() for values in shares.values()):
            raise damaged(path, f"retrieval.{name}: has not one number for every row of accuracy")
    kept = results.get("retrieval_retention", {})
    if set(kept) != set(retrieval) - set(tasks) or any(
        set(both) != set(DIRECTIONS) for both in kept.values()
    ):
        raise damaged(
            path, "retrieval_retention: has not both directions of every set of retrieval that is no task"
        )
    labelled = results.get("multi_label", {})
    for name, curves in labelled.items():
        if set(curves) != set(PRECISIONS) or any(len(values) != len(rows) for values in curves.values()):
            told = ", ".join(PRECISIONS)
            raise damaged(path, f"multi_label.{name}: has not one number of {told} for every row of accuracy")
    if set(results.get("multi_label_retention", {})) != set(labelled):
        raise damaged(path, "multi_label_retention: has not one number for every set of multi_label")
    return results


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Content to be written as JSON, with a checksum over its values."""
    values = finite(dict(content))
    return {**values, "sha256": _digest(values)}


def _digest(values: Mapping[str, Any]) -> str:
    # JSON gives back every float to the bit, so that what is read has the digest of what was written.
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def checked_record(
    path: Path,
    content: Any,
    tasks: Sequence[str],
    sets: Sequence[str],
    captioned: Sequence[str] = (),
    labelled: Sequence[str] = (),
) -> dict[str, Any]:
    """A record that has its checksum and a number for every task and set.

    Args:
        path, content: the file and what it holds.
        tasks, sets, captioned, labelled: names of the tasks, the zero-shot sets, the retrieval sets and the
            multi-label sets.

    Raises:
        UserError: as :func:`checked`.
    """
    record = dict(checked(path, StoredRecord, content))
    known = record.pop("sha256", None)
    if known is not None and known != _digest(record):
        raise damaged(path, "its checksum is another")
    if len(record["row"]) != len(tasks) or set(record["zero_shot"]) != set(sets):
        raise damaged(path, "row or zero_shot: has not one number for every task and zero-shot set")
    shares = [
        both.get(direction, {}) for both in record.get("retrieval", {}).values() for direction in DIRECTIONS
    ]
    if set(record.get("retrieval", {})) != set(captioned) or any(set(one) != set(RECALLS) for one in shares):
        raise damaged(path, "retrieval: has not both directions of every retrieval set")
    precisions = record.get("multi_label", {})
    if set(precisions) != set(labelled) or any(set(one) != set(PRECISIONS) for one in precisions.values()):
        raise damaged(path, f"multi_label: has not {', '.join(PRECISIONS)} of every multi-label set")
    answered = record.get("training_accuracy", [])
    if answered and len(answered) != len(record.get("curve", [])):
        raise damaged(path, "training_accuracy: has not one number for every step of curve")
    return record
