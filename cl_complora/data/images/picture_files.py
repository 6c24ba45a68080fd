"""Which files and folders below a folder are pictures, and which are passed over, by kind and by name."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ...errors import MOST_FAULTS, raise_all
from ...files import is_utf8
from ..telling import Faults, counted

# What people keep photographs in, of the formats that Pillow reads; which it does read here is asked of it.
_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .bmp .dib .gif .tif .tiff .ppm .pgm .pbm .pnm .pfm .pcx .tga "
    ".jp2 .j2k .jpf .jpx .jpc .avif .avifs .qoi".split()
)
# Read with a further package.
HEIF = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})
# How files begin that are pictures whatever they are called.
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")

# Folders in which servers, systems and programs keep copies, thumbnails and what was deleted. Not "trash",
# which is a class of waste.
_RUBBISH = frozenset(
    "__macosx @eadir @tmp @recycle @recently-snapshot #recycle #snapshot lost+found $recycle.bin "
    "recycler recycled __pycache__ thumbs.db desktop.ini node_modules @synoresource @appstore @docker "
    "@database msocache config.msi _gsdata_".split()
) | {"system volume information", "network trash folder", "temporary items", "icon\r"}
# Where Windows puts what it repairs: found.000.
_CHKDSK = re.compile(r"found\.\d{3}", re.IGNORECASE)
# The same inside a class, where a class of that name cannot be meant.
_THUMBNAILS = frozenset("thumbnails _thumbnails thumbnail thumbs _thumbs thumb _thumb".split())
# What names of masks and annotations end in, behind that of their picture.
_MASK = re.compile(r"[ _.-](?:mask|seg|segmentation|gt|groundtruth|annotation|heatmap)$", re.IGNORECASE)
_THUMBNAIL_FILES = ("synophoto_thumb_*", "synoindex_media_info*", "ehthumbs*.db")


@cache
def image_suffixes() -> frozenset[str]:
    """Suffixes, in small letters, of the pictures that this installation of Pillow reads."""
    from PIL import Image

    known = Image.registered_extensions()
    read = frozenset(suffix for suffix in _SUFFIXES if known.get(suffix) in Image.OPEN)
    # Two more names of JPEG files, which Pillow does not list.
    read |= {".jif", ".mpo"}
    return read | HEIF if reads_heif() else read


def reads_heif() -> bool:
    """Whether pillow-heif is installed (``pip install cl_complora[heif]``)."""
    return find_spec("pillow_heif") is not None


def is_rubbish(name: str) -> bool:
    """Whether a name is one that systems, servers and programs give: hidden (``.ipynb_checkpoints``, macOS's
    ``._name``), or a folder of theirs (``@eaDir``, ``lost+found``, ``$RECYCLE.BIN``, ``__pycache__``)."""
    return name.startswith((".", "~$")) or name.casefold() in _RUBBISH or bool(_CHKDSK.fullmatch(name))


class Exclude:
    """What to leave out.

    Args:
        patterns: of names, or of paths below a root (``*_mask.png``, ``old/*``).

    Attributes:
        idle: those that have left nothing out so far.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._patterns = self.idle = list(dict.fromkeys(patterns))

    def leaves_out(self, path: Path, root: Path) -> bool:
        """Whether a pattern is that of a file's or folder's name, or of its path below the root."""
        if not self._patterns:
            return False
        below = path.relative_to(root).as_posix()
        fitting = [one for one in self._patterns if fnmatch(path.name, one) or fnmatch(below, one)]
        if fitting and self.idle:
            self.idle = [one for one in self.idle if one not in fitting]
        return bool(fitting)


@dataclass
class Found:
    """What lies below a folder.

    Attributes:
        pictures: sorted by their path's parts.
        others: suffix → how many files are passed over since they are no pictures by their suffix and
            content.
        example: suffix → one of them.
        rubbish: name of a folder of servers or systems, or kind of file → how many are passed over.
        dangling: links that lead nowhere.
        not_followed: links to folders.
    """

    pictures: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    example: dict[str, str] = field(default_factory=dict)
    rubbish: Counter[str] = field(default_factory=Counter)
    dangling: list[str] = field(default_factory=list)
    not_followed: list[str] = field(default_factory=list)

    def add(self, other: Found) -> None:
        """Count what another search found and passed over as well."""
        self.pictures += other.pictures
        self.others += other.others
        self.rubbish += other.rubbish
        self.dangling += other.dangling
        self.not_followed += other.not_followed
        self.example = other.example | self.example

    def notes(self, where: str) -> list[str]:
        """A line for what was passed over, and one for the pictures that a further package would read."""
        lines = []
        told = [f"{count} {suffix or 'without a suffix'}" for suffix, count in self.others.most_common()]
        if told:
            example = next(iter(self.example.values()))
            passed = counted(self.others.total(), "file is", "files are")
            lines.append(
                f"{where}: {passed} passed over, no pictures by suffix and content: "
                f"{', '.join(told[:5])}{' …' if len(told) > 5 else ''} (such as {example})"
            )
        if HEIF & set(self.others):
            lines.append(f"{where}: pip install 'cl_complora[heif]' to read its .heic and .heif pictures")
        if masks := _masks(self.pictures):
            such = f"{counted(len(masks), 'picture is', 'pictures are')} called like masks of others"
            lines.append(
                f"{where}: {such}, such as {masks[0].name}; "
                f'if they show no class, exclude: ["*{_MASK.search(masks[0].stem)[0]}.*"] leaves them out'
            )
        if self.rubbish.total():
            told = [f"{name} ({count})" for name, count in self.rubbish.most_common() if count]
            more = f" and {len(told) - 5} more" if len(told) > 5 else ""
            lines.append(f"{where}: of servers and systems, and passed over: {', '.join(told[:5])}{more}")
        if self.dangling:
            lead = counted(len(self.dangling), "link leads", "links lead")
            lines.append(f"{where}: {lead} nowhere, such as {self.dangling[0]}")
        if self.not_followed:
            links = counted(len(self.not_followed), "link to a folder is", "links to folders are")
            lines.append(f"{where}: {links} not followed below a class, such as {self.not_followed[0]}")
        return lines


def _masks(pictures: Sequence[Path]) -> list[Path]:
    """Pictures whose name is that of another one in the same folder and says that they are its mask."""
    said = [(path, found) for path in pictures if (found := _MASK.search(path.stem))]
    known = {(path.parent, path.stem) for path in pictures} if said else set()
    return [path for path, found in said if (path.parent, path.stem[: found.start()]) in known]


def find_pictures(
    folder: Path, exclude: Exclude | None = None, root: Path | None = None, deep: bool = True
) -> Found:
    """Look for pictures below a folder; links to folders are not followed.

    Args:
        folder: where to look.
        exclude: what to leave out; nothing by default.
        root: what its patterns' paths start from; the folder itself by default.
        deep: whether to look into the folders inside it.

    Raises:
        OSError: for a folder that cannot be read.
        UserError: for names that no manifest can hold.
    """
    found, faults = Found(), Faults(folder)
    exclude, suffixes = exclude or Exclude(), image_suffixes()
    seen_from = root or folder
    for parent, folders, files in os.walk(folder, onerror=_raise):
        for name in list(folders):
            if is_rubbish(name) or name.casefold() in _THUMBNAILS:
                folders.remove(name)
                if not name.startswith("."):
                    found.rubbish[name] += 1
            elif exclude.leaves_out(Path(parent, name), seen_from):
                folders.remove(name)
            elif deep and os.path.islink(os.path.join(parent, name)):
                found.not_followed.append(Path(parent, name).relative_to(seen_from).as_posix())
        if not deep:
            folders.clear()
        for name in files:
            path = Path(parent, name)
            if is_rubbish(name) or exclude.leaves_out(path, seen_from):
                continue
            if any(fnmatch(name.casefold(), pattern) for pattern in _THUMBNAIL_FILES):
                found.rubbish["thumbnails"] += 1
                continue
            suffix = path.suffix.lower()
            if not path.is_file():
                if path.is_symlink() and not os.path.exists(path):
                    found.dangling.append(path.relative_to(seen_from).as_posix())
                continue
            if suffix in suffixes or (suffix not in HEIF and _begins_as_picture(path, suffix)):
                found.pictures.append(path)
                faults.add(*_odd_name(path))
            else:
                found.others[suffix] += 1
                found.example.setdefault(suffix, path.relative_to(seen_from).as_posix())
    faults.refuse()
    found.pictures.sort(key=lambda path: path.parts)
    return found


def pictures_below(folder: Path) -> list[Path]:
    """The pictures alone of :func:`find_pictures`."""
    return find_pictures(folder).pictures


def _begins_as_picture(path: Path, suffix: str) -> bool:
    """Whether a file that has no suffix, or one that says nothing (``.1``, ``.image``), begins as
    pictures do."""
    if suffix in _OF_OTHERS:
        return False
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        return False
    return (
        head.startswith(_MAGIC)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or head[:2] == b"BM"
        and not suffix
    )


# Files that are looked at by nobody: they stand beside pictures and are none, or hold one that is not a
# photograph.
_OF_OTHERS = frozenset(
    ".txt .csv .tsv .json .jsonl .xml .yaml .yml .md .html .htm .pdf .zip .tar .gz .npy .npz .mat .py .db "
    ".ini .log "
    ".mp4 .avi .mov .psd .ai .svg .eps .ico .cur .raw .dng .cr2 .nef .arw .exr .hdr .dcm .nii".split()
)


def _raise(error: OSError) -> None:
    raise error


def refuse_not_utf8(*paths: Path) -> None:
    """Raise for paths whose names cannot be written down.

    Raises:
        UserError: naming each.
    """
    raise_all([fault for path in paths for fault in _odd_name(path)][:MOST_FAULTS])


def _odd_name(path: Path) -> list[str]:
    if is_utf8(str(path)):
        return []
    shown = os.fsencode(path).decode("utf-8", "backslashreplace")
    return [f"{shown}: the name is not UTF-8; rename this file or folder (in a file manager, or with convmv)"]
