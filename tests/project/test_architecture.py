"""The rooms of docs/architecture.md: imports go one way, Avalanche stays in its room, modules stay
readable."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from builders.places import PACKAGE

# Every row may import only itself and the rows above it.
ORDER = [
    "version",
    "errors",
    "files",
    "catalog",
    "allocator",
    "stopping",
    "config",
    "subspace",
    "lowrank",
    "delta",
    "metrics",
    "stored",
    "rundir",
    "data",
    "clip",
    "engine",
    "analysis",
    "report",
    "progress",
    "provenance",
    "records",
    "failures",
    "stage",
    "run",
    "compare",
    "finished",
    "cli",
]


def imports(path: Path) -> set[str]:
    """Names of the package's rooms that a file imports, lazily or not."""
    inside = path.relative_to(PACKAGE).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = list(inside[: len(inside) - node.level + 1])
            target = [*base, *(node.module.split(".") if node.module else [])]
            found |= {target[0]} if target else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("cl_complora."):
            found.add(node.module.split(".")[1])
    return found


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules() -> list[Path]:
    return [
        p
        for p in sorted(PACKAGE.rglob("*.py"))
        if p.parent != PACKAGE or p.stem not in ("__init__", "__main__")
    ]


def test_every_room_has_its_place():
    assert {room(path) for path in modules()} == set(ORDER)


def test_imports_go_upwards_only():
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {other}"
        for path in modules()
        for other in imports(path)
        if other in ORDER and ORDER.index(other) > ORDER.index(room(path))
    ]
    assert not wrong


def test_avalanche_is_imported_in_the_engine_only():
    wrong = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else names
            if any(name.split(".")[0] == "avalanche" for name in names) and room(path) != "engine":
                wrong.append(path)
    assert not wrong


def test_modules_stay_readable():
    long = {
        p.name: lines for p in modules() if (lines := len(p.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert not long


def test_help_and_checks_import_nothing_heavy():
    code = (
        "import sys\n"
        "from cl_complora.cli import app\n"
        "from typer.testing import CliRunner\n"
        "result = CliRunner().invoke(app, ['check', 'embedded', 'complora'])\n"
        "assert result.exit_code == 0, result.output\n"
        "heavy = {'torch', 'avalanche', 'open_clip', 'matplotlib', 'sklearn', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
