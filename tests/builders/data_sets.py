"""A tiny fake of every data set of the registry, in its real layout. Every picture is painted in a colour
that tells its class, so that a wrong label shows."""

from __future__ import annotations

import csv
import functools
import io
import json
import pickle
import struct
from pathlib import Path

import numpy as np
import torch
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from PIL import Image
from scipy.io import savemat
from timm.data import ImageNetInfo

from cl_complora.data.images.pixels import Pixels
from cl_complora.data.registry.word_lists import COUNTRY211, FLOWERS102, GTSRB

PIXELS = Pixels(size=(8, 8))
SYNSETS = ImageNetInfo("imagenet-1k").label_names()
WORDS = [{744: "projectile", 836: "sunglass"}.get(i, name) for i, name in enumerate(IMAGENET_CLASSNAMES)]


def colour(label: int) -> tuple[int, int, int]:
    """Its decimal digits, far enough apart to survive JPEG."""
    return label % 10 * 25, label // 10 % 10 * 25, label // 100 * 25


def told(image: torch.Tensor) -> int:
    """The label that a picture's colour tells."""
    ones, tens, hundreds = (image.float().mean((1, 2)) / 25).round().int().tolist()
    return ones + 10 * tens + 100 * hundreds


@functools.cache
def encoded(label: int, suffix: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (12, 10), colour(label)).save(file, {"jpg": "JPEG", "png": "PNG", "ppm": "PPM"}[suffix])
    return file.getvalue()


def paint(path: Path, label: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(label, path.suffix.lower().replace("jpeg", "jpg").lstrip(".")))


def write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def numbered(word: str, classes: int) -> list[str]:
    return [f"{word}_{label:03d}" for label in range(classes)]


def spaced(names: list[str]) -> list[str]:
    return [name.replace("_", " ") for name in names]


def class_folders(folder: Path, names: list[str], count: int, file: str = "image_{:04d}.jpg") -> None:
    for label, name in enumerate(names):
        for number in range(1, count + 1):
            paint(folder / name / file.format(number), label)


# Every maker builds one fake and returns its class names and its numbers of training and test pictures a
# class.
def make_aircraft(root: Path):
    names = [f"Plane {label:02d}/B" for label in range(100)]
    data = root / "fgvc-aircraft-2013b" / "data"
    write(data / "variants.txt", names)
    for split, ids in {"trainval": (1, 2), "test": (3,)}.items():
        listed = [(f"{label:04d}{i:03d}", label) for label in range(100) for i in ids]
        write(data / f"images_variant_{split}.txt", [f"{image} {names[label]}" for image, label in listed])
        for image, label in listed:
            paint(data / "images" / f"{image}.jpg", label)
    return names, 2, 1


def make_caltech101(root: Path):
    words = {"Faces": "off-center face", "Faces_easy": "centered face", "Leopards": "leopard"}
    words |= {"Motorbikes": "motorbike", "car_side": "side of a car", "yin_yang": "yin and yang symbol"}
    names = sorted([*words, *numbered("thing", 95)])
    folder = root / "caltech101" / "101_ObjectCategories"
    class_folders(folder, names, 4)
    paint(folder / "BACKGROUND_Google" / "image_0001.jpg", 999)
    return [words.get(name, name.replace("_", " ")) for name in names], 2, 2


def make_cifar(root: Path, folder: str, files: dict[str, int], key: str, meta: dict[str, list[str]]):
    names = next(iter(meta.values()))
    for file, count in {**files, "meta" if key == "fine_labels" else "batches.meta": 0}.items():
        labels = list(range(len(names))) * count
        flat = np.array([np.repeat(colour(label), 1024) for label in labels], np.uint8)
        (root / folder).mkdir(exist_ok=True)
        (root / folder / file).write_bytes(pickle.dumps({"data": flat, key: labels} if count else meta))
    return spaced(names), sum(files.values()) - 1, 1


def make_cifar10(root: Path):
    files = {f"data_batch_{i}": 1 for i in range(1, 6)} | {"test_batch": 1}
    return make_cifar(root, "cifar-10-batches-py", files, "labels", {"label_names": numbered("kind", 10)})


def make_cifar100(root: Path):
    meta = {"fine_label_names": numbered("maple_tree", 100)}
    return make_cifar(root, "cifar-100-python", {"train": 2, "test": 1}, "fine_labels", meta)


def make_dtd(root: Path):
    names = [*numbered("woven", 46), "polka-dotted"]
    names.sort()
    for split in ("train", "val", "test"):
        files = [f"{name}/{name}_{split}.jpg" for name in names]
        write(root / "dtd" / "dtd" / "labels" / f"{split}1.txt", files)
        for label, file in enumerate(files):
            paint(root / "dtd" / "dtd" / "images" / file, label)
    return spaced(names), 2, 1


def make_eurosat(root: Path):
    own = (
        "AnnualCrop Forest HerbaceousVegetation Highway Industrial Pasture PermanentCrop Residential River"
        " SeaLake"
    )
    class_folders(root / "eurosat" / "2750", own.split(), 4)
    words = "annual crop land,forest,brushland or shrubland,highway or road"
    words += ",industrial buildings or commercial buildings,pasture land,permanent crop land"
    return [*words.split(","), "residential buildings or homes or apartments", "river", "lake or sea"], 2, 2


def make_flowers102(root: Path):
    folder = root / "flowers-102"
    labels = [label for label in range(102) for _ in range(3)]
    for number, label in enumerate(labels, 1):
        paint(folder / "jpg" / f"image_{number:05d}.jpg", label)
    savemat(folder / "imagelabels.mat", {"labels": np.array([labels], np.uint8) + 1})
    ids = {key: np.arange(first, 307, 3)[None] for first, key in enumerate(("trnid", "valid", "tstid"), 1)}
    savemat(folder / "setid.mat", ids)
    return list(FLOWERS102), 2, 1


def make_food101(root: Path):
    names = numbered("apple_pie", 101)
    for split, numbers in {"train": (1, 2), "test": (3,)}.items():
        listed = {name: [f"{name}/{number}" for number in numbers] for name in reversed(names)}
        write(root / "food-101" / "meta" / f"{split}.json", [json.dumps(listed)])
        for name, images in listed.items():
            for image in images:
                paint(root / "food-101" / "images" / f"{image}.jpg", names.index(name))
    return spaced(names), 2, 1


def make_mnist(root: Path):
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, count in {"train": 3, "t10k": 1}.items():
        labels = bytes(range(10)) * count
        images = b"".join(bytes([25 * label] * 784) for label in labels)
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, len(labels)) + labels)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 2051, len(labels), 28, 28) + images
        )
    return list("0123456789"), 3, 1


def make_oxford_pet(root: Path):
    names = numbered("great_pyrenees", 37)
    for split, numbers in {"trainval": (1, 2), "test": (3,)}.items():
        listed = [(f"{name}_{number}", label) for label, name in enumerate(names) for number in numbers]
        lines = [f"{image} {label + 1} 1 1" for image, label in listed]
        write(root / "oxford-iiit-pet" / "annotations" / f"{split}.txt", lines)
        for image, label in listed:
            paint(root / "oxford-iiit-pet" / "images" / f"{image}.jpg", label)
    return [name.title() for name in spaced(names)], 2, 1


def make_stanford_cars(root: Path):
    names = [f"Maker Model {label} 2012" for label in range(196)]
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(names, object)[None]})
    mats = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    for split, mat in mats.items():
        rows = [(label + 1, f"{label:05d}.jpg") for label in range(196)]
        notes = np.array(rows, [("class", np.uint8), ("fname", object)])
        savemat(folder / mat, {"annotations": notes[None]})
        for label in range(196):
            paint(folder / f"cars_{split}" / f"{label:05d}.jpg", label)
    return names, 1, 1


def make_sun397(root: Path):
    names = sorted(["abbey", "apartment_building/outdoor", *numbered("basement", 395)])
    write(root / "SUN397" / "ClassName.txt", [f"/{name[0]}/{name}" for name in names])
    for label, name in enumerate(names):
        for number in range(2):
            paint(root / "SUN397" / name[0] / name / f"sun_{number}{label}.jpg", label)
    return [name.replace("_", " ").replace("/", " ") for name in names], 1, 1


def make_ucf101(root: Path):
    names = numbered("Apply_Eye_Makeup", 101)
    for label, name in enumerate(names):
        for group in (1, 7, 8, 25):
            file = f"v_{name.replace('_', '')}_g{group:02d}_c01.jpg"
            paint(root / "UCF-101-midframes" / name / file, label)
    return spaced(names), 2, 2


def make_gtsrb(root: Path):
    folder = root / "gtsrb" / "GTSRB"
    class_folders(folder / "Training", [f"{label:05d}" for label in range(43)], 2, "00000_{:05d}.ppm")
    with (root / "gtsrb" / "GT-final_test.csv").open("w", newline="") as file:
        rows = csv.writer(file, delimiter=";")
        rows.writerow("Filename Width Height Roi.X1 Roi.Y1 Roi.X2 Roi.Y2 ClassId".split())
        for number, label in enumerate(reversed(range(43))):
            rows.writerow([f"{number:05d}.ppm", 12, 10, 1, 1, 9, 9, label])
            paint(folder / "Final_Test" / "Images" / f"{number:05d}.ppm", label)
    return list(GTSRB), 2, 1


def make_country211(root: Path):
    for split in ("train", "valid", "test"):
        class_folders(root / "country211" / split, sorted(COUNTRY211), 1)
    return [COUNTRY211[code] for code in sorted(COUNTRY211)], 2, 1


def make_rendered_sst2(root: Path):
    for split in ("train", "valid", "test"):
        class_folders(root / "rendered-sst2" / split, ["negative", "positive"], 2, "{}.png")
    return ["negative", "positive"], 4, 2


def make_pacs(root: Path, domain: str):
    names = ["dog", "elephant", "giraffe", "guitar", "horse", "house", "person"]
    class_folders(root / "PACS" / domain, names, 4, "pic_{:03d}.png")
    return names, 2, 2


def make_imagenet(root: Path):
    class_folders(root / "imagenet" / "val", SYNSETS, 1, "ILSVRC2012_val_{:08d}.JPEG")
    class_folders(root / "imagenet" / "train", SYNSETS, 1, "n_{}.JPEG")
    return WORDS, 1, 1


def make_imagenet_v2(root: Path):
    class_folders(
        root / "imagenetv2-matched-frequency-format-val", [str(i) for i in range(1000)], 1, "{}.jpeg"
    )
    return WORDS, 0, 1


def make_imagenet_subset(root: Path, folder: str, first: int):
    class_folders(root / folder, SYNSETS[first::5], 5)
    return WORDS[first::5], 4, 1


def make_imagenet_sketch(root: Path):
    class_folders(root / "sketch", SYNSETS, 1, "sketch_{}.JPEG")
    return WORDS, 0, 1


MAKERS = {
    "aircraft": make_aircraft,
    "caltech101": make_caltech101,
    "cifar10": make_cifar10,
    "cifar100": make_cifar100,
    "country211": make_country211,
    "dtd": make_dtd,
    "eurosat": make_eurosat,
    "flowers102": make_flowers102,
    "food101": make_food101,
    "gtsrb": make_gtsrb,
    "imagenet": make_imagenet,
    "imagenet-a": functools.partial(make_imagenet_subset, folder="imagenet-a", first=1),
    "imagenet-r": functools.partial(make_imagenet_subset, folder="imagenet-r", first=4),
    "imagenet-sketch": make_imagenet_sketch,
    "imagenet-v2": make_imagenet_v2,
    "mnist": make_mnist,
    "oxford_pet": make_oxford_pet,
    "pacs-art_painting": functools.partial(make_pacs, domain="art_painting"),
    "pacs-cartoon": functools.partial(make_pacs, domain="cartoon"),
    "pacs-photo": functools.partial(make_pacs, domain="photo"),
    "pacs-sketch": functools.partial(make_pacs, domain="sketch"),
    "rendered_sst2": make_rendered_sst2,
    "stanford_cars": make_stanford_cars,
    "sun397": make_sun397,
    "ucf101": make_ucf101,
}
