"""init: which folders are tasks, which protocol suits them, and what is given twice."""

from __future__ import annotations

import os

import pytest

from builders.images import paint
from cl_complora.config import load_scenario
from cl_complora.data.discovery.discover import describe
from cl_complora.data.discovery.stream_kind import stream_kind
from cl_complora.data.planning import plan
from cl_complora.errors import UserError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Here is a folder of two tasks."""
    monkeypatch.chdir(tmp_path)
    classes(tmp_path / "mine" / "flowers", "rose", "tulip")
    classes(tmp_path / "mine" / "waste", "glass", "paper")
    return tmp_path


def classes(root, *names: str, each: int = 4) -> None:
    for label, name in enumerate(names):
        for number in range(each):
            seed = int.from_bytes(f"{root.name}{name}{number}".encode()) % 2**32
            paint(root / name / f"{number}.png", (40 * label, 200, 90), seed)


def written(folder, *folders: str):
    text, notes = describe([folder / one for one in folders], folder / "s.yaml")
    (folder / "s.yaml").write_text(text)
    return load_scenario("s.yaml"), text, "\n".join(notes)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["mine", "mine"], "mine: is given twice"),
        (["mine", "./mine/../mine"], "mine/flowers"),
        (["mine", "mine/flowers"], "mine/flowers: is given twice"),
        (["mine/flowers", "mine/waste", "mine/flowers"], "mine/flowers: is given twice"),
        (["mine/flowers", "alias"], "mine/flowers and .*alias: are one folder"),
        (["nest", "nest/birds"], "nest/birds: lies in .*nest, which is a task itself"),
        (["nest/birds", "nest"], "nest/birds: lies in .*nest, which is a task itself"),
    ],
)
def test_pictures_are_of_one_task(folder, given, told):
    os.symlink(folder / "mine" / "flowers", folder / "alias")
    classes(folder / "nest", "cat", "dog")
    classes(folder / "nest" / "birds", "owl", "jay")
    with pytest.raises(UserError, match=told) as caught:
        describe([folder / one for one in given], folder / "s.yaml")
    assert len(caught.value.messages) == 1 and "in two tasks" in caught.value.messages[0]


def test_one_picture_a_class_is_no_task_but_can_be_measured(folder):
    classes(folder / "few", "cat", "dog", each=1)
    with pytest.raises(UserError, match="one picture a class, which leaves nothing to divide.*--zero-shot"):
        describe([folder / "few"], folder / "s.yaml")
    text, _ = describe([folder / "mine"], folder / "s.yaml", zero_shot=folder / "few")
    assert "images: 2 " in text


def test_tasks_of_other_classes_are_task_incremental(folder):
    located, text, notes = written(folder, "mine")
    assert located.value.protocol == "task-incremental" and "protocol" not in notes
    assert "# Every task has its own classes (task-incremental)." in text


def test_tasks_of_the_same_classes_are_domains(folder):
    classes(folder / "drawn" / "flowers", "rose", "tulip")
    located, text, notes = written(folder, "mine/flowers", "drawn/flowers")
    assert located.value.protocol == "domain-incremental" and len(plan(located, 0).tasks) == 2
    assert "# All tasks have the same classes (domain-incremental)" in text and "its own classes" not in text
    assert "all tasks have the same classes, so the protocol is domain-incremental" in notes
    located, _, _ = written(folder, "mine/flowers")
    assert located.value.protocol == "task-incremental"


def test_shared_classes_are_told(folder):
    classes(folder / "garden", "rose", "gnome")
    located, text, notes = written(folder, "mine", "garden")
    assert located.value.protocol == "task-incremental" and "its own classes" not in text
    told = "ome classes are in more than one task: 'rose' (flowers, garden)"
    assert f"# S{told}." in text and f"s{told}; the protocol is task-incremental" in notes
    assert "class-incremental takes equal names for one class" in text


def test_the_same_classes_in_other_orders_are_no_domains_yet():
    kind = stream_kind({"a": ["rose", "tulip"], "b": ["tulip", "rose"]})
    assert kind.protocol == "task-incremental"
    assert "in different orders" in kind.note and "classes: [...]" in kind.comments[-1]
