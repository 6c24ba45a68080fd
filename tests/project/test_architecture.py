"""The rooms of docs/architecture.md: imports go one way and in no circle, and files stay readable."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

from builders.places import PACKAGE

# The ground: each one concept, importable alone, and all that may lie loose at the top.
GROUND = ["version", "errors", "files", "progress", "metrics", "subspace", "lowrank", "delta", "muon"]
# Every room may import only itself and what stands before it.
ORDER = [
    *GROUND,
    *(
        "config",
        "data",
        "world",
        "clip",
        "store",
        "engine",
        "analysis",
        "report",
        "run",
        "finished",
        "compare",
        "api",
    ),
    "cli",
]
# What each module of the public core may import of the package.
CORE = {"metrics": set(), "subspace": set(), "lowrank": set(), "delta": set(), "muon": set()}
# Modules of one name that are the same kind of thing in different rooms.
SAME_KIND = {
    "figures": "drawings of a view",
    "leaderboard": "its rows, their page, and the command",
    "page": "an HTML page",
    "tables": "tables of a view",
    "observer": "watches a run",
    "explain": "a command and what it calls",
    "update_curve": "a command's figures and their drawing",
}


@functools.cache
def modules() -> list[Path]:
    return [
        p
        for p in sorted(PACKAGE.rglob("*.py"))
        if p.parent != PACKAGE or p.stem not in ("__init__", "__main__")
    ]


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    """``report.run.page``; a package has its own name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def syntax(path: Path) -> ast.Module:
    """Of a file, which several tests ask for."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path, known: set[str]) -> set[str]:
    """Modules of the package that a file imports, lazily or not."""
    inside = path.relative_to(PACKAGE).parent.parts
    found = set()
    for node in ast.walk(syntax(path)):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = [*inside[: len(inside) - node.level + 1], *(node.module.split(".") if node.module else [])]
        elif (node.module or "").partition(".")[0] == "cl_complora":
            base = node.module.split(".")[1:]
        else:
            continue
        for alias in node.names:
            whole = ".".join([*base, alias.name])
            found.add(whole if whole in known else ".".join(base))
    return (found & known) - {name_of(path)}


@functools.cache
def graph() -> dict[str, set[str]]:
    known = {name_of(path) for path in modules()}
    return {name_of(path): imported(path, known) for path in modules()}


def test_every_room_has_its_place():
    assert {room(path) for path in modules()} == set(ORDER)


def test_nothing_lies_loose_beyond_the_ground():
    assert {path.stem for path in PACKAGE.glob("*.py")} == {*GROUND, "__init__", "__main__"}


def test_imports_go_down_only():
    wrong = [
        f"{importer} imports {other}"
        for importer, others in graph().items()
        for other in others
        if ORDER.index(other.partition(".")[0]) > ORDER.index(importer.partition(".")[0])
    ]
    assert not wrong


def test_the_core_knows_nothing_of_the_rest():
    found = graph()
    assert {name: found[name] for name in CORE} == CORE


def circle(found: dict[str, set[str]]) -> set[str]:
    """What is in a circle, or above one."""
    remaining = dict(found)
    while free := [name for name, others in remaining.items() if not others & set(remaining)]:
        for name in free:
            del remaining[name]
    return set(remaining)


def test_no_modules_import_each_other_in_a_circle():
    assert circle(graph()) == set()


def test_no_inner_rooms_import_each_other_in_a_circle():
    """``data.hub`` of ``data.hub.parquet``; what lies loose in a room belongs to no inner one."""

    def inner(name: str) -> str:
        parts = name.split(".")
        return ".".join(parts[:2]) if (PACKAGE / parts[0] / parts[1]).is_dir() else ""

    rooms: dict[str, set[str]] = {}
    for importer, others in graph().items():
        if "." in importer and (here := inner(importer)):
            there = {inner(other) for other in others if "." in other} - {"", here}
            rooms.setdefault(here, set()).update(there)
    assert {"data.images", "engine.updates", "report.run"} <= set(rooms)
    assert circle(rooms) == set()


def test_one_name_is_one_thing():
    rooms: dict[str, set[str]] = {}
    for path in modules():
        if path.stem != "__init__":
            rooms.setdefault(path.stem, set()).add(str(path.parent.relative_to(PACKAGE)))
    twice = {stem: sorted(where) for stem, where in rooms.items() if len(where) > 1 and stem not in SAME_KIND}
    assert not twice


def test_avalanche_is_imported_in_the_engine_only():
    wrong = []
    for path in modules():
        for node in ast.walk(syntax(path)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else names
            if any(name.split(".")[0] == "avalanche" for name in names) and room(path) != "engine":
                wrong.append(path)
    assert not wrong


def test_modules_and_tests_stay_readable():
    paths = [*modules(), *sorted((PACKAGE.parent / "tests").rglob("*.py"))]
    long = {p.name: lines for p in paths if (lines := len(p.read_text(encoding="utf-8").splitlines())) > 400}
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
