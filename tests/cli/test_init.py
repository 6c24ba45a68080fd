"""init: what it says of tables beside pictures, of one class alone, and of one of anything."""

from __future__ import annotations

import shutil

import pytest

from builders.commands import cli
from builders.images import COLOURS, paint
from cl_complora.config import load_scenario
from cl_complora.data.planning import plan

NAMES = ("cat", "dog")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Here are eight pictures in one folder, and a table of their two classes beside it."""
    monkeypatch.chdir(tmp_path)
    for number in range(8):
        paint(tmp_path / "csv" / "img" / f"{number}.png", COLOURS["red"], number)
    table(tmp_path / "csv" / "labels.csv")
    return tmp_path


def table(file, *more: str, names=NAMES, place="img/") -> None:
    rows = [f"{place}{number}.png,{names[number % len(names)]}" for number in range(8)]
    file.write_text("\n".join(["path,label", *rows, *more]) + "\n")


@pytest.fixture
def init(monkeypatch, capsys):
    def init(*words, output="s.yaml"):
        code, out, err = cli(monkeypatch, capsys, "init", *words, "-o", output, "--force")
        assert code == 0, err
        return load_scenario(output), out

    return init


@pytest.fixture
def refused(monkeypatch, capsys):
    def refused(*words):
        code, _, err = cli(monkeypatch, capsys, "init", *words, "-o", "s.yaml")
        assert code == 2 and err.count("\n") == 1
        return err

    return refused


def test_a_table_names_the_classes_where_there_is_one_folder(init, folder):
    located, out = init("csv")
    assert located.value.tasks[0].source.kind == "manifest"
    assert plan(located, 0).tasks[0].class_names == NAMES
    assert "csv: is read by its table" in out and "one class" not in out
    (folder / "below").mkdir()
    located, _ = init("csv", output="below/s.yaml")
    assert located.value.tasks[0].source.file == "../csv/labels.csv" and len(plan(located, 0).tasks) == 1


@pytest.mark.parametrize("layout", ["loose", "parts"])
def test_a_table_names_the_classes_where_there_are_no_folders_of_any(init, folder, layout):
    where = folder / "csv"
    if layout == "loose":
        for path in sorted((where / "img").iterdir()):
            path.rename(where / path.name)
        (where / "img").rmdir()
        table(where / "labels.csv", place="")
    else:  # as of a competition, whose test pictures have no labels
        (where / "img").rename(where / "train")
        paint(where / "test" / "9.png", COLOURS["blue"], 9)
        table(where / "labels.csv", place="train/")
    located, _ = init("csv")
    assert plan(located, 0).tasks[0].class_names == NAMES


def test_a_table_that_cannot_stand_for_the_folder_is_told_with_what_to_write(init, folder):
    table(folder / "csv" / "labels.csv", "img/missing.png,cat")
    located, out = init("csv")
    assert located.value.tasks[0].source.kind == "folder"
    assert "'csv': has one class, 'img': every answer is right" in out
    assert "csv: 1 class, 4 training and 4 test images" in out
    told = "csv: csv/labels.csv lies beside the class folders and is not read; a table that names"
    assert told in out and "source: {kind: manifest, file: csv/labels.csv} in the scenario" in out
    shutil.copy(folder / "csv" / "labels.csv", folder / "csv" / "more.tsv")
    assert "csv/more.tsv lies beside" in init("csv")[1]  # which of two is meant, nobody knows


def test_class_folders_are_read_before_a_table(init, folder):
    for name in NAMES:
        shutil.copytree(folder / "csv" / "img", folder / "csv" / name)
    shutil.rmtree(folder / "csv" / "img")
    (folder / "csv" / "labels.csv").write_text("when,who\n1,me\n")
    located, out = init("csv")
    assert located.value.tasks[0].source.kind == "folder" and "labels.csv" not in out
    table(folder / "csv" / "labels.csv", place="cat/", names=("tom", "kitty"))
    located, out = init("csv")
    assert located.value.tasks[0].source.kind == "folder"
    assert "csv/labels.csv lies beside the class folders and is not read" in out


def test_files_in_place_of_folders_are_told_with_what_to_write(refused, folder):
    said = refused("csv/labels.csv")
    assert said.startswith("error: csv/labels.csv: is a file, and no folder; a table that names the class")
    assert "source: {kind: manifest, file: csv/labels.csv}" in said
    assert "manifest" not in refused("csv/img/0.png")
    shutil.rmtree(folder / "csv" / "img")
    assert "file: csv/labels.csv} in the scenario" in refused("csv")


def test_one_of_anything_is_told_as_one(init, folder):
    (folder / "csv" / "img" / "notes.txt").write_text("no picture")
    (folder / "csv" / "labels.csv").unlink()
    for number in range(2, 8):
        (folder / "csv" / "img" / f"{number}.png").unlink()
    _, out = init("csv")
    assert "csv: 1 class, 1 training and 1 test image\n" in out and "csv: 1 file is passed over" in out
    assert (folder / "s.yaml").read_text().startswith("# 1 task from folders of pictures. Run:")


def test_what_a_run_refuses_or_doubts_is_told_at_once(init, folder):
    for seed, name in enumerate(("Apple", "Pear")):
        for number in range(4):
            paint(folder / "fruit" / name / f"{number}.png", COLOURS["red"], 10 * seed + number)
    assert "refuses" not in init("fruit")[1]
    for number in range(4):
        shutil.copy(folder / "fruit/Apple/0.png", folder / f"fruit/Apple/copy{number}.png")
    _, out = init("fruit")
    assert "used in its own training too" in out and "refuse" not in out
    (folder / "fruit" / "Pear").rename(folder / "fruit" / "apple")
    _, out = init("fruit")
    assert "cl-complora run refuses this: s.yaml:" in out and "'Apple' and 'apple' are the same words" in out
    assert "s.yaml written; mend what is refused, cl-complora check s.yaml, then" in out


def test_a_class_without_pictures_is_told_with_what_can_be_done(refused, folder):
    for number in range(4):
        paint(folder / "one" / "cat" / f"{number}.png", COLOURS["red"], number)
    (folder / "one" / "dog").mkdir()
    told = refused("one")
    assert "class 'dog' has no training images" in told and "one/dog holds no pictures" in told
    assert 'exclude: ["dog"] leaves it out (in the source that a scenario of your own names)' in told


def test_shards_are_told_how_they_are_read(refused, folder):
    (folder / "wds").mkdir()
    (folder / "wds" / "train-000.tar").write_bytes(b"")
    assert "source: {kind: shards, train: …, test: …} in the scenario" in refused("wds")


def test_commands_can_be_pasted_whatever_the_file_is_called(init, folder):
    for number in range(8):
        paint(folder / "my pics" / NAMES[number % 2] / f"{number}.png", COLOURS["red"], number)
    _, out = init("my pics", output="my stream.yaml")
    assert "cl-complora check 'my stream.yaml', then cl-complora run 'my stream.yaml'" in " ".join(
        out.split()
    )
    assert "Run: cl-complora run 'my stream.yaml'" in (folder / "my stream.yaml").read_text()
    (folder / "my lists").mkdir()
    init("my pics", output="my lists/s.yaml")
    assert "Run: cl-complora run 'my lists/s.yaml'" in (folder / "my lists" / "s.yaml").read_text()
