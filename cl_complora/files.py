"""Files: written whole or not at all; read only where they are files, and no more of them than is
bearable."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import platform
import re
import secrets
import stat
import tempfile
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .errors import UserError

MAX_LINE = 100_000
# File systems take names of 255 bytes, and a suffix follows.
_LONGEST = 200
_MOST_BYTES = 255
_LONGEST_HOST = 40

# Windows has no pipes among its files, and would read them as text.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    Opening a pipe waits for a writer, a device may never end, and either may do something when it is opened.

    Raises:
        OSError: also for what is no regular file, and for a name that no file can have.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError:  # a zero byte, or half a character
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    # What was a file a moment ago may be a pipe by now: not waited for.
    return open(os.open(path, _READ), "rb")


def read_bytes(path: Path, most: int) -> bytes:
    """Content of a regular file.

    Raises:
        OSError: as :func:`open_file`, and for a file of more than ``most`` bytes.
    """
    with open_file(path) as file:
        content = file.read(min(most, os.fstat(file.fileno()).st_size) + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"is larger than {most:,} bytes", str(path))
    return content


def read_text(path: Path, most: int) -> str:
    """Text of a file in UTF-8, with or without a byte-order mark.

    Raises:
        UserError: for what :func:`read_bytes` refuses, and for other bytes.
    """
    try:
        content = read_bytes(path, most)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        how = " (in Excel: CSV UTF-8)" if path.suffix.lower() == ".csv" else ""
        raise UserError(
            f"{path}:{line}: cannot be read: must be text in UTF-8, got the byte 0x{byte:02x};"
            f" save it as UTF-8{how}"
        ) from None


def read_lines(path: Path, most: int) -> Iterator[str]:
    """Lines of a file in UTF-8, one at a time, each with its end.

    Not ``str.splitlines``, which also splits at characters that JSON and file names may hold as they are.

    Raises:
        UserError: as :func:`read_text`, and for a line of more than ``MAX_LINE`` characters.
    """
    try:
        with open_file(path) as file:
            if os.fstat(file.fileno()).st_size > most:
                raise OSError(errno.EFBIG, f"is larger than {most:,} bytes", str(path))
            text, number = io.TextIOWrapper(file, encoding="utf-8-sig"), 1
            while line := text.readline(MAX_LINE + 1):
                if len(line) > MAX_LINE:
                    raise UserError(f"{path}:{number}: this line has more than {MAX_LINE:,} characters")
                yield line
                number += 1
    except UnicodeDecodeError:
        read_text(path, most)  # which says where
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def json_lines(path: Path, most: int) -> Iterator[tuple[int, Any]]:
    """Number and value of every line of JSON that is not blank; None for one that is no JSON.

    Raises:
        UserError: as :func:`read_lines`.
    """
    for number, line in enumerate(read_lines(path, most), start=1):
        if line.strip():
            try:
                yield number, parse_json(line)
            except ValueError:
                yield number, None


def stand_in(head: bytes) -> str:
    """What stands where a file should, by its first bytes: ``a git-lfs pointer …``, ``a web page …``; empty
    where it is neither."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer and not the file itself; run 'git lfs pull' where it came from"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page (HTML), which a server answered instead of the file"
    return ""


def parse_json(text: str | bytes, own: bool = False) -> Any:
    """As ``json.loads``, with one kind of error for everything that is no JSON.

    Args:
        text: of the file.
        own: whether it is of a kind that this package writes, with no whole number beyond 64 bits, of which
            many could not be computed with.

    Raises:
        ValueError: also for lists and objects that are nested too deeply.
    """
    try:
        return json.loads(text, parse_int=within_64_bits if own else None)
    except RecursionError:
        raise ValueError("lists and objects are nested too deeply") from None


def within_64_bits(number: str | int) -> int:
    """A whole number that arrays and floats hold.

    Raises:
        ValueError: for another.
    """
    value = int(number)
    if not -(2**63) <= value < 2**63:
        raise ValueError("a whole number has more than 64 bits")
    return value


def temporary_beside(path: Path) -> Path:
    """A name that no other process on any machine writes under: ``.<name>,<host>,<pid>,<random>.tmp``."""
    tail = f",{platform.node()[:_LONGEST_HOST]},{os.getpid()},{secrets.token_hex(4)}.tmp"
    name = path.name
    while len(os.fsencode(f".{name}{tail}")) > _MOST_BYTES:
        name = name[:-1]
    return path.with_name(f".{name}{tail}")


def writer_of(temporary: Path) -> tuple[str, int] | None:
    """Host and process of a file that :func:`temporary_beside` named, or an earlier version did on this host;
    None for another file."""
    match = re.fullmatch(r"\..*?(?:,([^,]*),(\d{1,10}),[0-9a-f]{8}|\.(\d{1,10}))\.tmp", temporary.name)
    return match and (platform.node() if match[1] is None else match[1], int(match[2] or match[3]))


# Nobody takes as long for one part of a file, however slow the folder is. In seconds.
_SILENT = 3600.0


def is_left(temporary: Path) -> bool:
    """Whether nobody writes a temporary file any more: its process is dead, or it is long silent.

    Raises:
        OSError: where it is gone, or may not be looked at.
    """
    writer = writer_of(temporary)
    silent = time.time() - temporary.stat().st_mtime > _SILENT
    return silent or (writer is not None and writer[0] == platform.node() and not is_running(writer[1]))


def is_running(process: int, began: float | None = None) -> bool:
    """Whether there is a process of this machine; True also where it may not be looked up.

    Args:
        process: its number.
        began: when it began, in seconds since 1970, where that is known: the system gives numbers anew.
    """
    import psutil

    try:
        found = psutil.Process(process)
        # Times of start are told to a hundredth of a second.
        same = began is None or abs(found.create_time() - began) < 1.0
        return same and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # it is there, and may not be asked
        return True


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part, even across power
    loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        # Of a full disk Python does not know the file, and of others it names the temporary one.
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(path)
        temporary.unlink(missing_ok=True)
        raise
    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders, nor does a folder that may only be written in
        return
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def check_writable(path: Path, told: str) -> None:
    """Refuse a place where nothing can be written, before hours are spent on what would be.

    Args:
        path: of a file or folder that may not be there yet.
        told: what a message calls it, such as the option and the path.

    Raises:
        UserError: naming it, and what the system says.
    """
    try:
        whole = path.absolute()
        there = whole if whole.is_dir() else next(one for one in whole.parents if one.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(f"{told}: cannot be written: {error.strerror or error}") from None


def write_text(path: Path, text: str) -> None:
    """:func:`write_bytes` for text in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """:func:`write_bytes` for JSON; NaN, which JSON does not know, becomes null."""
    write_text(path, json.dumps(finite(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def yaml_text(value: Any) -> str:
    """YAML of plain values, keys in their order; by libyaml, where PyYAML was built with it (the same text,
    five times as fast)."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=True)


def finite(value: Any) -> Any:
    """The value with null for every number that JSON does not know, and lists for tuples."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def digits(value: float) -> str:
    """``0.001``, ``1e-05``: a number in as few digits as give it back, for names of folders.

    Six are enough for those that people write, and make the names that earlier versions gave.
    """
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def slug(name: str) -> str:
    """A name (of a task, a scenario, the settings of a run) as a file name.

    A digest at the end tells names apart that have letters beyond ASCII, or are longer than what is kept.
    Names of ASCII that differ only in what becomes a hyphen (``my lora``, ``my-lora``) have one file name:
    who gives each its own folder has to compare those. ``.`` and ``..``, which lead elsewhere, are no result.
    """
    name = unicodedata.normalize("NFC", name)
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "-", name)
    dots = name != "" and not name.strip(".")
    if name.isascii() and len(plain) <= _LONGEST and not dots:
        return plain
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"dots-{digest[:8]}" if dots else f"{plain[:_LONGEST].strip('-')}-{digest[:8]}".lstrip("-")


def is_utf8(name: str) -> bool:
    """Whether a file's name can be written down; Python reads other bytes as half characters."""
    return not any("\ud800" <= character <= "\udfff" for character in name)
