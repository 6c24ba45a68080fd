"""Lists of files as WebDataset writes them: ``{000..010}`` and ``{a,b}`` as in a shell, ``*``, and ``::``
between several."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ...errors import UserError

# More files than any set of shards has, and soon listed.
MOST = 100_000
# Characters between two ``::``: the time to expand grows with their square.
MAX_LENGTH = 1000
_RANGE = re.compile(r"(-?[0-9]{1,9})\.\.(-?[0-9]{1,9})(?:\.\.(-?[0-9]{1,9}))?")
_LETTERS = re.compile(r"([A-Za-z])\.\.([A-Za-z])")
_ADDRESS = re.compile(r"(?:pipe|[A-Za-z][A-Za-z0-9+.-]*(?=://)):")


def files_of(pattern: str, folder: Path, what: str = "shard") -> list[Path]:
    """The files that a pattern names: braces in their order, each ``*`` sorted.

    Args:
        pattern: paths, below ``folder`` where they are relative.
        folder: that of the scenario.
        what: such a file is called in messages.

    Raises:
        UserError: where a name or a pattern matches nothing, or two of them the same file.
    """
    found: dict[Path, None] = {}
    if _ADDRESS.match(pattern):
        raise UserError(f"{pattern}: {what}s are read from files of this machine; fetch them first")
    for part in pattern.split("::"):
        if not part.strip():
            raise UserError(f"{pattern}: an empty name among the {what}s; part patterns with one ::")
        for name in [part] if os.path.lexists(folder / os.path.expanduser(part)) else _named(part, what):
            for path in _matches(name, folder, what):
                if path in found:
                    raise UserError(f"{path}: this {what} is named twice by {pattern}")
                found[path] = None
                if len(found) > MOST:
                    raise UserError(f"{pattern}: names more than {MOST:,} {what}s")
    return list(found)


def _named(part: str, what: str) -> list[str]:
    if len(part) > MAX_LENGTH:
        raise UserError(f"{part[:60]}…: a pattern has at most {MAX_LENGTH:,} characters; part them with ::")
    try:
        names = list(itertools.islice(braces(part), MOST + 1))
    except RecursionError:
        raise UserError(f"{part[:60]}…: braces are nested too deeply") from None
    if len(names) > MOST:
        raise UserError(f"{part}: names more than {MOST:,} {what}s")
    return names


def _matches(name: str, folder: Path, what: str) -> list[Path]:
    """The file of this name, or those that its ``*``, ``?`` and ``[…]`` stand for."""
    path = folder / os.path.expanduser(name)
    if os.path.lexists(path):
        return [path]
    inside = os.path.expanduser(name)
    matches = glob.glob(inside, root_dir=folder, recursive=True) if glob.has_magic(inside) else []
    if not matches:
        raise UserError(f"{path}: no {what} matches")
    return sorted(folder / match for match in matches)


def braces(text: str) -> Iterator[str]:
    """What a shell makes of ``a{1..3}`` (a1 a2 a3), ``{x,y}`` and both within one another.

    Numbers keep the width of the wider end where one is written with zeros in front; braces that hold neither
    a list nor a range stay as they are.
    """
    for start, character in enumerate(text):
        if character == "{" and (end := _closing(text, start)) is not None:
            options = _options(text[start + 1 : end])
            if options is not None:
                for option in options:
                    for rest in braces(text[end + 1 :]):
                        yield text[:start] + option + rest
                return
    yield text


def _closing(text: str, start: int) -> int | None:
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return place
    return None


def _options(inside: str) -> Iterator[str] | None:
    """What stands between braces, one at a time; None where it is neither a list nor a range."""
    if match := _RANGE.fullmatch(inside):
        first, last = int(match[1]), int(match[2])
        step = abs(int(match[3] or 1)) or 1
        padded = any(re.fullmatch("-?0[0-9]+", end) for end in match.group(1, 2))
        width = max(len(match[1]), len(match[2])) if padded else 0
        numbers = range(first, last + 1, step) if first <= last else range(first, last - 1, -step)
        return (f"{number:0{width}d}" for number in numbers)
    if match := _LETTERS.fullmatch(inside):
        first, last = ord(match[1]), ord(match[2])
        return map(chr, range(first, last + 1) if first <= last else range(first, last - 1, -1))
    parts, depth = [""], 0
    for character in inside:
        depth += (character == "{") - (character == "}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return (option for part in parts for option in braces(part)) if len(parts) > 1 else None


def called(paths: Sequence[Path]) -> dict[Path, str]:
    """What files are called in keys: their names, with their folders' where two have the same one."""
    names = {path: path.name for path in paths}
    if len(set(names.values())) < len(names):
        common = common_folder(paths)
        names = {path: Path(os.path.relpath(path, common)).as_posix() for path in names}
    return names


def common_folder(paths: Iterable[Path]) -> Path:
    """The folder that all files lie in or below.

    Raises:
        UserError: where there is none, on several drives of Windows.
    """
    folders = sorted({os.path.dirname(os.path.abspath(path)) for path in paths})
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:
        first, *_, last = folders
        raise UserError(f"{first} and {last}: files of one source must lie on one drive") from None
