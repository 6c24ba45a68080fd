"""Hostile class names and folder names."""

from __future__ import annotations

import pytest

from builders.hostile import told
from builders.sources import seeds
from cl_complora.config import load_scenario
from cl_complora.data.discovery.discover import describe
from cl_complora.data.labels import LabelSpace
from cl_complora.data.planning import plan

pytestmark = pytest.mark.usefixtures("never_hangs")


# Class names
@pytest.mark.parametrize(
    ("name", "fragment"),
    [
        ("a\nb", "the class name 'a\\nb' holds a line break"), ("\x1b[31mred", "another control character"),
        ("tab\there", "control character"),
        ("x\u2028y", "holds a line break"), ("\x7f", "control character"), ("_", "a class name is empty"),
        ("é" * 120, None), ("x" * 250, None),
        ("<script>alert(1)<", None), ("{}", None), ("{0.__class__}", None), ("%s", None), ("日本", None),
        ("🙂", None), ("\u202eevil", None),
        ("a\u200db", None), ("ﷺ", None), ("-rf *", None), ("$(touch pwned)", None), ("NaN", None),
        ("a'\"b", None), ("&amp;", None),
    ],
)  # fmt: skip
def test_class_names(tmp_path, name, fragment):
    for label in (name, "other"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "data" / label / f"{number}.png").write_bytes(seeds()["png"])
    (tmp_path / "s.yaml").write_text(
        "name: s\nshots: 1\ntasks: [{name: a, source: {kind: folder, root: data}}]\n"
    )
    scenario = load_scenario(str(tmp_path / "s.yaml"))
    if fragment is not None:
        (line,) = told(plan, scenario, 0)
        assert line.startswith(f"{tmp_path}/s.yaml:3: tasks[0].source: ") and fragment in line
    else:
        (task,) = plan(scenario, 0).tasks
        assert set(task.class_names) == {name.replace("_", " "), "other"}
        texts = LabelSpace.from_templates(task.class_names, ["a {}."]).prompts
        spaced = name.replace("_", " ")
        assert texts[task.class_names.index(spaced)] == (f"a {spaced}.",)
        text, _ = describe([tmp_path / "data"], tmp_path / "mine.yaml")
        (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
        assert load_scenario(str(tmp_path / "mine.yaml")).value.tasks[0].name == "data"
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "folder",
    ["a\nb", "a\u0085b", "a\u2028b", 'quo"te', "back\\slash", "\x7f", "🙂 {x}: #", "- !!python/object"],
)
def test_init_quotes_the_names_of_folders(tmp_path, folder):
    for label in ("x", "y"):
        (tmp_path / folder / label).mkdir(parents=True)
        for number in range(4):
            (tmp_path / folder / label / f"{number}.png").write_bytes(seeds()["png"])
    text, _ = describe([tmp_path / folder], tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    scenario = load_scenario(str(tmp_path / "mine.yaml"))
    assert scenario.value.tasks[0].source.root == folder
    assert plan(scenario, 0).tasks[0].class_names == ("x", "y")
