"""A hook of MkDocs: links that lead out of docs/ name a file of the checkout, which a site does not have.

They become the address of the file where the site knows its repository (``repo_url`` in mkdocs.yml), and
plain text where it does not.
"""

import posixpath
import re

_OUT = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)\s]+)\)")


def on_page_markdown(markdown, page, config, files):
    """Called by MkDocs for every page."""
    repository = (config.repo_url or "").rstrip("/")
    folder = posixpath.dirname(page.file.src_uri)

    def exchanged(found):
        text, target = found.groups()
        path = posixpath.normpath(posixpath.join("docs", folder, target))
        return f"[{text}]({repository}/blob/main/{path})" if repository else text

    return _OUT.sub(exchanged, markdown)
