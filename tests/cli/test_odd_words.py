"""Names that are not UTF-8, and words that are empty: one line, exit code 2, nothing written."""

from __future__ import annotations

import os
import sys

import pytest

from builders.images import paint
from builders.processes import ended
from cl_complora.cli import main
from cl_complora.cli.odd_words import refuse_odd_words

ODD = b"caf\xe9"
may_be_odd = pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse such names")


@pytest.mark.parametrize(
    ("words", "where"),
    [
        # The working folder would be taken for the pictures, or another run's place for this one's.
        (("init", ""), "word 2 of the command"),
        (("init", "colours", "", "-o", "a.yaml"), "word 3 of the command"),
        (("predict", "embedded", ""), "word 3 of the command"),
        (("eval", "embedded", "--data", ""), "word 4 of the command, after --data"),
        (("run", "embedded", "--variant", ""), "word 4 of the command, after --variant"),
        (("run", "embedded", "--variant="), "--variant ''"),
        (("run", "embedded", "-s", ""), "word 4 of the command, after -s"),
        (("run", "--pretrained", "", "--model", "ViT-B-32"), "word 3 of the command, after --pretrained"),
        (("predict", "embedded", "--json", ""), "word 4 of the command, after --json"),
        (("predict", "embedded", "--", ""), "word 4 of the command"),
        (("compare", "embedded", "--seeds", ""), "word 4 of the command, after --seeds"),
        (("",), "word 1 of the command"),
    ],
)
def test_an_empty_word(tmp_path, monkeypatch, capsys, words, where):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cl-complora", *words])
    with pytest.raises(SystemExit) as left:
        main()
    told = capsys.readouterr()
    assert left.value.code == 2 and not told.out and told.err == f"error: {where}: must not be empty\n"
    assert not list(tmp_path.iterdir())


def test_a_setting_may_be_empty():
    refuse_odd_words(["run", "--set", "description=", "--set=description=", "-s=", "a b", "--"])


@may_be_odd
@pytest.mark.parametrize(
    "words",
    [
        ("init", ODD),
        ("init", "colours", "-o", ODD + b".yaml"),
        ("eval", "embedded", "--data", ODD),
        ("predict", "embedded", ODD + b".png"),
        ("run", "embedded", "--out", ODD),
        ("run", b"./" + ODD + b".yaml"),
        ("run", "embedded", "--pretrained", ODD + b".pt"),
        ("run", "embedded", "--set", b"name=" + ODD),
        ("compare", "embedded", "-s", b"lora," + ODD + b".yaml"),
        ("report", "embedded", "-o", ODD + b".html"),
        ("check", ODD + b".yaml"),
        ("data", "check", ODD + b".yaml"),
        ("export", "embedded", "-o", ODD + b".safetensors"),
        ("explain", ODD),
        ("tensorboard", ODD),
    ],
)
def test_a_word_of_the_command(tmp_path, words):
    done = ended(*words, cwd=tmp_path)
    assert done.returncode == 2 and not done.stdout and done.stderr.isascii()
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and "caf\\udce9" in line and "not UTF-8" in line
    assert not list(tmp_path.iterdir())


@may_be_odd
def test_the_working_folder(tmp_path):
    folder = os.path.join(os.fsencode(tmp_path), ODD)
    os.mkdir(folder)
    done = ended("run", "embedded", cwd=folder)
    assert done.returncode == 2 and "not UTF-8" in done.stderr and not os.listdir(folder)


@may_be_odd
def test_class_folders_and_pictures(tmp_path):
    for name in ("cat", "dog"):
        for number in range(4):
            paint(tmp_path / "pets" / name / f"{number}.png", (200, 30, 30), number)
    root = os.path.join(os.fsencode(tmp_path), b"pets")
    os.rename(os.path.join(root, b"dog", b"0.png"), os.path.join(root, b"dog", ODD + b".png"))
    for name in (None, ODD):
        if name:
            os.rename(os.path.join(root, b"cat"), os.path.join(root, name))
        for words in (("init", "pets", "-o", "a.yaml", "--force"), ("eval", "embedded", "--data", "pets")):
            done = ended(*words, cwd=tmp_path)
            assert done.returncode in (0, 2) and "Traceback" not in done.stderr
            assert done.returncode == 0 or len(done.stderr.splitlines()) == 1
