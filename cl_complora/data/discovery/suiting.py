"""Prompts and augmentation that suit class folders, from the names in them and a look at some pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from ...config.scenario import DEFAULT_PROMPTS
from ..checks.plausibility import is_code
from ..images.pictures import Pictures
from ..images.pixels import MAX_BYTES, open_picture
from ..images.survey import spread
from ..items import Item

# Pictures that are opened of a task.
LOOKED = 24
# Pixels of the shorter side below which a crop leaves too little to see.
SMALL = 64
CROP, CROP_OF_SMALL = (0.7, 1.0), (0.9, 1.0)
# The largest difference of two channels in a grey picture, for compression makes some.
GREY = 12

# Words in a folder's name → what its pictures are, and their prompts: CLIP's published ones or after them.
_KINDS: tuple[tuple[frozenset[str], str, tuple[str, ...]], ...] = tuple(
    (frozenset(words.split()), what, prompts)
    for words, what, prompts in (
        (
            "eurosat resisc ucmerced satellite aerial landuse",
            "views from above",
            ("a satellite photo of {}.",),
        ),
        ("dtd texture textures", "textures", ("a photo of a {} texture.",)),
        ("gtsrb roadsigns trafficsigns traffic", "traffic signs", ('a photo of a "{}" traffic sign.',)),
        ("mnist svhn digit digits", "digits", ('a photo of the number: "{}".',)),
        ("flower flowers blossoms", "flowers", ("a photo of a {}, a type of flower.",)),
        ("food foods dish dishes meal meals", "food", ("a photo of {}, a type of food.",)),
        ("pet pets", "pets", ("a photo of a {}, a type of pet.",)),
        ("bird birds cub", "birds", ("a photo of a {}, a type of bird.",)),
        ("aircraft aircrafts airplanes", "aircraft", ("a photo of a {}, a type of aircraft.",)),
        ("waste trash garbage trashnet recycling litter", "waste", ("a photo of {}, a type of waste.",)),
        ("sketch sketches doodle doodles quickdraw", "sketches", ("a sketch of a {}.", "a drawing of a {}.")),
        ("drawing drawings", "drawings", ("a drawing of a {}.",)),
        ("cartoon cartoons comic comics", "cartoons", ("a cartoon of a {}.",)),
        ("painting paintings artpainting", "paintings", ("a painting of a {}.",)),
        ("clipart cliparts", "clip art", ("a clipart of a {}.",)),
        ("xray xrays radiograph radiographs", "X-rays", ("an x-ray image of {}.",)),
        ("histology pathology histopathology", "slides", ("a histology image of {}.",)),
        ("action actions ucf", "actions", ("a photo of a person doing {}.",)),
    )
)
# What pictures are, their prompts, and what says so.
Kind = tuple[str, tuple[str, ...], str]
# Of these, a mirrored one is another, or none.
_ONE_WAY = frozenset(("traffic signs", "digits", "X-rays"))
_NUMBERS = frozenset("zero one two three four five six seven eight nine ten".split())
_DIRECTIONS = re.compile(
    r"\b(left|right|east|west|clockwise|anticlockwise|counterclockwise|arrow|letter|digit|number|text|word)s?\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Suiting:
    """What suits a task, each with the reason.

    Attributes:
        prompts: templates.
        prompts_why: the reason.
        crop: smallest and largest share of the area that a random crop keeps.
        crop_why: the reason.
        flip: whether a mirrored picture is one of the same class.
        flip_why: the reason.
    """

    prompts: tuple[str, ...]
    prompts_why: str
    crop: tuple[float, float]
    crop_why: str
    flip: bool
    flip_why: str

    @property
    def augment(self) -> str:
        """The augmentation as YAML has it."""
        crop = ", ".join(map(str, self.crop))
        return f"{{crop: [{crop}], flip: {str(self.flip).lower()}}}"

    @property
    def augment_why(self) -> str:
        """Both reasons."""
        return f"{self.crop_why}; {self.flip_why}"


def suiting(folder: str, class_names: Sequence[str], pictures: Pictures, items: Sequence[Item]) -> Suiting:
    """What suits a task.

    Args:
        folder: name of its folder.
        class_names: of its classes.
        pictures: the source.
        items: its training pictures, of which some are opened.
    """
    kind = _kind(folder, class_names)
    side, grey = _look(pictures, items)
    prompts, why = _prompts(class_names, kind)
    if grey:
        prompts = (
            *prompts,
            *(one.replace("photo", "black and white photo") for one in prompts if "photo" in one),
        )
        why += "; the pictures are grey"
    flip, flip_why = _flip(class_names, kind)
    small = side is not None and side < SMALL
    crop_why = (
        "size unknown"
        if side is None
        else f"the shorter side is {side} px, " + ("too few to lose many" if small else "enough to lose some")
    )
    return Suiting(
        tuple(dict.fromkeys(prompts)), why, CROP_OF_SMALL if small else CROP, crop_why, flip, flip_why
    )


def _kind(folder: str, names: Sequence[str]) -> Kind | None:
    if all(name.strip().lower() in _NUMBERS for name in names):
        digits = next((what, prompts) for _, what, prompts in _KINDS if what == "digits")
        return *digits, "classes are called by numbers"
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", folder)
    words = {word.lower() for word in re.findall(r"[^\W\d_]+", spaced)} | {
        re.sub(r"[\W\d_]+", "", folder).lower()
    }
    return next(
        (
            (what, prompts, f"the folder's name speaks of {what}")
            for known, what, prompts in _KINDS
            if known & words
        ),
        None,
    )


def _prompts(names: Sequence[str], kind: Kind | None) -> tuple[tuple[str, ...], str]:
    if kind is not None:
        return kind[1], kind[2]
    if all(len(name.strip()) == 1 and not name.isdigit() for name in names):
        return ('a photo of the letter "{}".',), "classes are called by single letters"
    if all(map(is_code, names)):
        return tuple(DEFAULT_PROMPTS), "classes are called by codes, which tell a CLIP nothing: rename them"
    plural = [name for name in names if re.search(r"[^sui]s$", name) or re.match(r"(an?|the) ", name)]
    if 2 * len(plural) > len(names):
        return ("a photo of {}.",), f"most names need no article ({plural[0]!r})"
    return tuple(DEFAULT_PROMPTS), "names of things"


def _flip(names: Sequence[str], kind: Kind | None) -> tuple[bool, str]:
    if kind is not None and kind[0] in _ONE_WAY:
        return False, f"mirrored, {kind[0]} are others or none"
    for name in names:
        if len(name.strip()) == 1 or name.strip().isdecimal() or _DIRECTIONS.search(name):
            return False, f"mirrored, {name!r} may be another class or none"
    return True, "no class name speaks of a direction, letter or number"


def _look(pictures: Pictures, items: Sequence[Item]) -> tuple[int | None, bool]:
    """Median of the shorter side in pixels, and whether all pictures looked at are grey."""
    sides, grey = [], []
    for item in spread(items, LOOKED):
        try:
            with pictures.stored(item) as file:
                content = file.read(MAX_BYTES)
            with open_picture(content) as image:
                sides.append(min(image.size))
                grey.append(_is_grey(image))
        except Exception:  # told by whoever loads it
            continue
    return (int(median(sides)), all(grey)) if sides else (None, False)


def _is_grey(image) -> bool:
    from PIL import ImageChops

    if image.mode in ("1", "L", "LA") or image.mode.startswith("I;16"):
        return True
    image.draft("RGB", (64, 64))
    red, green, blue = image.convert("RGB").resize((32, 32)).split()
    apart = (ImageChops.difference(one, green).getextrema()[1] for one in (red, blue))
    return max(apart) <= GREY
