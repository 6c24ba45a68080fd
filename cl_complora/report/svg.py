"""Matplotlib figures as inline SVG: they take the page's colours and font, and share no id with one
another."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from .elements import FORBIDDEN

# Stand-ins that no drawing uses otherwise; each becomes a variable of the page, which light and dark define.
INK, MUTED, LINE, PAPER = "#010203", "#040506", "#070809", "#0a0b0c"
BLUE, RED, GREEN, PURPLE, SKY = "#0d0e0f", "#101112", "#131415", "#161718", "#191a1b"
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    PAPER: "var(--paper)",
    BLUE: "var(--blue)",
    RED: "var(--red)",
    GREEN: "var(--green)",
    PURPLE: "var(--purple)",
    SKY: "var(--sky)",
}

_SETTINGS = {
    "svg.fonttype": "none",  # text stays text: it can be searched, read aloud and takes the page's font
    "svg.hashsalt": "cl_complora",
    "text.parse_math": False,  # a class called $x$ is no formula
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 1,
    "axes.axisbelow": True,
    "axes.labelsize": 11,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "xtick.labelcolor": MUTED,
    "xtick.labelsize": 10.5,
    "xtick.bottom": False,
    "ytick.left": False,
    "ytick.color": LINE,
    "ytick.labelcolor": MUTED,
    "ytick.labelsize": 10.5,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "lines.solid_capstyle": "round",
}

_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}href"


@contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """An empty figure of so many CSS pixels, whose style holds within."""
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        # Letters that the measuring font lacks are drawn by the reader's browser.
        warnings.simplefilter("ignore")
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, frameon=False)
        FigureCanvasSVG(figure)
        yield figure


def plain(text: str, most: int = 0) -> str:
    """A name without what no drawing can hold, on one line, shortened to ``most`` letters."""
    kept = " ".join(FORBIDDEN.sub("", text).split())
    return kept if not most or len(kept) <= most else kept[: most - 1].rstrip() + "…"


def inline(figure: Figure, prefix: str, title: str, description: str) -> Markup:
    """The figure as markup for an HTML page, to be called within :func:`drawing`.

    Args:
        figure: drawn with the colours above.
        prefix: tells its ids from those of the other figures of a page.
        title: its name for those who cannot see it.
        description: what it shows, in words.
    """
    prefix = f"svg-{prefix}"
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    root = ElementTree.fromstring(buffer.getvalue())
    _rename(root, prefix)
    _restyle(root)
    _unwrap(root)
    width, height = root.attrib["viewBox"].split()[2:]
    root.attrib.update(width=f"{float(width):g}", height=f"{float(height):g}", role="img")
    root.attrib.pop("version", None)
    root.set("aria-labelledby", f"{prefix}-title {prefix}-desc")
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        node = ElementTree.Element(tag, id=f"{prefix}-{tag}")
        node.text = plain(text)
        root.insert(place, node)
    # Serialised as text that is safe in HTML: ElementTree has escaped all that came from names.
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _rename(root: ElementTree.Element, prefix: str) -> None:
    """Leave only the ids that something refers to, and begin them with the prefix."""
    used = set()
    for node in root.iter():
        used |= {value[1:] for name, value in node.attrib.items() if name == _XLINK}
        used |= set(re.findall(r"url\(#([^)]+)\)", " ".join(node.attrib.values())))
    for node in root.iter():
        node.tag = node.tag.removeprefix(_SVG)
        own = node.attrib.pop("id", None)
        if own in used:
            node.set("id", f"{prefix}-{own}")
        target = node.attrib.pop(_XLINK, None)
        if target is not None:
            node.set("href", f"#{prefix}-{target[1:]}" if target.startswith("#") else target)
        for name, value in node.attrib.items():
            node.attrib[name] = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", value)


def _restyle(root: ElementTree.Element) -> None:
    """Colours to the page's variables, fonts to sizes alone, numbers to a hundredth of a pixel."""
    for node in root.iter():
        if node.get("transform", "").startswith("rotate(-0 "):
            del node.attrib["transform"]
        for name, value in node.attrib.items():
            if name == "style":
                value = re.sub(r"; font-family: [^;]*", "", value)
                value = re.sub(r"#[0-9a-f]{6}", lambda found: _VARIABLES.get(found[0], found[0]), value)
                node.attrib[name] = re.sub(r"font: (?:(\w+) )?([\d.]+)px [^;]*", _font, value)
            elif name in ("d", "transform", "x", "y", "width", "height", "points"):
                node.attrib[name] = " ".join(re.sub(r"(\.\d\d)\d+", r"\1", value).split())


def _unwrap(root: ElementTree.Element) -> None:
    """Without groups that group nothing, empty drawings and the style sheet, which would hold for the whole
    page."""
    kept: list[ElementTree.Element] = []
    for child in list(root):
        _unwrap(child)
        if child.tag == "g" and not child.attrib:
            kept += child
        elif child.tag not in ("metadata", "style") and not (child.tag in ("g", "defs") and not len(child)):
            child.tail = None
            kept.append(child)
    if len(root) or root.tag in ("g", "defs"):
        root.text = None
    root[:] = kept


def _font(found: re.Match) -> str:
    return (f"font-weight: {found[1]}; " if found[1] else "") + f"font-size: {found[2]}px"
