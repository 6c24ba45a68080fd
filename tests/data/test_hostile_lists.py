"""Hostile manifests, split files and lists of shots: one line each fault, twenty at most."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builders.costs import costs_of, measured, report
from builders.hostile import PIXELS, told, tree
from builders.places import LONG
from builders.sources import line_of, make_every_source, seeds
from cl_complora.config import load_scenario
from cl_complora.config.sources import CoopSource, ManifestSource
from cl_complora.data.kinds import open_source
from cl_complora.data.planning import plan

pytestmark = pytest.mark.usefixtures("never_hangs")


@pytest.fixture(scope="module")
def every_source(tmp_path_factory) -> Path:
    return make_every_source(tmp_path_factory.mktemp("sources"))


ROWS = "path,label,split\n"


MANIFESTS = {
    "dots.csv": (
        f"{ROWS}a.png,x,train\n../../secret.png,x,train\n", ":3: path must lie below the root, got '../",
    ),
    "dots-within.csv": (f"{ROWS}images/../../a.png,x,train\n", ":2: path must lie below the root"),
    "backslashes.csv": (f"{ROWS}..\\..\\secret.png,x,train\n", ":2: path must lie below the root"),
    "absolute.csv": (f"{ROWS}/etc/passwd,x,train\n", ":2: path must lie below the root, got '/etc/passwd'"),
    "no-path.csv": (f"{ROWS}.,x,train\n", ":2: path must lie below the root"),
    "columns.csv": (
        "size,date\n3,x\n", ":1: the columns must be path, label and split, path and label missing",
    ),
    "column-twice.csv": ("path,label,path\na.png,x,b.png\n", ":1: the column path stands there twice"),
    "cells.csv": (
        f"{ROWS}a.png,big, red dog,train\n", ":2: has more cells than columns; a text that holds a comma",
    ),
    "twice.csv": (
        f"{ROWS}a.png,x,train\nb.png,x,train\na.png,x,test\n", ":4: 'a.png' is named a second time",
    ),
    "twice-in-other-words.csv": (
        f"{ROWS}d/a.png,x,train\nd//./a.png,x,test\n", ":3: 'd/a.png' is named a second",
    ),
    "zero.csv": (f"{ROWS}a\0.png,x,train\n", ":2: path must be the name of a file, got 'a\\x00.png'"),
    "long-name.csv": (f"{ROWS}{'a' * 5000}.png,x,train\n", ":2: path must be the name of a file"),
    "long-line.csv": (
        f"{ROWS}{'a' * 200_000}.png,x,train\n", ":2: this line has more than 100,000 characters",
    ),
    "quote.csv": (f'{ROWS}"a.png,x,train\n' + "b.png,x,train\n" * 20_000, "is a quote never closed?"),
    "no-label.csv": (f"{ROWS}a.png,,train\n", ":2: path or label is empty"),
    "split.csv": (f"{ROWS}a.png,x,odd\n", ":2: split must be train, validation or test, got 'odd'"),
    "utf-16.csv": (f"{ROWS}a.png,x,train\n".encode("utf-16"), ":1: cannot be read: must be text in UTF-8"),
    "latin-1.csv": (
        f"{ROWS}café.png,x,train\n".encode("latin-1"), "0xe9; save it as UTF-8 (in Excel: CSV UTF-8)",
    ),
    "binary.csv": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), ":1: cannot be read: must be text in UTF-8"),
    "empty.csv": ("", ":1: the columns must be"),
    "head.csv": (ROWS, "names no image"),
    "newline.csv": (f'{ROWS}a.png,"x\ny",train\n', "holds a line break"),
    "escape.csv": (f"{ROWS}a.png,\x1b]0;x\x07,train\n", "holds a line break, another control character"),
    "label.csv": (f"{ROWS}a.png,{'x' * 501},train\n", "has 501 characters; at most 500 are taken"),
    "blank.csv": (f"{ROWS}a.png,   ,train\n", "a class name is empty"),
    "deep.jsonl": ("[" * 90_000, ":1: must be a JSON object with path, label and split"),
    "deeper.jsonl": ('{"a":' * 15_000, ":1: must be a JSON object"),
    "long.jsonl": ("[" * 200_000, ":1: this line has more than"),
    "null.jsonl": (line_of(path=None, label=None), ":1: path or label is empty"),
    "types.jsonl": (
        line_of(path=["a"], label={"b": 1}), ":1: path must be a text, and label a text or a number",
    ),
    "label-true.jsonl": (
        line_of(path="a", label=True), ":1: path must be a text, and label a text or a number",
    ),
    "split-type.jsonl": (
        line_of(path="a", label="x", split=["train"]), ":1: split must be train, validation or test",
    ),
    "number.jsonl": ("9" * 5000, ":1: must be a JSON object"),
    "scalars.jsonl": ('3\n"path label"\nnull\n', ":3: must be a JSON object"),
    "half.jsonl": (
        b'{"path": "a\\ud800.png", "label": "x"}\n', ":1: path must be the name of a file, got 'a\\ud800",
    ),
    "half-label.jsonl": (b'{"path": "a.png", "label": "\\udfff"}\n', "bytes that are not UTF-8"),
    "zero.jsonl": (b'{"path": "a\\u0000.png", "label": "x"}\n', ":1: path must be the name of a file"),
    "separator.jsonl": (line_of(path="a.png", label="x\u2028y"), "holds a line break"),
}  # fmt: skip


@pytest.mark.parametrize("name", MANIFESTS)
def test_hostile_manifests(tmp_path, name):
    content, fragment = MANIFESTS[name]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    before, began = tree(tmp_path), time.process_time()
    lines = told(open_source, ManifestSource(kind="manifest", file=name), tmp_path)
    assert fragment in lines[-1] and all(str(tmp_path) in line for line in lines), lines
    assert tree(tmp_path) == before and time.process_time() - began < 3


def test_every_fault_of_a_manifest_is_told_up_to_twenty(tmp_path):
    (tmp_path / "m.csv").write_text(ROWS + "a.png,x,train\n../b.png,x,train\nc.png,,train\n")
    lines = told(open_source, ManifestSource(kind="manifest", file="m.csv"), tmp_path)
    assert [line.partition("m.csv:")[2][:2] for line in lines] == ["3:", "4:"]
    (tmp_path / "m.csv").write_text(ROWS + "../b.png,x,train\n" * 100_000)
    *lines, last = told(open_source, ManifestSource(kind="manifest", file="m.csv"), tmp_path)
    assert len(lines) == 20 and last == f"{tmp_path}/m.csv: 99980 more faults, these are 20 of them"


def test_what_a_manifest_may_hold(tmp_path):
    """Lines end where lines end: not at every character that Python's splitlines takes for an end."""
    names = [
        "a b.png",
        "ü/日本.png",
        "x\u0085y.png",
        "c,d.png",
        'quo"te.png',
        "{}.png",
        "<b>.png",
        "back.png",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(seeds()["png"])
    content = io.StringIO(newline="")
    csv.writer(content).writerows([("path", "label"), *((name, "{} <i>") for name in names)])
    (tmp_path / "m.csv").write_text(content.getvalue(), encoding="utf-8-sig")
    (tmp_path / "m.jsonl").write_bytes(
        b"\xef\xbb\xbf" + b"\r\n".join(line_of(path=n, label=7).strip() for n in names)
    )
    for file, label in (("m.csv", "{} <i>"), ("m.jsonl", "7")):
        source = open_source(ManifestSource(kind="manifest", file=file), tmp_path)
        assert source.class_names == [label] and [item.key for item in source.items("undivided")] == names
        assert source.load(source.items("undivided"), PIXELS).shape == (8, 3, 32, 32)


COOP = {
    "list": ("[]", "must hold train, val and test"),
    "entry": ('{"train": [["a", 0]]}', "train[0]: must be [path, label, class name]"),
    "types": ('{"train": [[1, "a", null]]}', "train[0]: must be"),
    "parts": ('{"train": {"a": 1}}', "must hold train"),
    "fraction": ('{"train": [["a", 1.5, "x"]]}', "train[0]: must be"),
    "infinite": ('{"train": [["a", 1e999, "x"]]}', "train[0]: must be"),
    "nan": ('{"train": [["a", NaN, "x"]]}', "train[0]: must be"),
    "true": ('{"train": [["a", true, "x"]]}', "train[0]: must be"),
    "negative": ('{"train": [["a", -1, "x"]]}', "train[0]: must be"),
    "large": ('{"train": [["a", 99999999999999999999, "x"]]}', "train[0]: must be"),
    "huge": (f'{{"train": [["a", {"9" * 5000}, "x"]]}}', "cannot be read as JSON"),
    "gap": ('{"train": [["a", 1, "x"]]}', "labels must be 0, 1, 2"),
    "dots": ('{"val": [["../a", 0, "x"]]}', "validation[0]: path must lie below the root"),
    "absolute": ('{"test": [["/etc/passwd", 0, "x"]]}', "test[0]: path must lie below the root"),
    "zero": ('{"test": [["a\\u0000", 0, "x"]]}', "test[0]: path must be the name of a file"),
    "other-name": (
        '{"train": [["a", 0, "x"], ["b", 0, "y"]]}', "train[1]: label 0 is called 'y' here and 'x' before",
    ),
    "newline": ('{"train": [["a", 0, "x\\ny"]]}', "holds a line break"),
    "empty-name": ('{"train": [["a", 0, "_"]]}', "a class name is empty"),
    "deep": ("[" * 100_000, "nested too deeply"),
    "nothing": ("{}", "labels must be"),
    "cut": ('{"train": [', "cannot be read as JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", COOP)
def test_hostile_split_files(tmp_path, name):
    content, fragment = COOP[name]
    (tmp_path / "split.json").write_text(content)
    lines = told(open_source, CoopSource(kind="coop", file="split.json", root="."), tmp_path)
    assert fragment in lines[0] and str(tmp_path) in lines[0]


LISTS = {
    "deep": ("[" * 90_000, ":1: must be a JSON object with path"),
    "types": ('{"path": [1]}', ":1: path must be a text"),
    "split": ('{"path": "cat/0.png", "split": {}}', ":1: must be a JSON object"),
    "split-name": (
        '{"path": "cat/0.png", "split": "dev"}',
        ":1: split must be train, validation or test, got 'dev'",
    ),
    "slashes": ('{"path": "' + "/" * 90_000 + '"}', ":1: no training image of this task is called '//"),
    "unknown": (
        '{"path": "../../etc/passwd"}',
        ":1: no training image of this task is called '../../etc/passwd'",
    ),
    "scalar": ("3", ":1: must be a JSON object"),
    "empty": ("", "names no training image of this task"),
    "binary": ("\x00\x01", ":1: must be a JSON object"),
    "many": ('{"path": "x"}\n' * 50_000, ":1: no training image"),
}


@pytest.mark.parametrize("name", LISTS)
def test_hostile_lists_of_shots(every_source, name):
    content, fragment = LISTS[name]
    (every_source / "bad.jsonl").write_text(content)
    began = time.process_time()
    lines = told(plan, load_scenario(str(every_source / "all.yaml"), ["tasks.4.split_file=bad.jsonl"]), 0)
    assert "bad.jsonl" in lines[0] and fragment in lines[0]
    assert len(lines) <= 20 + ("more faults" in lines[-1]) and time.process_time() - began < 3


def test_a_picture_of_a_list_is_for_training_or_for_validation(every_source):
    trained = plan(load_scenario(str(every_source / "all.yaml")), 0).tasks[4].train[0].key
    rows = [{"path": trained}, {"path": trained, "split": "val"}]
    (every_source / "both.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (line,) = told(plan, load_scenario(str(every_source / "all.yaml"), ["tasks.4.split_file=both.jsonl"]), 0)
    assert "both.jsonl:2: " in line and "is for validation, and in line 1 for train" in line


def read_a_million(root: Path, count: int) -> Iterator[dict]:
    """Manifests of so many rows; the files themselves are looked at only when a split is asked for."""
    with (root / "m.csv").open("w") as table, (root / "m.jsonl").open("w") as lines:
        table.write("path,label,split\n")
        for number in range(count):
            path, label = f"class_{number % 1000:04d}/picture_{number:09d}.jpg", f"class {number % 1000}"
            split = "train" if number % 10 else "test"
            table.write(f"{path},{label},{split}\n")
            lines.write(json.dumps({"path": path, "label": label, "split": split}) + "\n")
    for file in ("m.csv", "m.jsonl"):
        config = ManifestSource(kind="manifest", file=file)
        yield measured(f"{count} {file}", lambda config=config: open_source(config, root))
    yield measured("missing", lambda: open_source(config, root).items("train"))


def test_a_million_rows(tmp_path):
    table, lines, missing = costs_of(__file__, tmp_path, 1_000_000 if LONG else 20_000)
    count = int(table["name"].split()[0])
    for one in (table, lines):
        assert one["lines"] == ["fine"] and one["s"] < 5 + 4e-5 * count, one
        assert one["bytes"] < 60_000_000 + 450 * count, one
    *lines, last = missing["lines"]
    assert len(lines) == 20 and lines[0].endswith("No such file or directory")
    assert f"train part: {count * 9 // 10 - 20} more faults" in last


if __name__ == "__main__":
    report(read_a_million(Path(sys.argv[1]), int(sys.argv[2])))
