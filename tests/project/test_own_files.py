"""docs/own-files.md: the two files and every command, as they stand there, on small folders."""

from __future__ import annotations

import re
import shlex

from builders.commands import cli
from builders.images import COLOURS, paint
from builders.places import ROOT
from cl_complora.config import load_scenario, load_strategy

PAGE = (ROOT / "docs" / "own-files.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    blocks = re.findall(r"<!-- run -->\n```bash\n(.*?)```", PAGE, re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.strip().splitlines()]


def test_the_page_leads_to_a_comparison(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tasks = {"my-pictures/flowers": ("rose", "tulip"), "my-pictures/waste": ("glass", "paper")}
    for folder, names in (tasks | {"other-pictures": ("cat", "dog")}).items():
        for place, name in enumerate(names):
            for number in range(6):
                paint(tmp_path / folder / name / f"{number}.png", list(COLOURS.values())[place], number)
    for name in ("mine.yaml", "gentle.yaml"):
        (text,) = re.findall(rf"<!-- {name} -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
        (tmp_path / name).write_text(text, encoding="utf-8")
    said = {}
    for program, *words in commands():
        assert program == "cl-complora"
        quick = ["--set=strategy.training.steps=2"] * (words[0] in ("run", "compare"))
        code, said[" ".join(words)], err = cli(monkeypatch, capsys, *words, *quick)
        assert code == 0, err
    assert "strategy 'gentle' is fine" in said["check mine.yaml gentle.yaml"]
    assert "name: complora-plain" in said["list strategies complora-plain"]
    assert (tmp_path / "runs" / "mine" / "report.html").exists()


def test_every_part_that_the_page_names_is_one():
    cells = re.findall(r"^\| (`[^|]*) \|", PAGE, re.MULTILINE)
    names = [name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)]
    strategy, scenario = load_strategy("complora").value, load_scenario("embedded").value
    for name in names:
        first, *rest = name.split(".")
        part = strategy if first in type(strategy).model_fields else scenario
        assert first in type(part).model_fields, name
        assert all(key in type(getattr(part, first)).model_fields for key in rest), name
    # What stands in the column of defaults.
    defaults = {
        key: field.get_default(call_default_factory=True)
        for key, field in type(scenario).model_fields.items()
    }
    assert (defaults["shots"], defaults["seeds"]) == (8, [0, 1, 2])
    assert (defaults["protocol"], defaults["model"].name) == ("task-incremental", "embedded")
    assert defaults["prompts"] == ["a photo of a {}."] and defaults["zero_shot"] == []
    assert (defaults["augment"].crop, defaults["augment"].flip) == ([0.7, 1.0], False)
    assert {key for key, field in type(scenario).model_fields.items() if field.is_required()} == {
        "name",
        "tasks",
    }
    assert strategy.schedule.name == "cosine"
    training = type(strategy.training).model_fields
    assert (training["steps"].default, training["batch_size"].default) == (100, 32)
