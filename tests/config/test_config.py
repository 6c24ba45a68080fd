"""Scenario and strategy files: whatever is wrong is told in one line that says where, and nothing else
happens."""

from __future__ import annotations

import time
from datetime import date
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError, model_validator

from builders.broken_yaml import BAD
from builders.configs import SCENARIO, STRATEGY, TEXTS, animals, check, refusal, write
from builders.places import ROOT
from cl_complora.config import load_scenario, load_strategy
from cl_complora.config.base import Section
from cl_complora.config.faults import Fault, faults
from cl_complora.config.which_file import kind_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What the valid files name; every broken file is written here."""
    return animals(tmp_path_factory.mktemp("config"))


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_every_fault_is_told_in_one_line_with_its_place(bad, folder):
    path = write(folder, bad.name, bad.content)
    began = time.process_time()
    messages = refusal(bad.kind, path)
    assert time.process_time() - began < 2
    assert len(messages) == len(bad.faults), messages
    for message, (line, key, parts) in zip(messages, bad.faults, strict=True):
        assert message.startswith(f"{path}:" if line is None else f"{path}:{line}: {key}"), message
        for part in (key, *parts):
            assert part in message, message
    assert not (folder / "pwned").exists()


def test_the_files_that_the_broken_ones_derive_from_are_fine(folder):
    for kind, text in TEXTS.items():
        check(kind, write(folder, f"fine-{kind}", text))
        check(kind, write(folder, f"bom-{kind}", text.encode("utf-8-sig")))
        check(kind, write(folder, f"crlf-{kind}", text.replace("\n", "\r\n")))


@pytest.mark.parametrize(
    "text, value", [("1e-3", 1e-3), ("1E3", 1e3), ("2", 2.0), (".5", 0.5), ("+1.e-2", 0.01)]
)
def test_every_way_to_write_a_number_is_a_number(text, value, folder):
    path = write(folder, "number", STRATEGY.replace("lr: 1e-3", f"lr: {text}"))
    assert load_strategy(str(path)).value.optimiser.lr == value


def test_what_only_yaml_1_1_converts_is_text(folder):
    names = ["no", "on", "y", "2024-05-01", "1:30", "08", "0x10", "1_000", "="]
    path = write(folder, "text", SCENARIO.replace("class_range: [0, 2]", f"classes: [{', '.join(names)}]"))
    assert load_scenario(str(path)).value.tasks[1].classes == names


def test_merged_sections_and_aliases(folder):
    extra = "  - &base\n    name: c\n    source: &animals {kind: folder, root: animals}\n    shots: 3\n"
    extra += "  - {<<: *base, name: d}\n  - {<<: [{name: f}, *base], source: *animals, shots: 1}\nzero_shot:"
    path = write(folder, "merged", SCENARIO.replace("zero_shot:", extra))
    located = load_scenario(str(path), ["tasks.3.source.root=hollow"])
    tasks = located.value.tasks
    assert [(task.name, task.shots) for task in tasks] == [
        ("a", None),
        ("b", None),
        ("c", 3),
        ("d", 3),
        ("f", 1),
    ]
    # An override changes the one place that it names, whatever shares an anchor with it.
    assert [task.source.root for task in tasks] == ["animals", "animals", "animals", "hollow", "animals"]
    assert located.fault(("tasks", 3, "shots"), "x") == f"{path}:18: tasks[3].shots: x"
    assert located.fault(("tasks", 4, "shots"), "x") == f"{path}:20: tasks[4].shots: x"


def test_key_paths_without_a_line_take_the_line_of_the_section_around(folder):
    located = load_scenario(str(write(folder, "lines", SCENARIO)))
    assert located.fault((), "x") == f"{located.file}:2: x"
    assert located.fault(("validation_shots",), "x") == f"{located.file}:2: validation_shots: x"
    assert located.fault(("tasks", 1, "shots"), "x") == f"{located.file}:10: tasks[1].shots: x"
    assert located.fault(("tasks", 1, "source", "root"), "x") == f"{located.file}:13: tasks[1].source.root: x"


def test_validators_that_know_nothing_of_lines_are_told_too():
    class Odd(Section):
        at: date = date(2024, 1, 1)

        @model_validator(mode="after")
        def _refuse(self):
            raise ValueError("no such luck")

    def told(data: dict) -> list[Fault]:
        with pytest.raises(ValidationError) as caught:
            Odd.model_validate(data)
        return faults(caught.value, Odd, data)

    assert told({}) == [Fault((), "no such luck")]
    assert told({"at": "today"}) == [Fault(("at",), "must be: Input should be a valid date, got 'today'")]


def test_the_kind_of_a_file():
    assert kind_of(yaml.safe_load(SCENARIO)) == "scenario"
    assert kind_of(yaml.safe_load(STRATEGY)) == "strategy"
    assert kind_of({"adaptor": {}, "optimizer": {}}) == "strategy"
    assert kind_of({"taks": [], "protocoll": ""}) == "scenario"
    assert (
        kind_of({"name": "x"})
        is kind_of({"tasks": [], "adapter": {}})
        is kind_of([1])
        is kind_of(None)
        is None
    )


@pytest.mark.parametrize("kind, name, told", [
    (
        "scenario", "lora",
        "'lora' is a strategy, a scenario is expected here; a strategy is given with --strategy",
    ),
    ("strategy", "embedded", "'embedded' is a scenario, a strategy is expected here"),
    ("strategy", "lorra", "no strategy named 'lorra'; did you mean 'lora'?"),
    ("scenario", "no/such.yaml", "no/such.yaml: there is no such file"),
    ("scenario", "tests/", "tests/: is a folder, not a YAML file"),
])  # fmt: skip
def test_names_that_name_nothing(kind, name, told, monkeypatch):
    monkeypatch.chdir(ROOT)
    (message,) = refusal(kind, name)
    assert message.startswith(told)


# The command line
def test_a_folder_name_that_the_system_refuses_is_told_with_its_place(folder):
    path = write(folder, "long", SCENARIO.replace("root: animals}", f"root: {'x' * 300}}}"))
    (message,) = refusal("scenario", path)
    assert message.startswith(f"{path}:9: tasks[0].source: ")
