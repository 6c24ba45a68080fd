"""Paths that lead to no file, elsewhere, or to what may not be read."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from builders.hostile import PIXELS, told
from builders.sources import line_of, make_every_source, seeds
from cl_complora.config import load_scenario
from cl_complora.config.sources import CoopSource, FolderSource, ManifestSource
from cl_complora.data.discovery.discover import describe
from cl_complora.data.kinds import open_source
from cl_complora.data.planning import plan
from cl_complora.files import read_text
from cl_complora.finished.predict import pictures

pytestmark = pytest.mark.usefixtures("never_hangs")


@pytest.fixture(scope="module")
def every_source(tmp_path_factory) -> Path:
    return make_every_source(tmp_path_factory.mktemp("sources"))


# What is no file
@pytest.fixture
def odd_files(tmp_path) -> Path:
    """Class folders with four good pictures each, and everything else that can be called x.jpg."""
    root = tmp_path / "odd"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (8, 8)).save(root / name / f"{number}.png")
    cat = root / "cat"
    os.mkfifo(cat / "pipe.jpg")
    (cat / "folder.jpg").mkdir()
    (cat / "loop.jpg").symlink_to("loop.jpg")
    (cat / "one.jpg").symlink_to("two.jpg")
    (cat / "two.jpg").symlink_to("one.jpg")
    (cat / "nowhere.jpg").symlink_to("gone.jpg")
    (cat / "endless.jpg").symlink_to("/dev/zero")
    (cat / "around").symlink_to(root)
    (cat / ".hidden.jpg").write_bytes(b"")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as one:
        here = Path.cwd()
        os.chdir(cat)  # a socket's whole path may have 107 characters
        one.bind("socket.jpg")
        os.chdir(here)
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # not in every container
            os.mknod(cat / "device.jpg", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    return root


def test_class_folders_hold_files_only(odd_files, tmp_path):
    source = open_source(FolderSource(kind="folder", root=str(odd_files)), tmp_path)
    keys = sorted(item.key for split in ("train", "test") for item in source.items(split))
    assert keys == sorted(f"{name}/{number}.png" for name in ("cat", "dog") for number in range(4))
    text, notes = describe([odd_files], tmp_path / "s.yaml")
    told, nowhere, around, tuning = notes
    assert "4 links lead nowhere" in nowhere and "1 link to a folder is not followed" in around
    assert told == "odd: 2 classes, 4 training and 4 test images" and "tune needs" in tuning
    assert [path.name for path in pictures([odd_files / "cat"])] == ["0.png", "1.png", "2.png", "3.png"]


ODD = (
    "pipe.jpg",
    "folder.jpg",
    "loop.jpg",
    "one.jpg",
    "nowhere.jpg",
    "endless.jpg",
    "socket.jpg",
    "device.jpg",
)


@pytest.mark.parametrize("name", ODD)
def test_what_is_no_file_is_never_opened(odd_files, tmp_path, name, monkeypatch):
    path = odd_files / "cat" / name
    if not path.exists() and not path.is_symlink():
        pytest.skip("no device can be made here")
    opened, really = [], os.open
    monkeypatch.setattr(os, "open", lambda file, *rest: opened.append(str(file)) or really(file, *rest))
    assert "cannot be read as an image" in told(PIXELS.read, path)[0]
    assert "cannot be read" in told(read_text, path, 100)[0]
    if not path.is_dir():
        assert str(path) in told(pictures, [path])[0]
    (odd_files / "m.jsonl").write_text(json.dumps({"path": f"cat/{name}", "label": "x"}) + "\n")
    source = open_source(ManifestSource(kind="manifest", file="m.jsonl"), odd_files)
    assert f"{path}: " in told(source.items, "train")[0]
    assert str(path) not in opened


@pytest.mark.parametrize("what", ["pipe", "folder", "/dev/zero", "loop"])
@pytest.mark.parametrize(
    "source",
    [
        "{{kind: manifest, file: {0}.csv}}", "{{kind: manifest, file: {0}.jsonl}}",
        "{{kind: coop, file: {0}.json, root: .}}",
        "{{kind: shards, train: '{0}*.tar', test: '{0}*.tar'}}", "{{kind: folder, root: {0}.tar}}",
        "{{kind: dataset, name: dtd, root: {0}.tar}}",
    ],
)  # fmt: skip
def test_lists_and_archives_are_files(tmp_path, what, source):
    for suffix in (".csv", ".jsonl", ".json", ".tar"):
        path = tmp_path / f"odd{suffix}"
        if what == "pipe":
            os.mkfifo(path)
        elif what == "folder":
            path.mkdir()
        else:
            path.symlink_to(path if what == "loop" else what)
    (tmp_path / "s.yaml").write_text(f"name: s\ntasks: [{{name: a, source: {source.format('odd')}}}]\n")
    (line,) = told(lambda: plan(load_scenario(str(tmp_path / "s.yaml")), 0))
    assert line.startswith(f"{tmp_path}/s.yaml:2: tasks[0].source: ")


def test_a_list_of_shots_that_is_a_pipe(every_source):
    os.mkfifo(every_source / "pipe.jsonl")
    scenario = load_scenario(str(every_source / "all.yaml"), ["tasks.4.split_file=pipe.jsonl"])
    assert "pipe.jsonl: cannot be read: is no regular file" in told(plan, scenario, 0)[0]
    (every_source / "pipe.jsonl").unlink()


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, whom no permission stops."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_may_not_be_read_is_told():
    # Not tmp_path nor TMPDIR: only their owner may enter those, and nobody has to reach the files that he may
    # not read.
    with tempfile.TemporaryDirectory(dir="/tmp" if os.geteuid() == 0 else None) as name:
        root = Path(name)
        root.chmod(0o755)
        for label in ("cat", "dog"):
            (root / "data" / label).mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (8, 8)).save(root / "data" / label / f"{number}.png")
        (root / "s.yaml").write_text(
            "name: s\nshots: 1\ntasks: [{name: a, source: {kind: folder, root: data}}]\n"
        )
        (root / "data" / "cat").chmod(0o700 if os.geteuid() == 0 else 0)
        (root / "data" / "dog" / "0.png").chmod(0o600 if os.geteuid() == 0 else 0)
        with as_nobody():
            (line,) = told(lambda: plan(load_scenario(str(root / "s.yaml")), 0))
            (picture,) = told(PIXELS.read, root / "data" / "dog" / "0.png")
        (root / "data" / "cat").chmod(0o755)
        assert line.startswith(
            f"{root}/s.yaml:3: tasks[0].source: {root}/data/cat: cannot be read: Permission denied"
        )
        assert picture.endswith("cannot be read as an image: Permission denied")


def test_names_that_are_not_utf8_are_told(tmp_path):
    for folder, file, what in (
        (b"caf\xe9", b"0.png", "the name is not UTF-8"),
        (b"cafe", b"\xff.png", "name is not UTF-8"),
    ):
        root = tmp_path / f"{file[0]}"
        inside = os.path.join(os.fsencode(root), folder)
        os.makedirs(inside)
        for name in (file, b"1.png", b"2.png"):
            with open(os.path.join(inside, name), "wb") as out:
                out.write(seeds()["png"])
        (tmp_path / "s.yaml").write_text(
            f"name: s\nshots: 1\ntasks: [{{name: a, source: {{kind: folder, root: '{root}'}}}}]"
        )
        (line,) = told(lambda: plan(load_scenario(str(tmp_path / "s.yaml")), 0))
        assert what in line and "\\x" in line and "(in a file manager, or with convmv)" in line
        if folder != b"cafe":
            os.mkdir(os.path.join(os.fsencode(root), b"th\xe9"))
            lines = told(lambda: plan(load_scenario(str(tmp_path / "s.yaml")), 0))
            assert [name in one for name, one in zip(("caf\\xe9", "th\\xe9"), lines, strict=True)] == [
                True
            ] * 2
    assert "not UTF-8" in told(pictures, [Path(os.fsdecode(inside)) / os.fsdecode(b"\xff.png")])[0]


def test_links_may_not_lead_out_of_the_root(tmp_path):
    outside, root = tmp_path / "outside", tmp_path / "root"
    for folder in (outside, root / "real"):
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(seeds()["png"])
    (root / "link").symlink_to(outside)
    (root / "out.png").symlink_to(outside / "a.png")
    (root / "in.png").symlink_to(root / "real" / "a.png")
    (root / "within").symlink_to("real")
    (tmp_path / "other-name").symlink_to(root)
    for path, leads_out in (
        ("link/a.png", True),
        ("out.png", True),
        ("in.png", False),
        ("within/a.png", False),
    ):
        (root / "m.jsonl").write_bytes(line_of(path=path, label="x"))
        coop = {"train": [[path, 0, "x"]], "val": [], "test": []}
        (root / "coop.json").write_text(json.dumps(coop))
        for config in (
            ManifestSource(kind="manifest", file="m.jsonl", root=str(tmp_path / "other-name")),
            CoopSource(kind="coop", file="coop.json", root="."),
        ):
            source = open_source(config, root)
            if leads_out:
                (line,) = told(source.items, "train")
                assert f"{path}: leads out of the root " in line and f"to {outside}/a.png" in line
            else:
                assert source.load(source.items("train"), PIXELS).shape == (1, 3, 32, 32)
