"""Reading an HTML page: its tables and elements, that it stands alone, and that everybody can read it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

MOST_BYTES = 3_000_000
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "$\\frac{$ & {{ 7 * 7 }}",
    "</svg></style></title><!--",
    "a\x00b\x1bc\u202e ü\u2066 漢",
]


class Reader(HTMLParser):
    """Elements, ids and tables of a page.

    Attributes:
        elements: (tag, attributes) in order.
        tables: caption → rows of (text, value or None), the head first.
        text: all text outside scripts and styles.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[tuple[str, float | None]]]] = {}
        self.text = ""
        self._open: list[str] = []
        self._rows: list[list[tuple[str, float | None]]] = []
        self._caption, self._value = "", None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append(("", None))
        elif tag == "data":
            self._set(value=float(dict(attrs)["value"]))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if {"script", "style"} & set(self._open):
            return
        self.text += data
        if "caption" in self._open:
            self._caption += data
        elif {"td", "th"} & set(self._open) and "table" in self._open:
            self._set(text=data)

    def _set(self, text: str = "", value: float | None = None) -> None:
        if self._rows and "table" in self._open:
            before, old = self._rows[-1][-1]
            self._rows[-1][-1] = (before + text, old if value is None else value)

    def values(self, caption: str) -> list[list[float | None]]:
        """Numbers of a table without its head and the first column."""
        return [[value for _, value in row[1:]] for row in self.tables[caption][1:]]

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read(path: Path) -> Reader:
    page = path.read_text(encoding="utf-8")
    reader = Reader(page)
    check_alone(reader, page)
    check_accessible(reader)
    return reader


def check_alone(reader: Reader, page: str) -> None:
    """Small, and nothing in it leads out or runs but the page's own script."""
    assert len(page.encode()) < MOST_BYTES
    for tag, attributes in reader.elements:
        for name in ("src", "href", "xlink:href", "action", "srcset", "data", "poster"):
            address = attributes.get(name)
            assert address is None or address.startswith(("#", "./", "data:image/")), (tag, address)
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
    assert not {tag for tag, _ in reader.elements} & {"link", "iframe", "object", "embed", "base", "form"}
    assert len(reader.all("script")) == 1 and page.count("<style") == 1
    assert "url(" not in re.sub(r"url\(#", "", page) and "@import" not in page
    assert "default-src 'none'" in page


def check_accessible(reader: Reader) -> None:
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids)), sorted(i for i in ids if ids.count(i) > 1)
    for tag, attributes in reader.elements:
        for name in (attributes.get("aria-labelledby") or "").split():
            assert name in ids, (tag, name)
        if (attributes.get("href") or "").startswith("#"):
            assert attributes["href"][1:] in ids
        for target in re.findall(r"url\(#([^)]+)\)", " ".join(v or "" for v in attributes.values())):
            assert target in ids
    assert all(image["alt"] for image in reader.all("img"))
    for drawing in reader.all("svg"):
        assert drawing["role"] == "img" and len(drawing["aria-labelledby"].split()) == 2
    assert all(head.get("scope") in ("row", "col") for head in reader.all("th"))
    assert reader.all("html")[0]["lang"] == "en" and reader.all("a")[0]["href"] == "#content"
    assert len(reader.tables) == len(reader.all("caption")) == len(reader.all("table"))
