"""docs/troubleshooting.md: the messages that it explains are those that are told."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from typer.main import get_command

from builders.places import PACKAGE, ROOT
from cl_complora.cli import app

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")


def texts(tree: ast.Module) -> Iterator[str]:
    """Every text of a module that is no docstring; what an f-string fills in is an ellipsis."""
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_every_message_is_one():
    """Its parts stand in one text, in this order."""
    told = [
        text for path in PACKAGE.rglob("*.py") for text in texts(ast.parse(path.read_text(encoding="utf-8")))
    ]
    table = PAGE[PAGE.index("## Messages") : PAGE.index("## It takes long")]
    quoted = re.findall(r"^\| `([^|]*)` \|", table, re.MULTILINE)
    warned = re.findall(r"^\| `(warning: [^|]*)` \|", PAGE, re.MULTILINE)
    assert len(quoted) >= 8 and len(warned) == 1
    for message in (*quoted, *warned):
        pattern = ".*".join(re.escape(part.strip(" ()")) for part in message.split("…"))
        assert any(re.search(pattern, text, re.DOTALL) for text in told), message


def names(row: str) -> set[str]:
    """A key of the reference as pages say it: whole, or its last word."""
    return {row, row.rpartition(".")[2]}


def test_every_setting_and_option_is_one():
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    settings = re.findall(r"`([a-z_]+\.[a-z_]+)(?:: [^`]*)?`", PAGE)
    settings += re.findall(r"`(?!warning)([a-z_]+): ?[^`]*`", PAGE)
    known = {name for row in re.findall(r"^\| `([^`]*)`", reference, re.MULTILINE) for name in names(row)}
    assert len(settings) > 8 and set(settings) <= known
    options = set(re.findall(r"(--[a-z][a-z-]*)", PAGE))
    offered = {
        option
        for command in get_command(app).commands.values()
        for one in command.params
        for option in one.opts
    }
    assert len(options) > 6 and options <= offered
