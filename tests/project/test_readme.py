"""Every command and snippet of the README, as it stands there."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from builders.commands import cli
from builders.images import COLOURS, paint
from builders.places import LONG, ROOT
from builders.processes import Process, ended
from cl_complora.cli import main
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.evaluate import accuracy
from cl_complora.clip.model import load_clip
from cl_complora.config import load_scenario
from cl_complora.config.catalog import shipped
from cl_complora.data.planning import plan
from cl_complora.data.tasks import load

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


# What makes a command short, in place of what the README sets of the same.
FEW_IMAGES = ["shots=1", "test_limit=4", "zero_shot.0.images=154"]
FEW_STEPS = [*FEW_IMAGES, "training.steps=1"]
STYLES = ", ".join(f"{{name: {n}, source: {{kind: world, domain: style-{n}}}}}" for n in ("photo", "neon"))
FEW_STYLES = [*FEW_STEPS, f"tasks=[{STYLES}]", "reference.images=154"]


def shortened(words: list[str]) -> list[str]:
    if words[0] not in ("run", "compare"):
        return words
    settings = FEW_IMAGES if "zeroshot" in words else FEW_STYLES if words[0] == "compare" else FEW_STEPS
    keys = {setting.partition("=")[0] for setting in settings}
    set_here = {
        place
        for place, word in enumerate(words)
        if words[place - 1] == "--set" and word.partition("=")[0] in keys
    }
    kept = [word for place, word in enumerate(words) if not {place, place + 1} & set_here]
    return kept + [f"--set={setting}" for setting in settings]


def told(words: list[str], folder: Path) -> str:
    done = ended(*words, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_number_of_strategies_is_that_of_the_files():
    assert f"\n{len(shipped('strategy'))} strategies ship" in README


@pytest.mark.parametrize("command", commands())
def test_commands(command, folder, monkeypatch, capsys):
    program, *words = shlex.split(command)
    if program == "python":  # as a shell would start it
        done = subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, cwd=folder, timeout=600
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return
    if words[0] == "compare":  # here, since its workers are forked from the server of this process
        monkeypatch.chdir(folder)
        code, _, err = cli(monkeypatch, capsys, *shortened(words))
        assert code == 0, err
        return
    out = told(shortened(words), folder)
    if words[0] == "run":
        assert "Retention general" in out


def test_the_command_that_is_installed_is_this_one():
    try:
        files = importlib.metadata.distribution("cl_complora")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("cl_complora is not installed")
    (command,) = files.entry_points.select(group="console_scripts", name="cl-complora")
    assert command.load() is main


def test_the_python_snippet(folder):
    (snippet,) = blocks("python")
    asked = '{"training.steps": 20}'
    assert snippet.count(asked) == 1
    snippet = snippet.replace(
        asked, repr({key: int(value) for key, _, value in (one.partition("=") for one in FEW_STEPS)})
    )
    out, err = (process := Process(exec, snippet, {}, cwd=folder)).communicate()
    assert process.returncode == 0, err
    last, retained = out.split()
    assert (folder / "change.png").exists() and 0 <= float(last) <= 100 and -100 <= float(retained) <= 100


def test_the_scenario_is_short_and_its_own_command_is_right():
    (scenario,) = blocks("scenario")
    assert len(scenario.strip().splitlines()) <= 16
    assert "cl-complora run mine.yaml" in scenario.splitlines()[0]


@pytest.mark.parametrize(
    "words",
    [
        [*shortened(["run"]), "--no-analysis"],  # which prints nothing
        # `make demo` shows this one whole.
        pytest.param(["run"], marks=pytest.mark.skipif(not LONG, reason="minutes: make test-faults")),
    ],
    ids=["short", "whole"],
)
def test_the_main_command_prints_what_the_readme_shows(folder, words):
    """The figures depend on the machine's arithmetic; headings, rows and tasks do not."""
    (shown,) = blocks("output")
    out = told([*words, "--out", f"main-{len(words)}"], folder)
    for word in re.findall(r"│ *([(a-z)][a-z -]*[a-z)]) *│", shown) + [
        "Transfer",
        "Average",
        "Last",
        "Forgetting",
        "BWT",
    ]:
        assert word in out, word


def test_the_untouched_model_is_what_the_readme_shows():
    """Its row is the same everywhere to within an image or two; one task and the general set stand for it."""
    tasks = "tasks=[{name: textures, source: {kind: world, domain: textures}}]"
    located = load_scenario("embedded", [tasks, "shots=1", "reference=null"])
    loaded = load_clip(located.value.model)
    classifier = ClipClassifier(loaded.model, loaded.tokenizer, mean=loaded.mean, std=loaded.std)
    data = load(plan(located, 0), located.value.protocol, loaded.pixels)
    parts = [(task.test, task.space) for task in data.tasks] + list(data.zero_shot.values())
    ours = [100 * accuracy(classifier, part.pixels, part.labels, space) for part, space in parts]
    (row,) = re.findall(r"│ untouched │(.*)", README)
    textures, *_, general = (float(v) for v in re.findall(r"\d+\.\d", row))
    assert ours == pytest.approx([textures, general], abs=1.1)


def test_make_knows_the_two_commands():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
