"""Folders of pictures, or of Parquet files of pictures, looked at, and a scenario written for them."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ..config.hub_sources import ParquetSource
from ..config.model_names import EMBEDDED, architectures
from ..config.normalisation import unstated
from ..config.scenario import DEFAULT_PROMPTS, Model
from ..config.sources import FolderSource, ManifestSource
from ..errors import UserError
from . import retention
from .broken import Readable
from .folders import open_folder
from .found_tables import how_to_use, is_table, passed_over, tables_in, usable_table
from .hub_folders import beside, hub_folder
from .items import Source
from .kinds import open_source
from .picture_files import is_rubbish, refuse_not_utf8
from .picture_notes import source_notes
from .plausibility import is_code, one_class
from .retention import Retention
from .split_names import roles_of
from .suiting import Suiting, suiting
from .telling import counted

MOST_SHOTS = 16
TEST_LIMIT = 500
# More pictures than so many in a folder are not opened to look for broken ones: that is work of minutes.
OPENED = 5000


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

    def shots(self, chosen: int) -> str:
        """What ``shots:`` must say where a class has fewer than ``chosen``; empty where none has."""
        if self.smallest >= chosen:
            return ""
        few = [min(count, chosen) for count in self.counts]
        return str(few[0]) if len(set(few)) == 1 else str(few)


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
        shots: training images a class; as many as the poorest class has, at most 16, by default.
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
    roots = [root for folder in folders for root in _roots(folder)]
    _refuse_splits(roots)
    for root in roots:
        found.append(_look(root, _free(root.resolve().name, [f.name for f in found])))
    base = output.resolve().parent
    held_out = _held_out(found, model, zero_shot, base)
    least = min(f.smallest for f in found)
    # Half of the classes decide: one poor class must not leave all others with as few shots as it has.
    typical = min(int(median(f.counts)) for f in found)
    chosen = min(MOST_SHOTS, typical) if shots is None else shots
    why = "as asked for"
    if shots is None:
        most = f"more than {MOST_SHOTS} are not needed to begin with"
        why = most if chosen == MOST_SHOTS else "what half of the classes of every task have"
    suits = [f.suiting for f in found]
    common = max(suits, key=lambda one: [other.augment for other in suits].count(one.augment))
    lines = [
        f"# {counted(len(found), 'task')} from folders of pictures. Run: cl-complora run {output.name}",
        "#",
        (
            "# Every task has its own classes (task-incremental). class-incremental tells the classes of all"
            " tasks apart;"
        ),
        "# domain-incremental is for the same classes in every task.",
        f"name: {json.dumps(_name(output.stem, 'stream'))}",
        "protocol: task-incremental",
        "",
        *_model_lines(model, base),
        "",
        f"shots: {chosen}    # training images a class: {why}; the poorest class here has {least}",
        f"prompts: {_listed(DEFAULT_PROMPTS)}    # of names of things, where a task says nothing else",
        f"augment: {common.augment}    # {common.augment_why}",
        f"test_limit: {TEST_LIMIT}    # test images a task at most",
    ]
    notes = [f"cannot be read, and is left out: {line}" for f in found for line in f.broken]
    if notes:
        unreadable = counted(len(notes), "picture")
        lines.append(f"broken: skip    # {unreadable} cannot be read; refuse stops a run that would use one")
    lines.append("tasks:")
    for f in found:
        classes = counted(len(f.source.class_names), "class", "classes")
        size = f"{classes}, {f.train} training and {counted(f.test, 'test image')}"
        lines.append(f"  - name: {json.dumps(f.name)}    # {size}")
        lines.append(f"    source: {_source_line(f, base)}")
        if fewer := f.shots(chosen):
            lines.append(f"    shots: {fewer}    # as many as each class has, at most {chosen}")
            poorest = counted(f.smallest, "training image")
            notes.append(f"{f.name}: its poorest class has {poorest}, others more: {fewer}")
        if list(f.suiting.prompts) != DEFAULT_PROMPTS:
            lines.append(f"    prompts: {_listed(f.suiting.prompts)}    # {f.suiting.prompts_why}")
        if f.suiting.augment != common.augment:
            lines.append(f"    augment: {f.suiting.augment}    # {f.suiting.augment_why}")
        if all(map(is_code, f.source.class_names)):
            notes.append(f"{f.name}: {f.suiting.prompts_why} ({f.source.class_names[0]!r} …)")
        notes += [f"{f.name}: {line}" for line in source_notes(f.source, f.source.items("train"))]
        notes += [f"{f.name}: {one}: is called like no part, and is left out" for one in f.left_out]
        notes.append(f"{f.name}: {size}")
        notes += getattr(f.source, "notes", ())
        notes += one_class(f.name, f.source.class_names) + _of_tables(f, base)
    if any(f.shots(chosen).startswith("[") for f in found):
        uneven = (
            "some classes have fewer shots than others; a loss that counts all alike:"
            f" cl-complora run {output.name} --strategy complora-balanced"
        )
        lines.insert(1, f"# {uneven[0].upper()}{uneven[1:]}")
        notes.append(uneven)
    lines += ["", *held_out.lines, "seeds: [0, 1, 2]"]
    notes += [held_out.note] if held_out.note else []
    return "\n".join(lines) + "\n", notes


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
    lines = ["model:", f"  name: {_quoted(model.name)}"]
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


def _of_tables(found: _Found, base: Path) -> list[str]:
    """What to say of a table beside pictures, whether it is read or not."""
    if isinstance(found.config, ManifestSource):
        return [f"{found.name}: is read by its table {found.config.file}: folders do not tell its classes"]
    if isinstance(found.config, FolderSource):
        return [f"{found.name}: {line}" for line in passed_over(found.root, found.source.class_names, base)]
    return []


def _source_line(found: _Found, base: Path) -> str:
    if isinstance(found.config, ManifestSource):
        return f"{{kind: manifest, file: {_quoted(os.path.relpath(found.config.file, base))}}}"
    if isinstance(found.config, FolderSource):
        return f"{{kind: folder, root: {_quoted(os.path.relpath(found.root.resolve(), base))}}}"
    files = beside(found.config, found.root, base)
    return f"{{kind: parquet, {', '.join(f'{part}: {_quoted(files[part])}' for part in files)}}}"


def _listed(prompts: Sequence[str]) -> str:
    return f"[{', '.join(map(_quoted, prompts))}]"


def _roots(folder: Path) -> list[Path]:
    """The folder itself where its folders are classes, or a table names them; or the folders in it that are
    sets of classes."""
    if not folder.is_dir():
        hint = f"; {how_to_use(folder)}" if is_table(folder) else ""
        problem = f"is a file, and no folder{hint}" if folder.exists() else "there is no such folder"
        raise UserError(f"{folder}: {problem}")
    refuse_not_utf8(folder)
    try:
        if _is_task(folder):
            return [folder]
    except UserError as error:
        if usable_table(folder) is None:
            raise UserError(f"{error.messages[0]}{_hint(folder)}", error.messages[1:]) from None
        return [folder]
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and not is_rubbish(path.name)]
    for path in inside:
        refuse_not_utf8(path)
    sets = [path for path in inside if _is_task(path)]
    if not sets and usable_table(folder) is not None:
        return [folder]
    if not sets:
        raise UserError(
            f"{folder}: holds no class folders with pictures (<class>/…, train/<class>/… and "
            f"test/<class>/…, or <class>/train/… and <class>/test/…), nor Parquet files{_hint(folder)}"
        )
    return sets


def _hint(folder: Path) -> str:
    """What else may be meant where no class folders are found."""
    tables = tables_in(folder)
    return f"; {how_to_use(tables[0])}" if tables else ""


def _is_task(folder: Path) -> bool:
    return hub_folder(folder) is not None or _holds_classes(folder)


def _holds_classes(folder: Path) -> bool:
    """Whether pictures lie exactly where those of class folders lie, and not deeper, as in a folder of sets.

    Raises:
        UserError: where the folder cannot be divided without a word.
    """
    if not any(path.is_dir() and not is_rubbish(path.name) for path in folder.iterdir()):
        return False
    source = open_folder(FolderSource(kind="folder", root=str(folder.resolve())), Path("."))
    for split, part in source.parts.items():
        if part is not None:
            below = part.relative_to(source.root).parts
            deep = len(below) + (3 if source.inner else 2)
            if any(len(Path(item.key).parts) == deep for item in source.items(split)):
                return True
    return False


def _look(root: Path, name: str) -> _Found:
    hub = hub_folder(root)
    config = hub.config if hub else _folders_or_table(root)
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
        problem = (
            f"{root}: class {empty[0]!r} has no training images; a class needs at least two pictures in all"
        )
        raise UserError(problem, tuple(broken))
    if not test:
        raise UserError(f"{root}: has no test images")
    left_out = hub.left_out if hub else ()
    suits = suiting(root.resolve().name, source.class_names, source, train)
    return _Found(
        name, root, config, source, tuple(counts), len(train), len(test), tuple(broken), suits, left_out
    )


def _folders_or_table(root: Path) -> FolderSource | ManifestSource:
    """Class folders; the table beside them where they are one class alone, or none."""
    config = FolderSource(kind="folder", root=str(root.resolve()))
    try:
        if len(open_folder(config, Path(".")).class_names) > 1:
            return config
    except UserError:  # told by whoever opens it, if there is no such table
        pass
    return usable_table(root) or config


def _refuse_splits(roots: Sequence[Path]) -> None:
    """Refuse the splits of one data set given as tasks: what one is tested on another would train on.

    Raises:
        UserError: naming them.
    """
    for parent in {root.resolve().parent for root in roots}:
        roles = roles_of(root.name for root in map(Path.resolve, roots) if root.parent == parent)
        if roles.train and (roles.test or roles.validation):
            one, other = roles.train[0], [*roles.test, *roles.validation][0]
            raise UserError(
                f"{parent}: {one!r} and {other!r} are called like the splits of one set of pictures; "
                f"give {parent} for one task, or rename them if they are two"
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
