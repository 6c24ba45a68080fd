"""Tables as people keep them: each is read as it is meant, which is said, or refused with what to write."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from builders.hostile import told
from builders.sources import seeds
from cl_complora.config import load_scenario
from cl_complora.config.sources import CoopSource, ManifestSource
from cl_complora.data.kinds import open_source
from cl_complora.data.planning import plan

ROWS = [("cat0.png", "cat", "train"), ("cat1.png", "cat", "test"), ("dog0.png", "dog", "train"),
        ("dog1.png", "dog", "test")]  # fmt: skip


@pytest.fixture
def root(tmp_path):
    for name, *_ in ROWS:
        (tmp_path / name).write_bytes(seeds()["png"])
    return tmp_path


def opened(root, content, name="m.csv", **settings):
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_source(ManifestSource(kind="manifest", file=name, **settings), root)


def table(head, separator=",", rows=ROWS, end="\n"):
    return end.join(separator.join(map(str, row)) for row in [head, *rows]) + end


def is_read(source, labels=("cat", "dog")):
    assert source.class_names == list(labels)
    for split in ("train", "test"):
        found = [(item.key, item.label) for item in source.items(split)]
        assert found == [(p, int(c == "dog")) for p, c, s in ROWS if s == split]


HEAD = ("path", "label", "split")


def test_a_class_that_only_the_test_part_has_is_told_with_its_row_and_its_twin(root):
    rows = [*ROWS[:3], ("dog1.png", "Dog", "test")]
    (root / "m.csv").write_text(table(HEAD, rows=rows))
    source = "source: {kind: manifest, file: m.csv}"
    text = f"name: m\nmodel: {{name: embedded}}\nshots: 1\ntasks:\n  - {{name: t, {source}}}\n"
    (root / "s.yaml").write_text(text)
    (line,) = told(lambda: plan(load_scenario(str(root / "s.yaml")), 0))
    assert "class 'Dog' of task 't' has 0 training images; it stands in" in line
    assert line.endswith("m.csv:5, and 'dog' is another class")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_separators_marks_and_ends_of_lines(root, separator, start, end):
    source = opened(root, start + table(HEAD, separator, end=end).encode())
    is_read(source)
    assert source.notes == []


@pytest.mark.parametrize(
    ("content", "settings"),
    [
        ("sep=;\n" + table(HEAD, ";"), {}),
        (table(HEAD, ", "), {}),
        (table(HEAD, "^"), {"separator": "^"}),
        (table(HEAD, " "), {"separator": "space"}),
        (table(HEAD, "\t"), {"separator": "tab"}),
        (table(HEAD, ";") + ";;\n;;\n", {}),  # what a spreadsheet leaves below
        (table((*HEAD, ""), ";", [(*row, "") for row in ROWS]), {}),
        (table(("Path", " LABEL", "Split")), {}),
        (table(("path", "label", "id", "class", "split"), rows=[(p, c, 7, 8, s) for p, c, s in ROWS]), {}),
    ],
)
def test_what_needs_no_word(root, content, settings):
    source = opened(root, content, **settings)
    is_read(source)
    assert source.notes == []


@pytest.mark.parametrize(
    "head",
    [("image", "class", "set"), ("filename", "category", "subset"), ("file", "species", "partition"),
     ("Image Path", "Class_Name", "fold"), ("filepath", "target", "SPLIT"), ("image_id", "breed", "split")],
)  # fmt: skip
def test_usual_names_of_columns_are_recognised_and_told(root, head):
    source = opened(root, table(head, ";"))
    is_read(source)
    (note,) = source.notes
    assert f"path is read from the column {head[0]!r}" in note and f"column {head[1]!r}" in note


def test_columns_that_the_source_names(root):
    columns = {"path": "Bild", "label": "Art", "split": "Teil"}
    source = opened(root, table(("Bild", "Art", "Teil"), ";"), columns=columns)
    is_read(source)
    assert source.notes == []
    content = table(("file", "image", "class", "set"), rows=[("x", p, c, s) for p, c, s in ROWS])
    is_read(opened(root, content, columns={"path": "image"}))


@pytest.mark.parametrize(
    ("head", "settings", "fragment"),
    [
        (
            "file;image;class",
            {},
            ":1: path may be any of the columns 'file' and 'image'; say which in",
        ),
        ("path;class;species", {}, "label may be any of the columns 'class' and 'species'"),
        ("foto;klasse", {}, "path and label missing; found 'foto', 'klasse'; name others"),
        (
            "foto;label",
            {"columns": {"path": "photo"}},
            "columns.path: there is no column 'photo'; found",
        ),
        ("path^label", {}, "path and label missing; found 'path^label'"),
        ("path;label;path", {}, "the column path stands there twice"),
        (
            "0.png;cat;train",
            {},
            "has a picture; found '0.png', 'cat', 'train'; put a line such as path,label",
        ),
    ],
)
def test_columns_that_are_not_clear_are_refused_with_those_found(root, head, settings, fragment):
    (line,) = told(lambda: opened(root, head + "\na;b;c\n", **settings))
    assert fragment in line


def test_spellings_of_splits(root):
    names = {"train": ["Train", "TRAINING", " train "], "validation": ["val", "Valid", "dev"],
             "test": ["TEST", "testing", "eval"]}  # fmt: skip
    rows = [(f"{n}{i}.png", "cat", n) for part in names.values() for i, n in enumerate(part)]
    for path, *_ in rows:
        (root / path).write_bytes(b"x")
    source = opened(root, table(HEAD, rows=rows))
    assert {split: len(source.items(split)) for split in names} == {"train": 3, "validation": 3, "test": 3}
    assert "split must be train, validation or test, got '0'" in told(
        lambda: opened(root, table(HEAD, rows=[("cat0.png", "cat", 0)]))
    )[0]  # fmt: skip


def test_a_fold_of_numbers_is_no_split_and_that_is_told(root):
    source = opened(root, table(("path", "label", "fold"), rows=[(p, c, 3) for p, c, _ in ROWS]))
    assert len(source.items("train")) == len(source.items("test")) == 2
    assert "'fold' is not read as split" in source.notes[0] and "is set apart" in source.notes[1]


def test_labels_by_place(root):
    numbered = [(p, int(c == "dog"), s) for p, c, s in ROWS]
    source = opened(root, table(HEAD, rows=numbered), classes=["cat", "dog"])
    is_read(source)
    assert "count from 0 in classes: 0 is 'cat'" in source.notes[0]
    lines = "\n".join(json.dumps({"path": p, "label": float(c), "split": s}) for p, c, s in numbered)
    is_read(opened(root, lines, "m.jsonl", classes=["cat", "dog"]))
    past = told(lambda: opened(root, table(HEAD, rows=[("cat0.png", 2, "train")]), classes=["cat", "dog"]))
    assert "m.csv:2: label '2' is none of the source's classes; numbers count from 0 to 1" in past[0]
    # Who calls his classes by numbers does not count.
    named = table(HEAD, rows=[("cat0.png", 0, "train"), ("cat1.png", 1, "train")])
    assert "label '0' is none of" in told(lambda: opened(root, named, classes=["1", "2"]))[0]


def test_a_column_of_names_beside_numbers_is_told(root):
    rows = [(p, int(c == "dog"), c) for p, c, _ in ROWS]
    source = opened(root, table(("path", "label", "class_name"), rows=rows))
    assert source.class_names == ["0", "1"] and "columns: {label: class_name}" in source.notes[0]


def test_ids_without_a_suffix(root):
    ids = table(("id", "label", "split"), rows=[(p[:-4], c, s) for p, c, s in ROWS])
    (line, *_) = told(opened(root, ids).items, "train")
    assert "No such file or directory; there is one that ends in .png: suffix: .png in the source" in line
    for suffix in (".png", "png"):
        is_read(opened(root, ids, suffix=suffix))
    for number in range(2):
        (root / f"{number}.png").write_bytes(b"x")
    lines = '{"image": 0, "label": "cat"}\n{"image": 1, "label": "dog"}\n'
    keys = [item.key for item in opened(root, lines, "m.jsonl", suffix=".png").items("train")]
    assert keys == ["0.png", "1.png"]


def test_absolute_paths_below_the_root(root):
    is_read(opened(root, table(HEAD, rows=[(root / p, c, s) for p, c, s in ROWS])))
    out = table(HEAD, rows=[(f"{root}/../x.png", "cat", "train"), (f"{root}-2/x.png", "cat", "train")])
    assert all("path must lie below the root" in line for line in told(lambda: opened(root, out)))


def test_json_lists_and_lines(root):
    entries = [{"file": p, "species": c, "subset": s} for p, c, s in ROWS]
    lines = "\n".join(map(json.dumps, entries))
    for content, name in ((json.dumps(entries, indent=1), "m.json"), (lines, "m.json"), (lines, "m.ndjson")):
        is_read(opened(root, content, name))
    for content, fragment in (
        ("{", "cannot be read as JSON"),
        ('{"train": [], "test": []}', "found 'train', 'test'; CoOp's split files are kind: coop"),
        ("3", "must be a list of objects"),
        ('[{"path": "a.png", "label": "x"}, 4]', "m.json[1]: must be a JSON object"),
        ('[{"path": "a.png"}]', "m.json[0]: must be a JSON object with path, label and split, found 'path'"),
    ):
        assert fragment in told(lambda content=content: opened(root, content, "m.json"))[0]
    assert "save it as CSV" in told(lambda: opened(root, b"PK", "m.xlsx"))[0]


@pytest.mark.parametrize("settings", [{"separator": "ab"}, {"separator": "a"}, {"suffix": "a/b"}])
def test_settings_that_cannot_be(settings):
    with pytest.raises(ValidationError):
        ManifestSource(kind="manifest", file="m.csv", **settings)


def test_a_scenario_with_a_table_tells_how_it_was_read(root):
    (root / "t.csv").write_text(table(("image", "class", "set"), ";"))
    (root / "s.yaml").write_text(
        "name: s\nshots: 1\ntasks: [{name: a, source: {kind: manifest, file: t.csv}}]\n"
    )
    plans = plan(load_scenario(str(root / "s.yaml")), 0)
    assert len(plans.tasks[0].test) == 2 and "path is read from the column 'image'" in plans.notes[0]


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.json", "coop"])
def test_validation_serves_as_the_test_where_there_is_no_other(root, name):
    rows = [(path, label, {"test": "valid"}.get(split, split)) for path, label, split in ROWS]
    if name == "coop":
        parts = {"train": [], "val": []}
        for path, label, split in rows:
            parts["train" if split == "train" else "val"].append([path, int(label == "dog"), label])
        (root / "s.json").write_text(json.dumps(parts))
        source = open_source(CoopSource(kind="coop", file="s.json", root="."), root)
    elif name == "m.csv":
        source = opened(root, table(HEAD, rows=rows))
    else:
        objects = [dict(zip(HEAD, row, strict=True)) for row in rows]
        lines = "\n".join(map(json.dumps, objects)) if name == "m.jsonl" else json.dumps(objects)
        source = opened(root, lines, name)
    is_read(source)
    assert source.items("validation") == []
    assert [note for note in source.notes if "the validation pictures serve as the test" in note]


def written(rows, keys):
    return "".join(
        json.dumps({k: v for k, v in zip(keys, row, strict=True) if v != ""}) + "\n" for row in rows
    )


@pytest.mark.parametrize("key", ["split", "subset"])
def test_a_split_that_only_later_json_lines_have_is_read(root, key):
    rows = [(*row[:2], "" if row[2] == "train" else "test") for row in ROWS]
    source = opened(root, written(rows, ("path", "label", key)), "m.jsonl")
    is_read(source)
    assert source.notes[-1] == f"{root}/m.jsonl: 2 rows name no part and are trained on"
    assert any(f"split is read from the column '{key}'" in note for note in source.notes) == (key != "split")
    listed = f"[{','.join(written(rows, ('path', 'label', key)).splitlines())}]"
    is_read(opened(root, listed, "m.json"))


def test_later_keys_of_json_lines_that_are_no_split_or_may_be_several(root):
    rows = [(*row, "" if place == 0 else f"{place}") for place, row in enumerate(ROWS)]
    source = opened(root, written(rows, ("path", "label", "split", "subset")), "m.jsonl")
    is_read(source)
    assert source.notes == []
    rows = [(*row[:2], "" if place == 0 else str(place)) for place, row in enumerate(ROWS)]
    source = opened(root, written(rows, ("path", "label", "fold")), "m.jsonl")
    assert "the column 'fold' is not read as split, which '1' is none of" in source.notes[0]
    rows = [(*row[:2], *(("", "") if place == 0 else row[2:] * 2)) for place, row in enumerate(ROWS)]
    (line,) = told(lambda: opened(root, written(rows, ("path", "label", "set", "subset")), "m.jsonl"))
    assert line.startswith(f"{root}/m.jsonl:2: split may be any of the columns 'set' and 'subset'")


def test_rows_that_name_no_part_are_counted(root):
    rows = [ROWS[0], ROWS[1], (*ROWS[2][:2], ""), ROWS[3]]
    source = opened(root, table(HEAD, rows=rows))
    is_read(source)
    assert source.notes == [f"{root}/m.csv: 1 row names no part and is trained on"]


@pytest.mark.parametrize(
    ("column", "yes", "use"), [("is_train", "train", "tested"), ("is_test", "test", "trained")]
)
def test_a_blank_is_no_where_the_others_say_yes(root, column, yes, use):
    rows = [(*row[:2], "1" if row[2] == yes else "") for row in ROWS]
    source = opened(root, table(("path", "label", column), rows=rows))
    is_read(source)
    assert source.notes[-1].endswith(
        f": 2 rows name no part, which is read as no since the others say yes, and are {use} on"
    )
    rows[1] = (*rows[1][:2], "0" if yes == "train" else "1")
    rows[0] = (*rows[0][:2], "1" if yes == "train" else "0")
    source = opened(root, table(("path", "label", column), rows=rows))
    assert "no part and " in source.notes[-1] and source.notes[-1].endswith("trained on")


def test_files_of_a_table_are_looked_at_once(root, monkeypatch):
    source = opened(root, table(HEAD))
    listed = source.items("test")
    monkeypatch.setattr(source, "_looked", None)  # not called any more
    assert source.items("test") == listed and source.present("test") == (listed, [])
