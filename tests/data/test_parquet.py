"""Parquet files as the Hugging Face Hub ships them: columns, classes, parts, damage."""

from __future__ import annotations

import json
import random
import tracemalloc
from dataclasses import replace

import pytest

from builders.hostile import PIXELS, told
from builders.hub import COLOURS, NAMES, NO_PYARROW, coloured, parquet, rows
from cl_complora.config import load_scenario
from cl_complora.config.hub_sources import ParquetSource
from cl_complora.data.checks.duplicates import _by_content
from cl_complora.data.checks.notes import notes
from cl_complora.data.checks.picture_notes import picture_notes
from cl_complora.data.checks.verify import _faults, verify
from cl_complora.data.discovery.discover import describe
from cl_complora.data.division import UNDIVIDED
from cl_complora.data.hub import hub_pictures
from cl_complora.data.hub import parquet as reading
from cl_complora.data.images import cache, pixels
from cl_complora.data.kinds import open_source
from cl_complora.data.planning import plan
from cl_complora.data.plans import Plans
from cl_complora.data.tasks import load

pytest.importorskip("pyarrow", reason=NO_PYARROW)

WORDS = ["red", "light blue"]


def opened(root, **settings):
    return open_source(ParquetSource(kind="parquet", **settings), root)


def scenario(root, source, more=""):
    (root / "s.yaml").write_text(f"name: s\nshots: 2\n{more}tasks: [{{name: t, source: {source}}}]\n")
    return load_scenario(str(root / "s.yaml"))


@pytest.fixture
def hub(tmp_path):
    """Two files of training pictures and one of tests."""
    for number in range(2):
        parquet(tmp_path / f"data/train-0000{number}-of-00002.parquet", rows(6, 10 * number))
    parquet(tmp_path / "data/test-00000-of-00001.parquet", rows(4, 50))
    return tmp_path


FILES = {"train": "data/train-*.parquet", "test": "data/test-*.parquet"}


def test_files_are_read_in_their_order_with_the_declared_names(hub):
    source = opened(hub, **FILES)
    assert source.class_names == WORDS and source.notes == []
    items = source.items("train")
    assert [item.key for item in items][5:7] == [
        "train-00000-of-00002.parquet/5/5.png",
        "train-00001-of-00002.parquet/0/10.png",
    ]
    assert items[0].size == len(coloured(0, 0)) and items[0].label == 0 and items[1].label == 1
    assert [len(source.items(part)) for part in ("test", "validation", UNDIVIDED)] == [4, 0, 0]
    backwards = list(reversed(items))
    pixels = source.load(backwards, PIXELS)
    for image, item in zip(pixels, backwards, strict=True):
        assert image[:, 9, 9].tolist() == list(COLOURS[item.label])


def test_pictures_are_found_wherever_groups_of_rows_end(hub, monkeypatch):
    monkeypatch.setattr(reading, "KEPT", 1)
    source = opened(hub, **FILES)
    for number, item in enumerate(source.items("train")):
        assert source.load([item], PIXELS)[0, 0, 0, 0] == (number if number < 6 else number + 4)


def test_bytes_without_a_name_and_labels_that_are_texts(tmp_path):
    pictures = [coloured(label, n, kind) for n in range(4) for label, kind in ((0, "PNG"), (1, "JPEG"))]
    parquet(tmp_path / "a.parquet", {"picture": pictures, "breed": ["pug", "cat_dog"] * 4}, {})
    source = opened(tmp_path, train="a.parquet")
    assert source.class_names == ["cat_dog", "pug"]
    assert [len(source.items(part)) for part in ("train", "test", UNDIVIDED)] == [4, 4, 8]
    assert source.items(UNDIVIDED)[1].key == "a.parquet/1.jpg"
    assert "50 % of every class is set apart" in source.notes[0]
    assert not {item.key for item in source.items("train")} & {item.key for item in source.items("test")}
    assert opened(tmp_path, train="a.parquet", test_fraction=1.0).items("train") == []
    assert opened(tmp_path, test="a.parquet").items("train") == []
    assert opened(tmp_path, train="a.parquet", classes=["pug", "cat_dog"]).class_names == ["pug", "cat_dog"]
    (line,) = told(lambda: opened(tmp_path, train="a.parquet", classes=["pug", "cat"]))[:1]
    assert line.endswith(
        "a.parquet: row 1, column 'breed': label 'cat_dog' is none of the source's 2 classes"
    )


def test_numbers_need_names(tmp_path):
    parquet(tmp_path / "a.parquet", rows(4), {})
    assert (
        "labels are numbers without names; name the classes with classes"
        in told(lambda: opened(tmp_path, train="a.parquet"))[0]
    )
    source = opened(tmp_path, train="a.parquet", classes=["a", "b"])
    assert source.class_names == ["a", "b"] and "count from 0 in classes: 0 is 'a'" in source.notes[0]


def test_columns_that_may_be_meant(tmp_path):
    columns = {
        "img": rows(4)["image"],
        "fine_label": [0, 1, 0, 1],
        "coarse_label": [0, 0, 0, 0],
        "n": [1] * 4,
    }
    features = {
        "img": {"_type": "Image"},
        "fine_label": {"_type": "ClassLabel", "names": NAMES},
        "coarse_label": {"_type": "ClassLabel", "names": ["thing"]},
    }
    parquet(tmp_path / "a.parquet", columns, features)
    (line,) = told(lambda: opened(tmp_path, train="a.parquet"))
    assert "labels may be in any of the columns 'fine_label' and 'coarse_label'" in line
    assert "columns: {label: fine_label}" in line
    chosen = {"image": "img", "label": "coarse_label"}
    assert opened(tmp_path, train="a.parquet", columns=chosen).class_names == ["thing"]
    (line,) = told(lambda: opened(tmp_path, train="a.parquet", columns={"label": "labels"}))
    assert "columns.label: there is no column 'labels'; found 'img', 'fine_label'" in line
    (line,) = told(lambda: opened(tmp_path, train="a.parquet", columns={"image": "n"}))
    assert "column 'n' must hold pictures, as bytes or {bytes, path}, got int64" in line
    parquet(tmp_path / "b.parquet", {"image": ["a.png"], "label": [0.5]}, {})
    assert "a table of paths is kind: manifest" in told(lambda: opened(tmp_path, train="b.parquet"))[0]
    parquet(tmp_path / "c.parquet", {"image": [b""], "label": [0.5]}, {})
    (line,) = told(lambda: opened(tmp_path, train="c.parquet"))
    assert "column 'label' must hold labels, as numbers or texts, got double" in line
    parquet(tmp_path / "d.parquet", {"image": [b""], "text": ["a"]}, {})
    assert (
        "no column is called or declared as one of labels"
        in told(lambda: opened(tmp_path, train="d.parquet"))[0]
    )


@pytest.mark.parametrize(
    ("labels", "fault"),
    [([0, 1, 2, 0], "row 2, column 'label': label 2 is none of the source's 2 classes; numbers count from 0"),
     ([0, -1, 0, 1], "row 1, column 'label': label -1 is none of the source's 2 classes, and stands for"),
     ([None, 1, 0, 1], "row 0, column 'label': holds no label")],
)  # fmt: skip
def test_labels_that_are_no_class(tmp_path, labels, fault):
    parquet(tmp_path / "a.parquet", rows(4) | {"label": labels})
    (line,) = told(lambda: opened(tmp_path, train="a.parquet"))
    assert line.startswith(f"{tmp_path}/a.parquet: {fault}")


def test_files_that_do_not_fit_together(hub):
    other = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["x", "y"]}}
    parquet(hub / "data/train-00001-of-00002.parquet", rows(6), other)
    (line,) = told(lambda: opened(hub, **FILES))
    assert "train-00001-of-00002.parquet: declares other class names than" in line
    assert "no file matches" in told(lambda: opened(hub, train="gone-*.parquet"))[0]


@pytest.mark.parametrize(
    "names", ["red", [], [1, 2], {"0": "red"}], ids=["text", "nothing", "numbers", "mapping"]
)
def test_names_that_are_none(tmp_path, names):
    parquet(tmp_path / "a.parquet", rows(2), {"label": {"_type": "ClassLabel", "names": names}})
    (line,) = told(lambda: opened(tmp_path, train="a.parquet"))
    assert "column 'label' declares class names that are no list of texts" in line


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"", "it is empty"),
     (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa", "a git-lfs pointer"),
     (b"<!DOCTYPE html><html>Not found</html>" * 50, "is a web page"), (b"PAR1" + b"x" * 90 + b"PAR1", ""),
     (b"text\n" * 99, "")],
)  # fmt: skip
def test_damaged_files_are_named(tmp_path, content, what):
    (tmp_path / "a.parquet").write_bytes(content)
    (line,) = told(lambda: opened(tmp_path, train="a.parquet"))
    assert line.startswith(f"{tmp_path}/a.parquet: cannot be read as a Parquet file: ") and what in line


def test_a_file_that_is_cut_or_changed_inside(tmp_path):
    parquet(tmp_path / "a.parquet", rows(8))
    whole = (tmp_path / "a.parquet").read_bytes()
    for number, damaged in enumerate([whole[: len(whole) // 2], whole[:200] + b"\xff" * 300 + whole[500:]]):
        (tmp_path / f"{number}.parquet").write_bytes(damaged)

        def read(name=f"{number}.parquet"):
            source = opened(tmp_path, train=name)
            source.load(source.items(UNDIVIDED), PIXELS)

        assert f"{number}.parquet" in told(read)[0]


def test_damaged_and_missing_pictures_are_named_or_skipped(tmp_path):
    columns = rows(8)
    columns["image"][2] = {"bytes": b"no picture", "path": "2.png"}
    columns["image"][5] = {"bytes": None, "path": "/etc/passwd"}
    parquet(tmp_path / "a.parquet", columns)
    parquet(tmp_path / "b.parquet", rows(4, 20))
    located = scenario(tmp_path, "{kind: parquet, train: a.parquet, test: b.parquet}")
    (line,) = told(lambda: plan(located, 0))
    assert line.endswith(f"{tmp_path}/a.parquet: row 5, column 'image': holds no picture")
    located = scenario(tmp_path, "{kind: parquet, train: a.parquet, test: b.parquet}", "broken: skip\n")
    plans = plan(located, 0)
    assert [f"row {row}, column 'image'" in line for row, line in zip((5, 2), plans.skipped, strict=True)]
    assert len(plans.tasks[0].source.items("train")) == 6
    columns["image"][5] = rows(8)["image"][5]
    parquet(tmp_path / "a.parquet", columns)
    source = opened(tmp_path, train="a.parquet", test="b.parquet")
    (line,) = told(lambda: source.load(source.items("train"), PIXELS))
    assert line.startswith(f"{tmp_path}/a.parquet: row 2, column 'image': cannot be read as an image: it is")


def test_sizes_are_read_once_and_again_when_the_file_changes(tmp_path, monkeypatch):
    parquet(tmp_path / "a.parquet", rows(4))
    first = opened(tmp_path, train="a.parquet").items("train")
    with monkeypatch.context() as patched:
        patched.setattr(reading.ParquetRows, "values", None)
        assert opened(tmp_path, train="a.parquet").items("train") == first
    parquet(tmp_path / "a.parquet", rows(6, 100))
    source = opened(tmp_path, train="a.parquet")
    assert len(source.items(UNDIVIDED)) == 6 and source.load(source.items("test"), PIXELS).shape[0] == 4


def test_a_long_look_at_the_sizes_is_told(hub, monkeypatch):
    monkeypatch.setattr(hub_pictures, "LONG", -1.0)
    told = [note for note in opened(hub, **FILES).notes if "read through once" in note]
    assert len(told) == 3 and "train-00000-of-00002.parquet: its 6 pictures were" in told[0]


def test_groups_of_rows_that_are_too_large_are_refused(tmp_path, monkeypatch):
    parquet(tmp_path / "a.parquet", rows(4))
    monkeypatch.setattr(reading, "MOST_GROUP", 2**6)
    (line,) = told(lambda: opened(tmp_path, train="a.parquet"))
    assert "group 0 of rows holds" in line and "smaller groups" in line


def test_equal_pictures_of_a_group_are_one_in_memory(tmp_path):
    """A dictionary writes once what every row holds."""
    parquet(tmp_path / "a.parquet", {"image": [coloured(0)] * 40 + [None], "label": ["a"] * 41}, {}, 50)
    kept = reading.Kept()
    pictures = kept.get(reading.ParquetRows(tmp_path / "a.parquet", "a", kept), "image", 0)
    assert len({id(picture) for picture in pictures[:40]}) == 1 and pictures[40] is None
    assert kept._bytes == len(coloured(0))


def test_a_group_that_holds_more_than_it_states_is_refused(tmp_path, monkeypatch):
    """Values may be written as what begins like the one before."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    beginning = random.Random(0).randbytes(2_000)
    table = pa.table({"image": [beginning + bytes([row]) for row in range(100)], "label": ["a"] * 100})
    encoding = {"image": "DELTA_BYTE_ARRAY"}
    write_table(table, tmp_path / "a.parquet", use_dictionary=False, column_encoding=encoding)
    source = opened(tmp_path, train="a.parquet", test="a.parquet")
    assert source.stored(source.items("train")[7]).read() == beginning + b"\7"
    monkeypatch.setattr(reading, "KEPT", 10_000)
    source = opened(tmp_path, train="a.parquet", test="a.parquet")
    (line,) = told(lambda: source.load(source.items("train")[:1], PIXELS))
    assert "a.parquet: group 0 of rows holds more pictures than the " in line and "it states" in line


def test_equal_labels_are_one_in_memory_and_long_ones_are_refused(tmp_path):
    name = "a class"
    parquet(tmp_path / "a.parquet", rows(300) | {"label": [name, "b"] * 150}, {}, 300)
    labels = reading.ParquetRows(tmp_path / "a.parquet", "a", reading.Kept()).labels("label")
    assert labels == [name, "b"] * 150 and len({id(label) for label in labels}) == 2
    parquet(tmp_path / "a.parquet", {"image": [b""] * 500, "label": ["b"] + ["a" * 10**5] * 499}, {}, 500)
    tracemalloc.start()
    (line,) = told(lambda: opened(tmp_path, train="a.parquet"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert line.startswith(f"{tmp_path}/a.parquet: row 1, column 'label': the class name 'aaa")
    assert line.endswith("has 100000 characters; at most 500 are taken") and peak < 20 * 10**6


def test_a_large_picture_is_refused_before_it_is_read(tmp_path, monkeypatch):
    parquet(tmp_path / "a.parquet", rows(4))
    source = opened(tmp_path, train="a.parquet", test="a.parquet")
    (item, *_) = source.items("train")
    monkeypatch.setattr(pixels, "MAX_BYTES", 10)
    monkeypatch.setattr(reading.ParquetRows, "picture", None)
    with pytest.raises(OSError, match="is larger than 10 bytes"):
        source.stored(item)
    (line,) = told(lambda: source.load([item], PIXELS))
    assert line.endswith("row 0, column 'image': cannot be read as an image: is larger than 10 bytes")


def test_what_is_tested_on_though_it_was_trained_on(hub):
    parquet(hub / "data/test-00000-of-00001.parquet", rows(6, 10))
    located = scenario(hub, "{kind: parquet, train: data/train-00001*, test: data/test-*}")
    told_of = notes(located, plan(located, 0))
    assert any("4 of 6 test pictures are used in its own training too" in line for line in told_of)


def test_a_validation_that_serves_as_the_test_and_is_trained_on_is_told(hub):
    parquet(hub / "data/validation-00000-of-00001.parquet", rows(6, 10))
    source = opened(hub, train="data/*.parquet", validation="data/validation-*.parquet")
    assert any("is for training and for the test" in note for note in source.notes)


def test_a_stream_of_it_runs_the_checks(hub):
    source = "{kind: parquet, train: data/train-*.parquet, test: data/test-*.parquet}"
    located = scenario(hub, source, "zero_shot: [{name: z, source: {kind: parquet, test: data/test-*}}]\n")
    plans = plan(located, 0)
    assert plans.tasks[0].manifest()[0]["key"].startswith("train-0000")
    data = load(plans, "task-incremental", PIXELS)
    assert data.tasks[0].train.pixels.shape[0] == 4
    for image, label in zip(data.tasks[0].train.pixels, data.tasks[0].train.labels, strict=True):
        assert image[:, 9, 9].tolist() == list(COLOURS[label])
    report = verify(str(hub / "s.yaml"))
    assert (
        not report.faults and "t: 2 classes, 4 training, 4 test images, all can be read" in report.lines[-4]
    )
    picked = json.dumps({"path": "10.png"}) + "\n" + json.dumps({"path": "11.png"}) + "\n"
    (hub / "list.jsonl").write_text(picked)
    (hub / "s.yaml").write_text(f"name: s\ntasks: [{{name: t, source: {source}, split_file: list.jsonl}}]\n")
    keys = [item.key for item in plan(load_scenario(str(hub / "s.yaml")), 0).tasks[0].train]
    assert keys == ["train-00001-of-00002.parquet/0/10.png", "train-00001-of-00002.parquet/1/11.png"]


def test_nothing_to_read_is_refused_where_it_stands(tmp_path):
    (tmp_path / "s.yaml").write_text("name: s\ntasks:\n  - name: t\n    source: {kind: parquet}\n")
    (line,) = told(lambda: load_scenario(str(tmp_path / "s.yaml")))
    assert "s.yaml:4: tasks[0].source: needs train, test or both" in line


def test_a_downloaded_data_set_becomes_a_scenario(hub, tmp_path):
    parquet(hub / "more/[pets]/all.parquet", rows(8))
    parquet(hub / "data/extra.parquet", rows(2))
    parquet(hub / "data/test-extra-00000-of-00001.parquet", rows(3))
    text, told_of = describe([hub, hub / "more/[pets]"], tmp_path / "mine.yaml")
    numbers = "-[0-9]*-of-*.parquet"
    assert f'{{kind: parquet, train: "data/train{numbers}", test: "data/test{numbers}"}}' in text
    assert '{kind: parquet, train: "more/[[]pets]/all.parquet"}' in text
    (tmp_path / "mine.yaml").write_text(text)
    plans = plan(load_scenario(str(tmp_path / "mine.yaml")), 0)
    assert [len(one.test) for one in plans.tasks] == [4, 4] and "2 classes, 12 training" in " ".join(told_of)
    assert f"{hub.name}: data/extra.parquet: is called like no part, and is left out" in told_of
    parquet(hub / "data/dev.parquet", rows(2))
    parquet(hub / "data/val.parquet", rows(2))
    assert "which Parquet files are for training" in told(lambda: describe([hub], tmp_path / "m.yaml"))[0]


def test_groups_of_rows_are_read_once_by_whoever_wants_all_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("CL_COMPLORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(reading, "KEPT", 1)
    monkeypatch.setattr(cache, "PART", 5)
    parquet(tmp_path / "train.parquet", rows(12, 100))
    parquet(tmp_path / "test.parquet", rows(16))
    located = scenario(tmp_path, "{kind: parquet, train: train.parquet, test: test.parquet}")
    task = plan(located, 0).tasks[0]
    assert [item.order for item in task.test] != sorted(item.order for item in task.test)
    groups, real = [], reading.ParquetRows.values

    def values(self, column, group):
        groups.append((self.name, group))
        return real(self, column, group)

    monkeypatch.setattr(reading.ParquetRows, "values", values)
    every = [("test.parquet", group) for group in range(4)]
    direct = task.source.load(task.test, PIXELS)
    assert cache.load_cached(task.source, task.test, PIXELS).equal(direct) and groups[-4:] == every
    for look in (
        lambda: _faults(task, task.test, PIXELS),
        lambda: _by_content([(task, item) for item in task.test], {item.size for item in task.test}, {}),
        lambda: picture_notes(Plans((replace(task, train=()),), ()), every=True),
    ):
        groups.clear()
        look()
        assert groups == every
