"""Shards as WebDataset writes them: what makes a sample, where its label stands, how shards are listed."""

from __future__ import annotations

import bz2
import gzip
import itertools
import json
import lzma
import subprocess

import pytest

from builders.hostile import PIXELS, told
from builders.sources import seeds, shard
from cl_complora.config import load_scenario
from cl_complora.config.sources import ShardsSource
from cl_complora.data.archives.shard_names import MOST, braces, common_folder
from cl_complora.data.checks.notes import notes
from cl_complora.data.kinds import open_source
from cl_complora.data.planning import plan
from cl_complora.errors import UserError

PNG = "png"


def packed(path, *members):
    """A shard of (name, text, or ``PNG`` for a picture)."""
    shard(path, *((name, seeds()["png"] if text is PNG else text.encode(), {}) for name, text in members))


def opened(root, train="a.tar", test="a.tar", **settings):
    return open_source(ShardsSource(kind="shards", train=train, test=test, **settings), root)


def labels(source):
    return {item.key: source.class_names[item.label] for item in source.items("train")}


def said(source):
    return [note for note in source.notes if "training shards too" not in note]


def test_the_key_ends_at_the_first_dot_of_the_base_name(tmp_path):
    packed(tmp_path / "a.tar", ("v1.0/x.input.PNG", PNG), ("v1.0/x.output.cls", "cat"),
           ("./y.png", PNG), ("./y.CLS", "dog"))  # fmt: skip
    source = opened(tmp_path)
    assert labels(source) == {"a.tar/v1.0/x.input.PNG": "cat", "a.tar/./y.png": "dog"}
    assert source.load(source.items("train"), PIXELS).shape == (2, 3, 32, 32)


LABELS = {"cls": "cat", "json": json.dumps({"label": "dog"}), "txt": "a photo of a bird"}


@pytest.mark.parametrize("order", list(itertools.permutations((PNG, *LABELS))))
def test_the_order_in_an_archive_decides_nothing(tmp_path, order):
    for left_out, label in (((), "cat"), (("cls",), "dog"), (("cls", "json"), LABELS["txt"])):
        kinds = [kind for kind in order if kind not in left_out]
        packed(tmp_path / "a.tar", *((f"x.{k}", PNG if k == PNG else LABELS[k]) for k in kinds))
        source = opened(tmp_path)
        assert list(labels(source).values()) == [label]
        assert len(said(source)) == (len(kinds) > 2)
        assert list(labels(opened(tmp_path, label="txt")).values()) == [LABELS["txt"]]
    assert not said(opened(tmp_path, label="txt"))


def test_json_that_is_about_something_else(tmp_path):
    about = json.dumps({"width": 3})
    packed(tmp_path / "a.tar", ("x.json", about), ("x.png", PNG), ("x.cls", "cat"))
    source = opened(tmp_path)
    assert (
        list(labels(source).values()) == ["cat"]
        and "read from .cls (2 samples), not from .json" in said(source)[0]
    )
    packed(tmp_path / "a.tar", ("x.json", about), ("x.png", PNG), ("x.txt", "cat"))
    assert list(labels(opened(tmp_path)).values()) == ["cat"]


def test_several_pictures_or_labels_are_refused_or_chosen_from(tmp_path):
    packed(tmp_path / "a.tar", ("x.left.png", PNG), ("x.right.png", PNG), ("x.fine.cls", "cat"),
           ("x.coarse.cls", "animal"))  # fmt: skip
    (line,) = told(lambda: opened(tmp_path))
    assert "sample x (its name ends at the first dot) has 2 pictures, x.left.png and x.right.png" in line
    assert "image: left.png" in line
    (line,) = told(lambda: opened(tmp_path, image="left.png"))
    assert "has 2 labels, x.fine.cls and x.coarse.cls; say which one with label: fine.cls" in line
    chosen = opened(tmp_path, image="jpg;right.png", label="coarse.cls")
    assert labels(chosen) == {"a.tar/x.right.png": "animal"}


def test_members_that_stand_there_twice(tmp_path):
    packed(tmp_path / "a.tar", ("x.png", PNG), ("x.cls", "cat"), ("x.PNG", PNG))
    assert "x.PNG comes after x.png, of the same name" in told(lambda: opened(tmp_path))[0]
    # One key in two shards is two samples, as everywhere where each shard counts from 0.
    for name in ("a", "b"):
        packed(tmp_path / f"{name}.tar", ("0.png", PNG), ("0.cls", name))
    assert labels(opened(tmp_path, "{a,b}.tar")) == {"a.tar/0.png": "a", "b.tar/0.png": "b"}


def test_what_systems_leave_behind_is_passed_over(tmp_path):
    rubbish = ["._x.png", "d/._x.cls", "__MACOSX/d/._x.png", "__MACOSX/x.png", ".DS_Store", ".hidden.png",
               "d/.ipynb_checkpoints/x.png", "README", "__info__/x.png", "@eaDir/x.png"]  # fmt: skip
    packed(tmp_path / "a.tar", *((name, "rubbish") for name in rubbish), ("x.png", PNG), ("x.cls", "cat"))
    source = opened(tmp_path)
    assert labels(source) == {"a.tar/x.png": "cat"} and not said(source)


def test_samples_without_a_picture_or_a_label(tmp_path):
    packed(tmp_path / "a.tar", ("x.png", PNG), ("x.cls", "cat"), ("y.cls", "dog"), ("y.npy", "…"))
    (note,) = said(opened(tmp_path, test="a.tar"))
    assert (
        note.startswith("2 samples without a picture are passed over, such as") and "y (.cls, .npy)" in note
    )
    packed(tmp_path / "b.tar", ("x.png", PNG), ("y.png", PNG), ("z.png", PNG), ("z.cls", "cat"))
    (line,) = told(lambda: opened(tmp_path, train="b.tar"))
    assert "x.png has no label beside it (.cls or .json or .txt), nor has any of 1 other pictures" in line


def test_numbers_are_places_among_the_classes(tmp_path):
    packed(
        tmp_path / "a.tar",
        *((f"{n}.{kind}", PNG if kind == PNG else str(n)) for n in (1, 0) for kind in (PNG, "cls")),
    )
    source = opened(tmp_path, classes=["cat", "dog"])
    assert labels(source) == {"a.tar/0.png": "cat", "a.tar/1.png": "dog"}
    assert "count from 0 in classes: 0 is 'cat'" in said(source)[0]
    assert "labels are numbers; name the classes with classes" in told(lambda: opened(tmp_path))[0]
    assert "label '0' is none of" in told(lambda: opened(tmp_path, classes=["1", "2"]))[0]


@pytest.mark.parametrize(
    ("name", "pack", "command"),
    [("s.tar.gz", gzip.compress, "gunzip"), ("s.tgz", gzip.compress, "gunzip"),
     ("s.tar.bz2", bz2.compress, "bunzip2"), ("s.tar.xz", lzma.compress, "unxz"),
     ("s.tar", gzip.compress, "gunzip")],
)  # fmt: skip
def test_packed_archives_are_refused_with_the_command_that_unpacks(tmp_path, name, pack, command):
    packed(tmp_path / "a.tar", ("x.png", PNG), ("x.cls", "cat"))
    (tmp_path / name).write_bytes(pack((tmp_path / "a.tar").read_bytes()))
    (line,) = told(lambda: opened(tmp_path, train=name))
    assert "pictures are read by their place" in line and f"({command} < " in line
    shell, instead = line.partition("once (")[2].split(") and name ")
    subprocess.run(shell, shell=True, check=True)
    assert list(labels(opened(tmp_path, train=instead.removesuffix(" instead"))).values()) == ["cat"]


def test_a_zip_is_no_tar(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"PK\x03\x04" + bytes(600))
    assert "is a zip, 7z or rar archive; shards are tar files" in told(lambda: opened(tmp_path))[0]


def test_lists_of_shards(tmp_path):
    for number in range(12):
        (tmp_path / "d").mkdir(exist_ok=True)
        packed(tmp_path / "d" / f"t-{number:03d}.tar", (f"{number}.png", PNG), (f"{number}.cls", "cat"))
    for pattern, count in (
        ("d/t-{000..010}.tar", 11), ("d/t-{000,002}.tar::d/t-011.tar", 3), ("d/t-*.tar", 12),
        ("d/t-00{1,{3..5}}.tar", 4), (f"{tmp_path}/d/t-{{010..011}}.tar", 2), ("*/t-01?.tar", 2),
    ):  # fmt: skip
        assert len(opened(tmp_path, pattern, "d/t-000.tar").items("train")) == count, pattern
    for pattern, fragment in (
        ("d/t-{010..012}.tar", "d/t-012.tar: no shard matches"), ("d/u-*.tar", "no shard matches"),
        ("d/t-000.tar::d/t-{000..001}.tar", "this shard is named twice by"),
        ("d/t-000.tar::", "an empty name"), ("{0..999999999}.tar", f"names more than {MOST:,} shards"),
        ("s3://b/t-{000..010}.tar", "fetch them first"), ("pipe:cat a.tar", "fetch them first"),
        ("{" * 2000, "a pattern has at most 1,000 characters"),
    ):  # fmt: skip
        assert fragment in told(lambda pattern=pattern: opened(tmp_path, pattern, "d/t-000.tar"))[0]


@pytest.mark.parametrize(
    ("text", "names"),
    [("a{08..10}", "a08 a09 a10"), ("{a,b}{1..2}", "a1 a2 b1 b2"), ("{3..1}", "3 2 1"), ("{a..c}", "a b c"),
     ("{0..10..5}", "0 5 10"), ("x{a,{1..2}}y", "xay x1y x2y"), ("{a}", "{a}"), ("a{", "a{"), ("}{", "}{")],
)  # fmt: skip
def test_braces(text, names):
    assert list(braces(text)) == names.split()


def test_training_shards_that_are_tested_on_are_told(tmp_path):
    packed(tmp_path / "a.tar", ("x.png", PNG), ("x.cls", "cat"))
    assert "all test shards are training shards too" in opened(tmp_path).notes[-1]


def test_pictures_of_the_training_shards_in_the_test_are_told(tmp_path):
    pictures = {"a": seeds()["png"], "b": seeds()["png-16"], "c": seeds()["gif"]}

    def write(name, *members):
        named = [(f"{key}.{end}", content) for key, content, end in members]
        shard(tmp_path / name, *((*member, {}) for member in named))

    write("train.tar", ("0", pictures["a"], "png"), ("0", b"cat", "cls"),
          ("1", pictures["b"], "png"), ("1", b"dog", "cls"))  # fmt: skip
    write("test.tar", ("7", pictures["c"], "png"), ("7", b"cat", "cls"),
          ("8", pictures["b"], "png"), ("8", b"dog", "cls"))  # fmt: skip
    (tmp_path / "s.yaml").write_text(
        "name: s\nshots: 1\ntasks: [{name: t, source: {kind: shards, train: train.tar, test: test.tar}}]\n"
    )
    located = load_scenario(str(tmp_path / "s.yaml"))
    (line,) = [line for line in notes(located, plan(located, 0)) if "is no test" in line]
    assert "'t': 1 of 2 test pictures is used in its own training too: test.tar/8.png is train.tar/1" in line


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 10240\n", "is a git-lfs pointer"),
        (b"<!DOCTYPE html><html>Not found</html>" * 50, "is a web page"),
    ],
)
def test_what_stands_in_for_a_shard_is_named(tmp_path, content, what):
    (tmp_path / "a.tar").write_bytes(content)
    assert what in told(lambda: opened(tmp_path))[0]


def test_pictures_without_labels_are_refused_with_what_lies_beside_them(tmp_path):
    packed(tmp_path / "a.tar", ("x.png", PNG), ("x.label", "cat"), ("y.png", PNG), ("y.label", "dog"))
    assert (
        "beside them are .label, which label: label in the source reads" in told(lambda: opened(tmp_path))[0]
    )
    assert sorted(labels(opened(tmp_path, label="label")).values()) == ["cat", "dog"]
    packed(tmp_path / "b.tar", ("cat/x.png", PNG), ("dog/y.png", PNG))
    assert "unpack it and name the folder" in told(lambda: opened(tmp_path, "b.tar", "b.tar"))[0]


def test_files_of_a_source_lie_in_one_folder_or_are_refused(tmp_path, monkeypatch):
    paths = [tmp_path / "a" / "x.tar", tmp_path / "b" / "x.tar"]
    assert common_folder(paths) == tmp_path and common_folder(paths[:1]) == tmp_path / "a"

    def two_drives(folders):
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr("os.path.commonpath", two_drives)
    with pytest.raises(UserError, match="must lie on one drive"):
        common_folder(paths)
