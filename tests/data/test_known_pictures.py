"""What a picture is known by: its file, however its folder is spelled and whichever source lists it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import PIL
import pytest
import torch

from builders.data_sets import make_mnist
from builders.images import paint
from builders.sources import shard
from cl_complora.config import load_scenario
from cl_complora.config.sources import FolderSource, ManifestSource, ShardsSource
from cl_complora.data.checks.notes import notes
from cl_complora.data.images import cache
from cl_complora.data.images.pixels import Pixels
from cl_complora.data.kinds import open_source
from cl_complora.data.planning import plan
from cl_complora.data.registry import open_dataset

PIXELS = Pixels((16, 16))


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """A cache of its own."""
    monkeypatch.setenv("CL_COMPLORA_CACHE", str(tmp_path / "cache"))


def pictures(root, shade=0, each=8):
    """Two classes of pictures of one size in bytes, all written at the same time."""
    for label, name in enumerate(("cat", "dog")):
        for number in range(each):
            path = root / name / f"{number}.bmp"
            paint(path, (shade, 90 * label, 20), 10 * label + number)
            os.utime(path, (0, 0))


def test_two_projects_with_the_same_relative_root_share_no_pixels(tmp_path, monkeypatch):
    means = []
    for project, shade in (("one", 30), ("two", 200)):
        pictures(tmp_path / project / "pics", shade)
        monkeypatch.chdir(tmp_path / project)
        source = open_source(FolderSource(kind="folder", root="pics"), Path("."))
        means.append(cache.load_cached(source, source.items("test"), PIXELS)[:, 0].float().mean())
    assert means[1] - means[0] > 100


def test_one_folder_is_decoded_once_however_it_is_spelled(tmp_path, monkeypatch):
    pictures(tmp_path / "pics")
    (tmp_path / "link").symlink_to("pics")
    monkeypatch.chdir(tmp_path)
    for root in ("pics", str(tmp_path / "pics"), "./pics", "link"):
        source = open_source(FolderSource(kind="folder", root=root), tmp_path)
        cache.load_cached(source, source.items("test"), PIXELS)
    assert cache.usage()[0] == 1


def test_a_project_may_lie_in_a_folder_whose_name_is_no_text(tmp_path, monkeypatch):
    folder = tmp_path / os.fsdecode(b"b\xff")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes names of text alone")
    pictures(folder / "pics")
    monkeypatch.chdir(folder)
    source = open_source(FolderSource(kind="folder", root="pics"), Path("."))
    cache.load_cached(source, source.items("test"), PIXELS)
    assert cache.usage()[0] == 1


@pytest.mark.parametrize("file", ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_block_of_pictures_that_was_replaced_is_read_anew(tmp_path, file):
    make_mnist(tmp_path)
    source = open_dataset("mnist", tmp_path)
    before = cache.load_cached(source, source.items("test"), PIXELS)
    path = tmp_path / "MNIST/raw" / file
    head, body = path.read_bytes()[:16], path.read_bytes()[16:]
    if "images" in file:
        path.write_bytes(head + bytes(255 - value for value in body))
    os.utime(path, ns=(1, 1))
    again = open_dataset("mnist", tmp_path)
    after = cache.load_cached(again, again.items("test"), PIXELS)
    assert torch.equal(after, again.load(again.items("test"), PIXELS))
    assert torch.equal(before, after) == ("labels" in file) and cache.usage()[0] == 2


def test_blocks_of_two_data_sets_in_one_folder_are_not_the_same_pictures(tmp_path):
    make_mnist(tmp_path)
    source = open_dataset("mnist", tmp_path)
    assert source.origin == f"Registered mnist {os.path.realpath(tmp_path)}"
    assert len(set(source.identities([*source.items("train"), *source.items("test")]))) == 40


def test_another_pillow_decodes_anew(tmp_path, monkeypatch):
    pictures(tmp_path / "pics")
    source = open_source(FolderSource(kind="folder", root="pics"), tmp_path)
    items = source.items("test")
    cache.load_cached(source, items, PIXELS)
    monkeypatch.setattr(PIL, "__version__", "0.0")
    cache.load_cached(source, items, PIXELS)
    assert cache.usage()[0] == 2


SHARDS = """name: s
shots: 2
tasks:
  - {name: a, source: {kind: shards, train: a/train-*.tar, test: a/test-*.tar}}
  - {name: b, source: {kind: shards, train: b/train-*.tar, test: b/test-*.tar}}
"""


def test_shards_of_two_folders_are_two_sets_though_their_files_have_the_same_names(tmp_path):
    for place, names in enumerate((("cat", "dog"), ("car", "bus"))):
        folder = tmp_path / "ab"[place]
        folder.mkdir()
        for split in ("train", "test"):
            entries = []
            for number in range(8):
                seed = 100 * place + 10 * number + len(split)
                paint(tmp_path / "p.png", (90, 90, 90), seed)
                entries += [(f"{number}.png", (tmp_path / "p.png").read_bytes(), {})]
                entries += [(f"{number}.cls", names[number % 2].encode(), {})]
            shard(folder / f"{split}-0.tar", *entries)
    (tmp_path / "s.yaml").write_text(SHARDS)
    located = load_scenario(str(tmp_path / "s.yaml"))
    assert notes(located, plan(located, 0)) == []
    shutil.copy(tmp_path / "a/train-0.tar", tmp_path / "b")
    shutil.copy(tmp_path / "a/test-0.tar", tmp_path / "b")
    located = load_scenario(str(tmp_path / "s.yaml"), ["shots=all"])
    copied = "are copies of {0} pictures of 'a': {1}-0.tar/0.png is {1}-0.tar/0.png there"
    assert notes(located, plan(located, 0)) == [
        "'b': all training pictures " + copied.format("training", "train"),
        "'b': all test pictures " + copied.format("test", "test"),
    ]


def test_a_member_of_a_shard_is_the_same_in_every_source_that_lists_it(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paint(tmp_path / "p.png", (90, 90, 90), ord(folder))
        shard(
            tmp_path / folder / "t.tar",
            ("0.png", (tmp_path / "p.png").read_bytes(), {}),
            ("0.cls", b"cat", {}),
        )
    one = open_source(ShardsSource(kind="shards", train="a/t.tar", test="b/t.tar"), tmp_path)
    other = open_source(ShardsSource(kind="shards", train="b/t.tar", test="b/t.tar"), tmp_path)
    assert one.items("test")[0].key != other.items("test")[0].key
    assert one.identities(one.items("test")) == other.identities(other.items("test"))


REFERENCE = """name: m
shots: 2
tasks:
  - name: a
    source: {{kind: folder, root: pics}}
reference:
  source: {source}
"""


@pytest.mark.parametrize("root", ["pics", "./pics/../pics", "ABSOLUTE", "link", "linked"])
def test_no_test_picture_is_in_the_reference_set_however_its_folder_is_spelled(tmp_path, monkeypatch, root):
    pictures(tmp_path / "pics")
    (tmp_path / "link").symlink_to("pics")
    for name in ("cat", "dog"):
        for path in (tmp_path / "pics" / name).iterdir():
            link = tmp_path / "linked" / name / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    monkeypatch.chdir(tmp_path)
    named = str(tmp_path / "pics") if root == "ABSOLUTE" else root
    source = json.dumps({"kind": "folder", "root": named, "test_fraction": 0.25})
    (tmp_path / "s.yaml").write_text(REFERENCE.format(source=source))
    plans = plan(load_scenario("s.yaml"), 0)
    tested = {item.key for item in plans.tasks[0].test}
    assert len(tested) == 8 and not tested & {item.key for item in plans.reference.test}


@pytest.mark.parametrize("broken", ["refuse", "skip"])
def test_no_test_picture_is_in_a_reference_set_that_a_table_lists(tmp_path, broken):
    pictures(tmp_path / "pics")
    rows = [f"pics/{name}/{number}.bmp,{name}\n" for name in ("cat", "dog") for number in range(8)]
    (tmp_path / "all.csv").write_text("path,label\n" + "".join(rows))
    text = REFERENCE.format(source="{kind: manifest, file: all.csv}")
    (tmp_path / "s.yaml").write_text(text + f"broken: {broken}\n")
    plans = plan(load_scenario(str(tmp_path / "s.yaml")), 0)
    tested = {f"pics/{item.key}" for item in plans.tasks[0].test}
    listed = open_source(ManifestSource(kind="manifest", file="all.csv"), tmp_path)
    assert tested <= {item.key for split in ("train", "test") for item in listed.items(split)}
    assert len(plans.reference.test) == 8 and not tested & {item.key for item in plans.reference.test}
