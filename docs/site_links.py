"""A hook of MkDocs: what is right for readers of the files and not for those of the site.

Links that lead out of docs/ name a file of the checkout, which a site does not have: they become the address
of the file where the site knows its repository (``repo_url`` in mkdocs.yml), and plain text where it does
not. Links that are called by the name of a page's file are called by the page's title.
"""

import posixpath
import re
from pathlib import Path

_OUT = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)\s]+)\)")
_PAGE = re.compile(r"(?<!!)\[([\w-]+\.md)\]\(\1(#[\w-]+)?\)")


def on_page_markdown(markdown, page, config, files):
    """Called by MkDocs for every page."""
    repository = (config.repo_url or "").rstrip("/")
    folder = posixpath.dirname(page.file.src_uri)

    def exchanged(found):
        text, target = found.groups()
        path = posixpath.normpath(posixpath.join("docs", folder, target))
        told = path if text == target else text
        return f"[{told}]({repository}/blob/main/{path})" if repository else told

    def titled(found):
        name, part = found[1], found[2] or ""
        return f"[{title_of(Path(config.docs_dir, folder, name))}]({name}{part})"

    return _PAGE.sub(titled, _OUT.sub(exchanged, markdown))


def title_of(page: Path) -> str:
    """The first heading of a page; its name where there is none."""
    try:
        first = page.read_text(encoding="utf-8").partition("\n")[0]
    except OSError:  # a broken link, which MkDocs itself complains of
        return page.name
    return first[2:].strip() if first.startswith("# ") else page.name
