"""Folders of pictures, or of Parquet files of pictures, looked at, and a scenario written for them."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from statistics import median

from ...config.hub_sources import ParquetSource
from ...config.model_names import EMBEDDED, architectures
from ...config.normalisation import unstated
from ...config.repositories import LOCAL
from ...config.scenario import DEFAULT_PROMPTS, Model
from ...config.sources import FolderSource, ManifestSource
from ...errors import UserError, printable
from ...files import MAX_LINE
from ..checks.picture_notes import source_notes
from ..checks.plausibility import is_code, one_class
from ..hub.hub_folders import beside, hub_folder
from ..images.broken import Readable
from ..items import Source
from ..kinds import open_source
from ..telling import counted, some, worded
from . import retention
from .found_tables import folders_or_table, table_notes
from .retention import LEFT_OUT, OPENED, Retention
from .stream_kind import stream_kind
from .suiting import Suiting, suiting
from .task_folders import passed_over, task_folders

MOST_SHOTS = 16
TEST_LIMIT = 500
# A class of so many training pictures gives one for validation, which tuning chooses by; of two it would be
# half of what is learned from.
SPARING = 3
# Numbers that are told one by one.
LISTED = 8


@dataclass(frozen=True)
class _Found:
    name: str
    root: Path
    config: FolderSource | ParquetSource | ManifestSource
    source: Source
    counts: tuple[int, ...]
    train: int
    test: int
    broken: tuple[str, ...]
    suiting: Suiting
    left_out: tuple[str, ...] = ()

    @property
    def smallest(self) -> int:
        """Training pictures of the poorest class."""
        return min(self.counts)

    def usable(self, spared: bool) -> list[int]:
        """Training pictures of every class that may be shots.

        Args:
            spared: whether one is kept for validation, of every class that can do without.
        """
        return [count - (spared and count >= SPARING) for count in self.counts]

    def shots(self, chosen: int, spared: bool) -> list[int]:
        """Shots of every class where one has fewer than ``chosen``; empty where none has."""
        few = [min(count, chosen) for count in self.usable(spared)]
        return [] if min(few) == chosen else few

    def leaves_one(self, shots: int) -> bool:
        """Whether half of the classes or more have a training picture beside so many shots."""
        return 2 * sum(count > shots for count in self.counts) >= len(self.counts)

    def kept(self, spared: bool) -> str:
        """What to say of the training pictures that are no shots, where shots are all others of a class."""
        if not spared or max(self.counts) < SPARING:
            return ""
        where = f" where it has {SPARING} or more" if min(self.counts) < SPARING else ""
        return f", but one for validation{where}"

    def untuned(self, chosen: int, spared: bool) -> list[str]:
        """Classes whose shots are all of their training pictures."""
        shots = self.shots(chosen, spared) or [chosen] * len(self.counts)
        return [
            name
            for name, count, used in zip(self.source.class_names, self.counts, shots, strict=True)
            if count == used
        ]


def describe(
    folders: Sequence[Path],
    output: Path,
    shots: int | None = None,
    model: Model | None = None,
    zero_shot: Path | None = None,
) -> tuple[str, list[str]]:
    """A commented scenario file for class folders.

    Args:
        folders: class folders (``root/<class>/…`` or ``root/train/<class>/…``), folders of Parquet files or
            of one folder of pictures and a table of their classes, or folders that hold several of these.
        output: the scenario file, whose folder relative paths start from.
        shots: training images a class; by default what half of the classes have, beside one for validation
            where there are three, at most 16.
        model: what the stream starts from, its files by absolute paths; the embedded one by default.
        zero_shot: class folders of no task that retention is measured on. By default, what the embedded
            model knows; for others, ImageNet where it is found, or nothing.

    Returns:
        The text, and a line about every task.

    Raises:
        UserError: where no pictures are found.
    """
    model = model or Model()
    found: list[_Found] = []
    roots = task_folders(folders)
    for root in roots:
        found.append(_look(root, _free(root.resolve().name, [f.name for f in found])))
    base = output.parent.resolve()
    held_out = _held_out(found, model, zero_shot, base)
    least = min(f.smallest for f in found)
    # What is asked for is given, if it takes the last picture.
    spared = shots is None
    chosen, why = _shots_for_all(found, shots)
    suits = [f.suiting for f in found]
    common = max(suits, key=lambda one: [other.augment for other in suits].count(one.augment))
    kind = stream_kind({f.name: f.source.class_names for f in found})
    # Said for all, they would take the place of those that the embedded model's general set brings.
    typed = printable(quote(str(output)), MAX_LINE)
    unsaid = "# " if _is_embedded(model) else ""
    lines = [
        f"# {counted(len(found), 'task')} from folders of pictures. Run: cl-complora run {typed}",
        "#",
        *kind.comments,
        f"name: {json.dumps(_name(output.stem, 'stream'))}",
        f"protocol: {kind.protocol}",
        "",
        *_model_lines(model, base),
        "",
        f"shots: {chosen}    # training images a class: {why}; the poorest class here has {least}",
        f"{unsaid}prompts: {_listed(DEFAULT_PROMPTS)}    # of names of things, where a task says no others",
        f"augment: {common.augment}    # {common.augment_why}",
        f"test_limit: {TEST_LIMIT}    # test images a task at most",
    ]
    notes = [f"{LEFT_OUT}{line}" for f in found for line in f.broken] + list(held_out.more)
    notes += passed_over(folders, roots)
    if broken := sum(line.startswith(LEFT_OUT) for line in notes):
        unreadable = counted(broken, "picture")
        lines.append(f"broken: skip    # {unreadable} cannot be read; refuse stops a run that would use one")
    lines.append("tasks:")
    for f in found:
        of_task, told = _task_lines(f, chosen, spared, common.augment, base)
        lines += of_task
        notes += told
    if any(len(set(f.shots(chosen, spared))) > 1 for f in found):
        uneven = (
            "some classes have fewer shots than others; a loss that counts all alike:"
            f" cl-complora run {typed} --strategy complora-balanced"
        )
        lines.insert(1, f"# {uneven[0].upper()}{uneven[1:]}")
        notes.append(uneven)
    lines += ["", *held_out.lines, "seeds: [0, 1, 2]"]
    notes += _untuned(found, chosen, spared) + [one for one in (kind.note, held_out.note) if one]
    return "\n".join(lines) + "\n", notes


def _shots_for_all(found: Sequence[_Found], asked: int | None) -> tuple[int, str]:
    """Training images a class, and why so many."""
    if asked is not None:
        return asked, "as asked for"
    # Half of the classes decide: one poor class must not leave all others with as few shots as it has.
    typical = min(int(median(f.usable(True))) for f in found)
    if typical >= MOST_SHOTS:
        return MOST_SHOTS, f"more than {MOST_SHOTS} are not needed to begin with"
    left = all(f.leaves_one(typical) for f in found)
    beside = ", beside one for validation (cl-complora tune)" if left else ""
    return typical, f"what half of the classes of every task have{beside}"


def _task_lines(
    f: _Found, chosen: int, spared: bool, augment: str, base: Path
) -> tuple[list[str], list[str]]:
    """A task in the file, and what is said of it.

    Args:
        f: the task.
        chosen, spared: as for :meth:`_Found.shots`.
        augment: what the file says for all tasks.
        base: folder that paths start from.
    """
    classes = counted(len(f.source.class_names), "class", "classes")
    size = f"{classes}, {f.train} training and {counted(f.test, 'test image')}"
    lines = [
        f"  - name: {json.dumps(f.name)}    # {size}",
        f"    source: {_source_line(f, base)}",
    ]
    notes = []
    if fewer := f.shots(chosen, spared):
        same = len(set(fewer)) == 1
        told = f"as many as each class has{f.kept(spared)}, at most {chosen}"
        lines.append(f"    shots: {fewer[0] if same else fewer}    # {told}")
        notes.append(_poorest(f, fewer))
    if list(f.suiting.prompts) != DEFAULT_PROMPTS:
        lines.append(f"    prompts: {_listed(f.suiting.prompts)}    # {f.suiting.prompts_why}")
    if f.suiting.augment != augment:
        lines.append(f"    augment: {f.suiting.augment}    # {f.suiting.augment_why}")
    if all(map(is_code, f.source.class_names)):
        notes.append(f"{f.name}: {f.suiting.prompts_why} ({f.source.class_names[0]!r} …)")
    notes += [f"{f.name}: {line}" for line in source_notes(f.source, f.source.items("train"))]
    notes += [f"{f.name}: {one}: is called like no part, and is left out" for one in f.left_out]
    notes.append(f"{f.name}: {size}")
    notes += getattr(f.source, "notes", ())
    names = f.source.class_names
    notes += one_class(f.name, names) + table_notes(f.name, f.root, f.config, names, base)
    return lines, notes


def _poorest(found: _Found, shots: Sequence[int]) -> str:
    """What to say of a task whose classes have not all as many shots as others."""
    names = [
        name
        for name, count in zip(found.source.class_names, found.counts, strict=True)
        if count == found.smallest
    ]
    has = f"{worded(len(names), 'has', 'have')} {counted(found.smallest, 'training image')}"
    if len(names) == len(found.counts):
        return f"{found.name}: every class has {counted(found.smallest, 'training image')}; shots: {shots[0]}"
    return f"{found.name}: {some(names)} {has}, others more; shots: {_runs(shots)}"


def _runs(numbers: Sequence[int]) -> str:
    """Few numbers as a list, many by how often each is there: ``16 (of 90 classes), 3 (of 2 classes)``."""
    if len(numbers) <= LISTED:
        return str(list(numbers))
    often = sorted(Counter(numbers).items(), reverse=True)
    return ", ".join(f"{number} (of {counted(times, 'class', 'classes')})" for number, times in often)


def _untuned(found: Sequence[_Found], chosen: int, spared: bool) -> list[str]:
    """What tuning would need, where shots are all that a class has."""
    lacking = [(f, names) for f in found if (names := f.untuned(chosen, spared))]
    if not lacking:
        return []
    first, names = lacking[0]
    fewest = min(f.smallest for f, _ in lacking)
    others = " (and of other tasks)" if len(lacking) > 1 else ""
    has = worded(len(names), "has none", "have none")
    way = "take fewer shots (shots: in the file), or add pictures" if fewest > 1 else "add pictures"
    return [
        f"cl-complora tune needs a training image a class beside the shots; {some(names)} of"
        f" {first.name}{others} {has} left: {way}"
    ]


def _held_out(found: Sequence[_Found], model: Model, folder: Path | None, base: Path) -> Retention:
    if folder is not None:
        taken = [f.name for f in found]
        return retention.held_out(
            folder,
            [f.root for f in found],
            lambda name: _free(name, taken),
            lambda root: _quoted(os.path.relpath(root, base)),
        )
    # Another model need not know what the embedded one knows.
    return retention.embedded() if _is_embedded(model) else retention.found_or_none()


def _is_embedded(model: Model) -> bool:
    return model.name == EMBEDDED and model.config is None


def _model_lines(model: Model, base: Path) -> list[str]:
    if _is_embedded(model):
        return [
            (
                "# The small model that ships with the package, to try things out. For real pictures take a"
                " real CLIP:"
            ),
            "# cl-complora init … --model ViT-B-16 --pretrained openai    (a tag, or a checkpoint file)",
            "model: {name: embedded}",
        ]
    name = model.name
    if name.startswith(LOCAL):
        name = f"{LOCAL}{_beside(name.removeprefix(LOCAL), base)}"
    lines = ["model:", f"  name: {_quoted(name)}"]
    if model.config is not None:
        lines.append(f"  config: {_quoted(_beside(model.config, base))}")
    if model.pretrained is None:
        lines.append("  # pretrained: a tag or a file; without it, the weights are random")
    elif Path(model.pretrained).is_absolute():
        lines.append(f"  pretrained: {_quoted(_beside(model.pretrained, base))}")
        if f"{model.name}-quickgelu" in architectures():
            lines.append(f"  # weights that were trained with QuickGELU want the name {model.name}-quickgelu")
    else:
        lines.append(f"  pretrained: {_quoted(model.pretrained)}    # open_clip fetches these weights once")
    if unstated(model, base):
        lines += [
            "  # The config does not say how pixels are normalised: CLIP's own way is taken. If these",
            "  # weights were trained in another, say it here (0 and 1: pixels as they are, in 0..1):",
            "  # mean: [0, 0, 0]",
            "  # std: [1, 1, 1]",
        ]
    return lines


def _beside(path: str, base: Path) -> str:
    """Relative where the file lies below the scenario's folder, and may move with it."""
    place = Path(path)
    return str(place.relative_to(base)) if place.is_relative_to(base) else path


def _source_line(found: _Found, base: Path) -> str:
    if isinstance(found.config, ManifestSource):
        return f"{{kind: manifest, file: {_quoted(os.path.relpath(found.config.file, base))}}}"
    if isinstance(found.config, FolderSource):
        return f"{{kind: folder, root: {_quoted(os.path.relpath(found.root.resolve(), base))}}}"
    files = beside(found.config, found.root, base)
    return f"{{kind: parquet, {', '.join(f'{part}: {_quoted(files[part])}' for part in files)}}}"


def _listed(prompts: Sequence[str]) -> str:
    return f"[{', '.join(map(_quoted, prompts))}]"


def _look(root: Path, name: str) -> _Found:
    hub = hub_folder(root)
    config = hub.config if hub else folders_or_table(root)
    source = open_source(config, root.resolve())
    train, test = source.items("train"), source.items("test")
    broken: list[str] = []
    if len(train) + len(test) <= OPENED:
        readable = Readable(source)
        train, test, broken = readable.items("train"), readable.items("test"), readable.skipped
    counts = [0] * len(source.class_names)
    for item in train:
        counts[item.label] += 1
    empty = [name for name, count in zip(source.class_names, counts, strict=True) if count == 0]
    if empty:
        absent = getattr(source, "absent", None)
        where = absent(empty[0]) if absent is not None else ""
        problem = (
            f"{root}: class {empty[0]!r} has no training images; a class needs at least two pictures in all"
            f"{where}{' (in the source that a scenario of your own names)' if 'exclude' in where else ''}"
        )
        raise UserError(problem, tuple(broken))
    if not test and max(counts) == 1:
        raise UserError(
            f"{root}: has one picture a class, which leaves nothing to divide into training and test: a class"
            " of a task needs at least two; such a folder can be measured as a whole, as --zero-shot"
        )
    if not test:
        raise UserError(f"{root}: has no test images")
    left_out = hub.left_out if hub else ()
    suits = suiting(root.resolve().name, source.class_names, source, train)
    return _Found(
        name, root, config, source, tuple(counts), len(train), len(test), tuple(broken), suits, left_out
    )


def _quoted(text: str) -> str:
    """Text in double quotes that YAML reads back as it is; it takes some characters for ends of lines."""
    shown = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in shown)


def _name(text: str, otherwise: str) -> str:
    """Text as a name that a scenario takes: letters without their accents."""
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9 ._+-]+", "-", text).strip(" ._+-")[:60] or otherwise


def _free(folder: str, taken: Sequence[str]) -> str:
    name = _name(folder, "task")
    known = {other.casefold() for other in taken}
    counter, candidate = 1, name
    while candidate.casefold() in known:
        counter += 1
        candidate = f"{name}-{counter}"
    return candidate
