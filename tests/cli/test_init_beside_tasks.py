"""What init says of folders beside those that it takes: held-out sets, splits alone, sets deeper inside."""

from __future__ import annotations

import pytest

from builders.commands import cli
from builders.images import COLOURS, paint
from cl_complora.config import load_scenario
from cl_complora.data.planning import plan

NAMES = ("cat", "dog")


def classes(root, names=NAMES, each: int = 4, first: int = 0) -> None:
    for label, name in enumerate(names):
        for number in range(each):
            paint(root / name / f"{number}.png", list(COLOURS.values())[label], first + 50 * label + number)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CL_COMPLORA_DATA", str(tmp_path / "data"))
    classes(tmp_path / "pets")
    return tmp_path


@pytest.fixture
def say(monkeypatch, capsys):
    return lambda *words: cli(monkeypatch, capsys, *words)


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_test_split_alone_is_told_by_every_command(say, folder, split):
    classes(folder / "alone" / split)
    said = f"there is {split!r} and no 'train'"
    code, _, err = say("init", "alone", "-o", "s.yaml")
    assert code == 2 and said in err and err.count("\n") == 1
    (folder / "s.yaml").write_text(
        "name: s\nmodel: {name: embedded}\nshots: 2\ntasks:\n"
        "  - {name: t, source: {kind: folder, root: alone}}\n"
    )
    for words in (("check", "s.yaml"), ("run", "s.yaml"), ("data", "check", "s.yaml")):
        code, _, err = say(*words)
        assert code == 2 and f"has 0 training images; there is {split!r}" in err, words


def test_broken_pictures_of_a_held_out_set_are_left_out_like_those_of_a_task(say, folder):
    classes(folder / "others", ("bus", "car"), each=6, first=500)
    broken = folder / "others" / "bus" / "5.png"
    broken.write_bytes(broken.read_bytes()[:60])
    code, out, err = say("init", "pets", "--zero-shot", "others", "-o", "s.yaml")
    assert code == 0, err
    assert "cannot be read, and is left out: " in out and "5.png" in out and "11 pictures" in out
    located = load_scenario("s.yaml")
    assert located.value.broken == "skip"
    plan(located, 0)


def test_a_held_out_folder_of_sets_or_of_one_class_is_told(say, folder):
    classes(folder / "sets" / "traffic", ("bus", "car"), first=500)
    code, _, err = say("init", "pets", "--zero-shot", "sets", "-o", "s.yaml")
    assert code == 2 and "as in a folder of sets; give one of them, such as sets/traffic" in err
    classes(folder / "one", ("bus",), each=8, first=700)
    code, out, _ = say("init", "pets", "--zero-shot", "one", "-o", "s.yaml")
    assert code == 0 and "'one': has one class, 'bus'" in " ".join(out.split())


def test_pictures_that_lie_deeper_than_those_of_the_other_sets_are_told(say, folder):
    classes(folder / "all" / "birds", ("owl", "jay"), first=300)
    classes(folder / "all" / "more" / "deep", ("bus", "car"), first=500)
    code, out, _ = say("init", "all", "-o", "s.yaml")
    assert code == 0 and "all/more: holds 8 pictures, but not as class folders do" in " ".join(out.split())
    assert [task.name for task in load_scenario("s.yaml").value.tasks] == ["birds"]


def test_an_imagenet_that_is_not_whole_is_told_with_the_reason(say, folder):
    classes(folder / "data" / "imagenet" / "val", ("n01440764", "n01443537"), first=300)
    code, out, _ = say("init", "pets", "--model", "ViT-B-16", "--pretrained", "openai", "-o", "s.yaml")
    told = " ".join(out.split())
    assert code == 0 and "there is no whole ImageNet below" in told and "imagenet/val" in told


def test_weights_that_nobody_named_are_told(say, folder):
    assert say("init", "pets", "-o", "s.yaml")[0] == 0
    assert "random" not in say("check", "s.yaml")[1]
    code, out, _ = say("check", "s.yaml", "--model", "ViT-B-32", "--no-measure")
    assert code == 0 and "no weights are named (model.pretrained, --pretrained)" in out


@pytest.mark.parametrize(
    "content, pretrained, told",
    [
        ("{", None, "own.json: cannot be read as an open_clip model config (JSON)"),
        ("[1, 2]", None, "own.json: not an open_clip model config: not a JSON object"),
        (
            '{"a": 1}',
            None,
            "own.json: not an open_clip model config: embed_dim, vision_cfg, text_cfg missing",
        ),
        (
            '{"embed_dim": 8, "vision_cfg": {}, "text_cfg": {}}',
            "openai",
            "own has no weights 'openai' (neither a file nor a tag); tags: none",
        ),
    ],
)
def test_a_config_that_never_loads_is_told_by_init_and_check(say, folder, content, pretrained, told):
    (folder / "own.json").write_text(content)
    assert say("init", "pets", "-o", "s.yaml")[0] == 0
    words = ["--model-config", "own.json"] + (["--pretrained", pretrained] if pretrained else [])
    for command in (("check", "s.yaml", "--no-measure"), ("init", "pets", "-o", "t.yaml")):
        code, _, err = say(*command, *words)
        assert code == 2 and told in err and err.count("\n") == 1, command
