"""Every command of docs/tutorial.md, and every cell of the notebook, on small folders and a small model."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

from builders.commands import cli
from builders.images import COLOURS, paint
from builders.models import TINY, tiny_clip
from builders.places import ROOT
from builders.processes import Process, ended
from cl_complora.config import load_scenario

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
NOTEBOOK = ROOT / "examples" / "your_own_pictures.ipynb"
# The model that is fetched, and the files that stand for it here.
FETCHED = ["--model", "ViT-B-16", "--pretrained", "openai"]
FILES = [
    "--model-config",
    "models/open_clip_config.json",
    "--pretrained",
    "models/open_clip_model.safetensors",
]
QUICK = ["training.steps=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What the page speaks of: pictures of two tasks and others, and the files of a model."""
    folder = tmp_path_factory.mktemp("tutorial")
    tasks = {"my-pictures/flowers": ("rose", "tulip"), "my-pictures/waste": ("glass", "paper")}
    for task, names in (tasks | {"other-pictures": ("cat", "dog")}).items():
        for colour, name in zip(COLOURS.values(), names, strict=False):
            for number in range(4):
                paint(folder / task / name / f"{number}.png", colour, number)
    (folder / "models").mkdir()
    told = {"model_cfg": TINY, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / FILES[1]).write_text(json.dumps(told))
    save_file(tiny_clip().state_dict(), folder / FILES[3])
    return folder


def commands() -> list[list[str]]:
    blocks = re.findall(r"<!-- run -->\n```bash\n(.*?)```", PAGE, re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.strip().splitlines()]


def here(words: list[str]) -> list[str]:
    """A command with the model that is here, and short."""
    text = "\0".join(words).replace("\0".join(FETCHED), "\0".join(FILES)).split("\0")
    quick = words[0] in ("run", "compare") and "linear-probe" not in words
    return text + [f"--set={setting}" for setting in QUICK] * quick


def test_the_page_leads_from_folders_to_a_report(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert "\0".join(FETCHED) in "\0".join(commands()[0]) and "\0".join(FILES) in "\0".join(
        sum(commands(), [])
    )
    said = {}
    for program, *words in commands():
        assert program == "cl-complora"
        code, said[" ".join(words)], err = cli(monkeypatch, capsys, *here(words))
        assert code == 0, err
    assert (folder / "runs" / "mine" / "complora" / "seed0" / "report.html").exists()
    assert "mean [0.5, 0.5, 0.5]" in said["check mine.yaml --measure"]
    assert "rose" in said[next(words for words in said if words.startswith("predict"))]
    scenario = load_scenario("mine.yaml").value
    assert [one.name for one in (*scenario.tasks, *scenario.zero_shot)] == [
        "flowers",
        "waste",
        "other-pictures",
    ]


def cells() -> list[str]:
    read = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (read["nbformat"], read["nbformat_minor"]) == (4, 5)
    assert all(cell["id"] and not cell.get("outputs") for cell in read["cells"])
    return ["".join(cell["source"]) for cell in read["cells"] if cell["cell_type"] == "code"]


def without_an_import(words: list[str], **options: object) -> subprocess.CompletedProcess:
    """In place of ``subprocess.run``, for ``python -m cl_complora …``."""
    assert words[:3] == [sys.executable, "-m", "cl_complora"]
    return ended(*words[3:])


def execute(code: str) -> None:
    subprocess.run = without_an_import
    exec(code, {"__name__": "__main__"})


def test_the_notebook_does_the_same(folder):
    first, *rest = cells()
    place = folder / "notebook"
    place.mkdir()
    settings = {
        "PICTURES": "../my-pictures",
        "OTHERS": "../other-pictures",
        "SETTINGS": {"training.steps": 2},
    }
    settings["MODEL"] = [f"../{word}" if "/" in word else word for word in FILES]
    assert all(re.search(rf"^{name} = ", first, re.MULTILINE) for name in settings)
    changed = "\n".join(f"{name} = {value!r}" for name, value in settings.items())
    process = Process(execute, "\n".join([first, changed, *rest]), cwd=place)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "complora" in out and "linear-probe" in out and "retention" in out
    assert (place / "mine.safetensors").exists() and list(place.rglob("report.html"))
    assert all((place / name).exists() for name in ("matrix.png", "methods.png"))


def test_the_notebook_is_written_as_the_code_is():
    for cell in cells():
        compile(cell, "cell", "exec")
        assert max(map(len, cell.splitlines())) <= 110
