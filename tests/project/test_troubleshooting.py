"""docs/troubleshooting.md: the messages that it explains are those that are told."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from builders.places import PACKAGE, ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")


def told(tree: ast.AST) -> Iterator[str]:
    """Every text of a module; what an f-string fills in is an ellipsis."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_message_is_one():
    texts = [
        text for path in PACKAGE.rglob("*.py") for text in told(ast.parse(path.read_text(encoding="utf-8")))
    ]
    table = PAGE[PAGE.index("## Messages") : PAGE.index("## It takes long")]
    quoted = re.findall(r"^\| `([^|]*)` \|", table, re.MULTILINE)
    warned = re.findall(r"^\| `(warning: [^|]*)` \|", PAGE, re.MULTILINE)
    assert len(quoted) >= 8 and len(warned) == 1
    for message in (*quoted, *warned):
        parts = [part.strip(" ()") for part in message.split("…")]
        assert all(any(part in text for text in texts) for part in parts if len(part) > 3), message


def test_every_setting_is_one():
    """Keys of sections in the page stand in the reference, options in the program's help."""
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    for key in re.findall(r"`([a-z_]+\.[a-z_]+)(?:: [^`]*)?`", PAGE):
        assert f"`{key}`" in reference, key
