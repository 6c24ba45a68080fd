"""Every command and snippet of the README, as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from builders.images import COLOURS, paint
from builders.places import ROOT
from cl_complora.config.catalog import shipped

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(marker: str) -> list[str]:
    """Fenced blocks that follow an HTML comment."""
    return re.findall(rf"<!-- {marker} -->\n```\w*\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("run") for line in block.strip().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A working folder with the README's scenario file and the pictures that it speaks of."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "mine.yaml").write_text(blocks("scenario")[0], encoding="utf-8")
    for split in ("train", "test"):
        for name, colour in list(COLOURS.items())[:2]:
            for number in range(5):
                paint(
                    folder / "pets" / split / name / f"{number}.png", colour, number + 100 * (split == "test")
                )
    return folder


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=600, env=os.environ)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_number_of_strategies_is_that_of_the_files():
    assert f"\n{len(shipped('strategy'))} strategies ship" in README


@pytest.mark.parametrize("command", commands())
def test_commands(command, folder):
    words = shlex.split(command)
    program = [sys.executable, "-m", "cl_complora"]
    words = program + words[1:] if words[0] == "cl-complora" else [sys.executable, *words[1:]]
    out = run(words, folder)
    if words[3:4] == ["run"]:
        assert "Retention general" in out


def test_the_python_snippet(folder):
    (snippet,) = blocks("python")
    last, retained = run([sys.executable, "-c", snippet], folder).split()
    assert 0 <= float(last) <= 1 and -100 <= float(retained) <= 100


def test_the_scenario_is_short_and_its_own_command_is_right():
    (scenario,) = blocks("scenario")
    assert len(scenario.strip().splitlines()) <= 16
    assert "cl-complora run mine.yaml" in scenario.splitlines()[0]


def test_the_main_command_prints_what_the_readme_shows(folder):
    """The figures depend on the machine's arithmetic; headings, rows and tasks do not."""
    (shown,) = blocks("output")
    out = run([sys.executable, "-m", "cl_complora", "run"], folder)
    for word in re.findall(r"│ *([(a-z)][a-z -]*[a-z)]) *│", shown) + [
        "Transfer",
        "Average",
        "Last",
        "Forgetting",
        "BWT",
    ]:
        assert word in out, word
    untouched = re.compile(r"│ \(zero-shot\) │(.*)")
    # The untouched model's row is the same everywhere to within an image or two.
    ours, theirs = (
        [float(v) for v in re.findall(r"\d+\.\d", untouched.search(text).group(1))] for text in (out, shown)
    )
    assert ours == pytest.approx(theirs, abs=1.1)


def test_make_knows_the_two_commands():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make (\w+)", README.split("## What it prints")[0]):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
