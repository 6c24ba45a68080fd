"""Every data set of the registry, faked by builders.data_sets, read through torchvision's real code."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from builders.data_sets import (
    MAKERS,
    PIXELS,
    SYNSETS,
    class_folders,
    make_aircraft,
    make_cifar10,
    make_dtd,
    make_eurosat,
    make_food101,
    make_gtsrb,
    make_mnist,
    make_oxford_pet,
    make_pacs,
    make_stanford_cars,
    make_sun397,
    make_ucf101,
    paint,
    told,
)
from cl_complora.data.registry import DATASETS, check, open_dataset
from cl_complora.data.registry.word_lists import COUNTRY211
from cl_complora.errors import UserError


@pytest.fixture
def unhashed(monkeypatch):
    """torchvision compares these files with the md5 of the real ones."""
    for module in ("cifar", "flowers102"):
        monkeypatch.setattr(
            f"torchvision.datasets.{module}.check_integrity", lambda path, md5=None: Path(path).is_file()
        )


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_a_fake_is_read_as_it_was_painted(name, tmp_path, unhashed, monkeypatch):
    names, train, test = MAKERS[name](tmp_path)
    source = open_dataset(name, tmp_path)
    assert source.class_names == names
    assert source.prompts == list(DATASETS[name].templates)
    splits = {"train": source.items("train"), "test": source.items("test")}
    for split, count in {"train": train, "test": test}.items():
        items = splits[split]
        assert np.bincount([item.label for item in items], minlength=len(names)).tolist() == [count] * len(
            names
        )
        assert all(type(item.label) is int and (item.size is None or item.size > 0) for item in items)
        some = items[:: max(1, len(items) // 50)]
        if some:
            loaded = source.load(some, PIXELS)
            assert loaded.dtype == torch.uint8 and loaded.shape == (len(some), 3, 8, 8)
            shown = [told(image) for image in loaded]
            assert shown == [item.label * (111 if name == "mnist" else 1) for item in some]
    keys = [item.key for items in splits.values() for item in items]
    assert len(set(keys)) == len(keys) == (train + test) * len(names)
    assert source.items("validation") == []
    if len(names) < 1000:  # opening those with a thousand classes again says the same, and takes seconds
        again = open_dataset(name, tmp_path)
        assert {split: again.items(split) for split in splits} == splits
    if splits["train"] and len(names) < 1000:
        # A source that was never asked for its items loads those of another one.
        assert torch.equal(
            open_dataset(name, tmp_path).load(splits["train"][-1:], PIXELS),
            source.load(splits["train"][-1:], PIXELS),
        )

    problems = check(name, tmp_path)
    assert problems and all("instead of" in problem and "\n" not in problem for problem in problems)
    small = dataclasses.replace(DATASETS[name], train=train * len(names), test=test * len(names))
    monkeypatch.setitem(DATASETS, name, small)
    assert check(name, tmp_path) == []


def test_every_data_set_has_a_fake():
    assert sorted(MAKERS) == sorted(DATASETS)


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_missing_data_are_told_in_one_line(name, tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError) as caught:
            open_dataset(name, root)
        (line,) = caught.value.messages
        assert "\n" not in line and line.startswith(f"{name}: ")
        assert DATASETS[name].layout in line and DATASETS[name].get in line and str(root) in line
        assert check(name, root) == [line]
    assert list(tmp_path.iterdir()) == []  # torchvision's Caltech101 makes its folder when it finds none


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_entry_is_complete(name):
    entry = DATASETS[name]
    assert entry.name == name and entry.title and entry.layout and entry.get
    assert entry.templates and all(template.count("{}") == 1 for template in entry.templates)
    assert len(set(entry.templates)) == len(entry.templates)
    assert entry.test > 0 and entry.train >= 0
    assert "\n" not in entry.layout + entry.get


def test_names_of_our_own_are_as_many_as_classes():
    for name in ("flowers102", "gtsrb", "mnist"):
        words = DATASETS[name].words([])
        assert len(words) == len(set(words)) == DATASETS[name].classes
    assert len(COUNTRY211) == len(set(COUNTRY211.values())) == DATASETS["country211"].classes
    assert list(COUNTRY211) == sorted(COUNTRY211)
    words = DATASETS["imagenet"].words(SYNSETS)
    assert len(set(words)) == 1000 and (words[744], words[836]) == ("projectile", "sunglass")


def test_published_numbers_of_templates():
    wanted = {
        "aircraft": 2,
        "caltech101": 34,
        "cifar10": 18,
        "country211": 5,
        "dtd": 8,
        "eurosat": 3,
        "gtsrb": 3,
    }
    wanted |= {"stanford_cars": 8, "sun397": 2, "ucf101": 48, "flowers102": 1, "imagenet": 7}
    assert {name: len(DATASETS[name].templates) for name in wanted} == wanted


def refused(name: str, root: Path) -> str:
    with pytest.raises(UserError) as caught:
        source = open_dataset(name, root)
        source.items("train")
        source.items("test")
    (line,) = caught.value.messages
    assert "\n" not in line and DATASETS[name].layout in line
    assert check(name, root) == [line]
    return line


def test_unknown_name(tmp_path):
    for asked in (open_dataset, check):
        with pytest.raises(UserError, match="'imagenet21k': not one of aircraft, caltech101"):
            asked("imagenet21k", tmp_path)


def test_a_listed_file_that_is_missing(tmp_path):
    make_aircraft(tmp_path)
    (tmp_path / "fgvc-aircraft-2013b/data/images/0042003.jpg").unlink()
    assert "0042003.jpg is listed but missing" in refused("aircraft", tmp_path)


def test_a_class_that_is_missing(tmp_path):
    make_gtsrb(tmp_path)
    for file in (tmp_path / "gtsrb/GTSRB/Training/00007").iterdir():
        file.unlink()
    (
        tmp_path / "gtsrb/GTSRB/Training/00007"
    ).rmdir()  # torchvision would call every later sign by the one before
    assert "no train images of 1 of 43 classes" in refused("gtsrb", tmp_path)
    class_folders(tmp_path / "eurosat" / "2750", ["Forest", "River"], 2)
    assert "2 classes instead of 10" in refused("eurosat", tmp_path)


def test_files_that_torchvision_refuses(tmp_path):
    make_cifar10(tmp_path)
    assert "Dataset not found or corrupted; expected" in refused(
        "cifar10", tmp_path
    )  # the md5 is not the real one


@pytest.mark.parametrize(
    ("maker", "name", "file"),
    [
        (make_stanford_cars, "stanford_cars", "stanford_cars/cars_test_annos_withlabels.mat"),
        (make_food101, "food101", "food-101/meta/test.json"),
        (make_mnist, "mnist", "MNIST/raw/t10k-images-idx3-ubyte"),
        (make_sun397, "sun397", "SUN397/ClassName.txt"),
        (make_oxford_pet, "oxford_pet", "oxford-iiit-pet/annotations/test.txt"),
        (make_dtd, "dtd", "dtd/dtd/labels/val1.txt"),
    ],
)
def test_broken_lists(maker, name, file, tmp_path):
    maker(tmp_path)
    (tmp_path / file).write_text("garbage\n" * 3)
    assert " images cannot be read (" in refused(name, tmp_path)


def test_a_picture_that_cannot_be_decoded(tmp_path):
    make_eurosat(tmp_path)
    (tmp_path / "eurosat/2750/River/image_0001.jpg").write_text("not a picture")
    source = open_dataset("eurosat", tmp_path)
    with pytest.raises(UserError, match="River/image_0001.jpg: cannot be read as an image"):
        source.load(source.items("train") + source.items("test"), PIXELS)


def test_hidden_copies_are_left_out(tmp_path):
    make_pacs(tmp_path, "photo")
    before = open_dataset("pacs-photo", tmp_path).items("train")
    paint(tmp_path / "PACS/photo/.ipynb_checkpoints/pic_001.png", 0)
    paint(tmp_path / "PACS/photo/dog/.ipynb_checkpoints/pic_001.png", 0)
    paint(tmp_path / "PACS/photo/dog/._pic_001.png", 0)
    assert open_dataset("pacs-photo", tmp_path).items("train") == before


def test_imagenet_without_training_pictures_and_as_its_own_root(tmp_path, monkeypatch):
    class_folders(tmp_path / "val", SYNSETS, 1, "{}.JPEG")
    source = open_dataset("imagenet", tmp_path)
    assert source.items("train") == [] and len(source.items("test")) == 1000
    monkeypatch.setitem(DATASETS, "imagenet", dataclasses.replace(DATASETS["imagenet"], test=1000))
    assert check("imagenet", tmp_path) == []


def test_imagenet_with_folders_of_other_synsets(tmp_path):
    class_folders(tmp_path / "imagenet-a", [*SYNSETS[:199], "n99999999"], 5)
    assert "the folder n99999999 is none of ImageNet's 1000 synsets" in refused("imagenet-a", tmp_path)


def test_ucf101_keeps_the_clips_of_a_video_together(tmp_path):
    make_ucf101(tmp_path)
    source = open_dataset("ucf101", tmp_path)
    assert {item.key.split("_g")[1][:2] for item in source.items("test")} == {"01", "07"}
    assert {item.key.split("_g")[1][:2] for item in source.items("train")} == {"08", "25"}
    paint(tmp_path / "UCF-101-midframes/Apply_Eye_Makeup_000/frame.jpg", 0)
    assert "frame.jpg is not named v_<Class>_g<group>_c<clip>" in refused("ucf101", tmp_path)


def test_importing_the_registry_imports_no_torch():
    code = "import sys, cl_complora.data.registry; print({'torch', 'torchvision', 'timm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_data_set_is_listed_once_however_many_tasks_draw_from_it(tmp_path, monkeypatch):
    make_eurosat(tmp_path)
    source = open_dataset("eurosat", tmp_path)
    first = {split: source.items(split) for split in ("train", "test")}
    asked, real = [], Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **how: asked.append(path) or real(path, **how))
    again = {split: source.items(split) for split in first}
    assert asked == [] and again == first


def test_shipped_divisions_are_those_of_every_version(tmp_path):
    make_eurosat(tmp_path)
    source = open_dataset("eurosat", tmp_path)
    digests = {
        split: hashlib.sha256("".join(item.key for item in source.items(split)).encode()).hexdigest()[:12]
        for split in ("train", "test")
    }
    assert digests == {"train": "5ed1c79c9d7b", "test": "fc222f1a0886"}
