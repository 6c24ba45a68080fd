"""What a report is made of, and its way into one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
NOTHING = "–"
# Control characters, marks that turn the writing direction of all that follows, halves of pairs.
FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Tables of more rows scroll by themselves, below a head that stays.
MOST_ROWS = 25
# Longer words are broken in narrow tables.
_MOST_LETTERS = 16


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: what is shown.
        value: the number behind it, which tables are sorted by and programs read.
        shade: background colour as ``#rrggbb``, in heat maps.
        mark: ``trained`` for a framed cell, ``best`` for a bold one, ``code`` for a fixed-width one.
        note: read to those who cannot see the mark, and shown on pointing.
        link: address beside the report.
    """

    text: str
    value: float | None = None
    shade: str = ""
    mark: str = ""
    note: str = ""
    link: str = ""

    @property
    def ink(self) -> str:
        """Black or white, whichever stands out more from the shade."""
        return "#000" if _luminance(self.shade) > 0.1791 else "#fff"


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def number(value: float | None, digits: int = 1, signed: bool = False, scale: float = 1.0) -> Cell:
    """A cell for a number; – where there is none."""
    if value is None or not math.isfinite(value):
        return Cell(NOTHING)
    shown = f"{scale * value:,.{digits}f}"
    if not shown.strip("-0.,"):
        return Cell(shown.strip("-"), value)
    return Cell(("+" if signed and value > 0 else "") + shown.replace("-", "−"), value)


def percent(value: float | None, signed: bool = False) -> Cell:
    """A cell for a fraction, in percent (or, signed, in points)."""
    return number(value, 1, signed, 100.0)


@dataclass
class Table:
    """Rows under a caption; the first cell of every row names it.

    Attributes:
        caption: the table's name.
        head: column titles.
        rows: as many cells each.
        note: what the numbers are.
        sortable: whether readers may sort it.
        heat: whether its cells are a heat map.
        filtered: column whose values readers may choose among; None for none.
    """

    kind: ClassVar[str] = "table"
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    sortable: bool = True
    heat: bool = False
    filtered: int | None = None

    @property
    def choices(self) -> list[str]:
        """Values of the filtered column, in their order."""
        return list(dict.fromkeys(row[self.filtered].text for row in self.rows))

    @property
    def tall(self) -> bool:
        """Whether it scrolls by itself below its head, because the head would leave the screen."""
        return len(self.rows) > MOST_ROWS

    def least_width(self, column: int) -> int:
        """Letters that a column must have room for: its longest word, within reason."""
        head = max((len(word) for word in self.head[column].split()), default=0) + 2 * self.sortable
        cells = [len(row[column].text) for row in self.rows if row[column].value is None]
        return min(_MOST_LETTERS, max(head, *cells, 0))

    @property
    def numeric(self) -> list[bool]:
        """Of every column, whether it is aligned to the right; looks at all rows."""
        columns = ([row[place] for row in self.rows] for place in range(len(self.head)))
        told = [[cell for cell in column if cell.text != NOTHING] for column in columns]
        return [bool(cells) and all(cell.value is not None for cell in cells) for cells in told]


@dataclass
class Text:
    """Paragraphs."""

    kind: ClassVar[str] = "text"
    paragraphs: Sequence[str]


@dataclass
class Notice:
    """Something that is missing or that the reader has to know."""

    kind: ClassVar[str] = "notice"
    sentences: Sequence[str]


@dataclass
class Card:
    """A headline number, its meaning, and why it is missing where it is."""

    name: str
    cell: Cell
    unit: str
    meaning: str


@dataclass
class Cards:
    """Headline numbers."""

    kind: ClassVar[str] = "cards"
    cards: Sequence[Card]


@dataclass
class Figure:
    """A drawing.

    Attributes:
        caption: below it.
        svg: safe markup from :func:`~cl_complora.report.svg.inline`.
    """

    caption: str
    svg: Markup


@dataclass
class Gallery:
    """Drawings side by side.

    Attributes:
        figures: the drawings.
        size: ``small`` (four in a row where there is room), ``middle`` (two) or ``wide``.
        note: what they show and how to read them.
    """

    kind: ClassVar[str] = "gallery"
    figures: Sequence[Figure]
    size: str = "middle"
    note: str = ""


@dataclass
class Choice:
    """Drawings of which one is shown at a time; all of them in print and without scripts.

    Attributes:
        question: what is chosen.
        figures: label → drawing.
        note: how to read them.
    """

    kind: ClassVar[str] = "choice"
    question: str
    figures: dict[str, Figure]
    note: str = ""


@dataclass
class Picture:
    """A photograph as a data address, with its description and what is said below it."""

    source: str
    description: str
    lines: Sequence[str]


@dataclass
class Pictures:
    """Photographs."""

    kind: ClassVar[str] = "pictures"
    pictures: Sequence[Picture]
    note: str = ""


@dataclass
class Code:
    """Text to copy."""

    kind: ClassVar[str] = "code"
    label: str
    text: str


@dataclass
class Terms:
    """Names and what stands for them."""

    kind: ClassVar[str] = "terms"
    terms: dict[str, str]


@dataclass
class Fold:
    """Something that is opened on demand."""

    kind: ClassVar[str] = "fold"
    summary: str
    blocks: Sequence[Block]


Block = Table | Text | Notice | Cards | Gallery | Choice | Pictures | Code | Terms | Fold


@dataclass
class Section:
    """A part of the page with its place in the table of contents."""

    anchor: str
    title: str
    blocks: list[Block] = field(default_factory=list)


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def with_links(page: str, links: Sequence[Cell]) -> str:
    """A page that was written without links to other reports, with some; any other stays as it is."""
    ways = _environment().get_template("blocks.html").module.ways
    return page.replace(f"{ways([])}\n", f"{ways(links)}\n", 1)


@dataclass
class Page:
    """A whole report.

    Attributes:
        title: of the page.
        kicker: the line above the title.
        facts: what was run, in short.
        sections: the parts; empty ones are left out.
        made_by: the line at the end.
        links: to other reports, below the facts.
    """

    title: str
    kicker: str
    facts: dict[str, str]
    sections: Sequence[Section]
    made_by: str
    links: Sequence[Cell] = ()

    def html(self) -> str:
        """The page as one file."""
        script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        text = (
            _environment()
            .get_template("page.html")
            .render(
                page=self,
                sections=[section for section in self.sections if section.blocks],
                style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
                script=Markup(script),
                script_digest=digest,
            )
        )
        return FORBIDDEN.sub("", text)  # names from data files may hold what no page may
