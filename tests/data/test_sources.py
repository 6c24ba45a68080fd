"""Manifests, CoOp's split files, tar shards, and the draws of shots that others published."""

from __future__ import annotations

import io
import json
import tarfile

import pytest
import torch
from typer.testing import CliRunner

from builders.images import COLOURS, paint
from cl_complora.cli import app
from cl_complora.config import load_scenario
from cl_complora.config.catalog import shipped
from cl_complora.config.sources import CoopSource, DatasetSource, ManifestSource, ShardsSource
from cl_complora.data.checks.verify import verify
from cl_complora.data.images.pixels import Pixels
from cl_complora.data.kinds import open_source
from cl_complora.data.planning import plan, write_manifest
from cl_complora.data.registry import DATASETS
from cl_complora.data.registry.published import beside
from cl_complora.data.tasks import load
from cl_complora.errors import UserError

PIXELS = Pixels((16, 16))
NAMES = list(COLOURS)


@pytest.fixture
def images(tmp_path):
    """images/<colour>/N.png, ten of each."""
    for label, (name, colour) in enumerate(COLOURS.items()):
        for number in range(10):
            paint(tmp_path / "images" / name / f"{number}.png", colour, 10 * label + number, 20)
    return tmp_path


def rows(split_of):
    return [(f"{name}/{number}.png", name, split_of(number)) for name in NAMES for number in range(10)]


def halves(number: int) -> str:
    return "train" if number < 6 else "val" if number < 8 else "test"


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_manifests(images, kind):
    file = images / f"list.{kind}"
    if kind == "jsonl":
        lines = [json.dumps({"path": p, "label": c, "split": s}) for p, c, s in rows(halves)]
    else:
        lines = ["path,label,split", *(f"{p},{c},{s}" for p, c, s in rows(halves))]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    source = open_source(ManifestSource(kind="manifest", file=file.name, root="images"), images)
    assert source.class_names == sorted(NAMES)
    assert [len(source.items(split)) for split in ("train", "validation", "test")] == [24, 8, 8]
    red = [item for item in source.items("test") if source.class_names[item.label] == "red"]
    assert [item.key for item in red] == ["red/8.png", "red/9.png"]
    assert abs(source.load(red, PIXELS).float().mean((0, 2, 3))[0] - 200) < 12
    ordered = open_source(
        ManifestSource(kind="manifest", file=file.name, root="images", classes=NAMES), images
    )
    assert ordered.class_names == NAMES


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        (
            "a.csv",
            "path,split\nx,train\n",
            "a.csv:1: the columns must be path, label and split, label missing",
        ),
        ("a.csv", "path,label\n,red\n", "a.csv:2: path or label is empty"),
        (
            "a.csv",
            "path,label,split\nred/1.png,red,odd\n",
            "a.csv:2: split must be train, validation or test, got 'odd'",
        ),
        (
            "a.csv",
            "path,label\n../secret.png,red\n",
            "a.csv:2: path must lie below the root, got '../secret.png'",
        ),
        ("a.csv", "path,label\n/etc/passwd,red\n", "path must lie below the root"),
        (
            "a.csv",
            "path,label\nred/1.png,red\nred/1.png,red\n",
            "a.csv:3: 'red/1.png' is named a second time",
        ),
        ("a.csv", "path,label\n", "names no image"),
        ("a.jsonl", '{"path": "x"}\n', "a.jsonl:1: must be a JSON object with path, label and split"),
        ("a.jsonl", "\n[1]\n", "a.jsonl:2: must be a JSON object"),
        ("b.csv", None, "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_told_with_its_line(tmp_path, name, text, told):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as refused:
        open_source(ManifestSource(kind="manifest", file=name), tmp_path)
    assert told in refused.value.messages[0]


def test_a_label_that_is_no_class_and_a_file_that_is_gone(images):
    (images / "a.csv").write_text("path,label\nred/1.png,red\nred/99.png,pink\n")
    with pytest.raises(UserError, match="a.csv:3: label 'pink' is none of the source's classes"):
        open_source(ManifestSource(kind="manifest", file="a.csv", classes=["red"]), images)
    source = open_source(ManifestSource(kind="manifest", file="a.csv", root="images"), images)
    with pytest.raises(UserError, match="99.png: No such file"):
        source.items("train")


@pytest.fixture
def split_file(images):
    """As CoOp writes it; the classes do not first appear in label order."""
    content = {"train": [], "val": [], "test": []}
    for name in ("blue", "red", "yellow", "green"):
        for number in range(10):
            content[halves(number)].append(
                [f"{name}/{number}.png", NAMES.index(name), name.replace("ee", "e_e")]
            )
    (images / "split_zhou_Colours.json").write_text(json.dumps(content))
    return images / "split_zhou_Colours.json", content


def test_coop_split_files(images, split_file):
    source = open_source(CoopSource(kind="coop", file=split_file[0].name, root="images"), images)
    assert source.class_names == ["red", "gre en", "blue", "yellow"]
    assert [len(source.items(split)) for split in ("train", "validation", "test")] == [24, 8, 8]
    for text in (
        "[]",
        '{"train": [["a", 0]]}',
        '{"train": [["a", 1, "x"]]}',
        '{"train": [["../a", 0, "x"]]}',
        "{",
    ):
        split_file[0].write_text(text)
        with pytest.raises(UserError, match="split_zhou_Colours.json"):
            open_source(CoopSource(kind="coop", file=split_file[0].name, root="images"), images)


def test_a_published_list_instead_of_a_draw(images, class_folders, tmp_path):
    text = (
        "name: s\ntasks:\n  - name: a\n    source: {{kind: folder, root: {}}}\n    split_file: list.jsonl\n"
    )
    (tmp_path / "s.yaml").write_text(text.format(class_folders))
    wanted = ["train/red/1.png", "train/blue/0.png", "train/red/0.png"]
    lines = [
        {"impath": f"/somewhere/else/{wanted[0]}"},
        {"path": wanted[1]},
        {"key": "red/0.png", "split": "val"},
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, [*lines, {"path": "x", "split": "test"}])))
    (task,) = plan(load_scenario(str(tmp_path / "s.yaml")), 0).tasks
    assert [item.key for item in task.train] == wanted[:2] and [
        item.key for item in task.validation
    ] == wanted[2:]
    asked = plan(load_scenario(str(tmp_path / "s.yaml"), ["validation_shots=1"]), 0)
    assert "have 0 at most: as its split_file lists them" in asked.notes[-2]
    assert "tasks[0].split_file: names no training image of 'green', 'yellow'" in asked.notes[-1]
    # What a run writes down is such a list.
    write_manifest(tmp_path / "again.jsonl", task)
    located = load_scenario(str(tmp_path / "s.yaml"), ["tasks.0.split_file=again.jsonl"])
    assert plan(located, 5).tasks[0].sha256() == task.sha256()
    for text, told in (
        ("{}", "must be a JSON object with path"),
        ('{"path": "no.png"}', "is called 'no.png'"),
        ("", "names no"),
    ):
        (tmp_path / "list.jsonl").write_text(text)
        with pytest.raises(UserError, match=told):
            plan(load_scenario(str(tmp_path / "s.yaml")), 0)
    with pytest.raises(UserError, match="has no effect with split_file"):
        load_scenario(str(tmp_path / "s.yaml"), ["tasks.0.shots=3"])


@pytest.mark.parametrize(
    ("shots", "expected"),
    [
        ("[1, 2, 3, 4]", [1, 2, 3, 4]),
        ("{most: 6, least: 1}", [1, 2, 3, 6]),
        ("{most: 4, least: 4}", [4, 4, 4, 4]),
    ],
)
def test_long_tails(class_folders, tmp_path, shots, expected):
    (tmp_path / "s.yaml").write_text(
        f"name: s\ntasks:\n  - name: a\n    source: {{kind: folder, root: {class_folders}}}\n    shots:"
        f" {shots}\n"
    )
    (task,) = plan(load_scenario(str(tmp_path / "s.yaml")), 0).tasks
    counts = [sum(item.label == label for item in task.train) for label in range(4)]
    assert sorted(counts) == expected and (len(set(expected)) == 1 or task.shots == tuple(counts))
    with pytest.raises(UserError, match="names 2 numbers for 4 classes"):
        plan(load_scenario(str(tmp_path / "s.yaml"), ["tasks.0.shots=[1, 2]"]), 0)
    with pytest.raises(UserError, match="least: must be at most most"):
        load_scenario(str(tmp_path / "s.yaml"), ["tasks.0.shots={most: 1, least: 2}"])


@pytest.fixture
def shards(images):
    for split, numbers in (("train", range(6)), ("test", range(6, 10))):
        for half in range(2):
            with tarfile.open(images / f"{split}-{half}.tar", "w") as archive:
                for number in list(numbers)[half::2]:
                    for label, name in enumerate(NAMES):
                        stem = f"../../{name}-{number}"  # no name leads out of anything: nothing is extracted
                        png = (images / "images" / name / f"{number}.png").read_bytes()
                        texts = {
                            "png": png,
                            "cls": str(label).encode(),
                            "json": json.dumps({"label": name}).encode(),
                        }
                        for suffix, content in texts.items():
                            if suffix != ("cls" if split == "train" else "json"):
                                member = tarfile.TarInfo(f"{stem}.{suffix}")
                                member.size = len(content)
                                archive.addfile(member, io.BytesIO(content))
    return images


def test_tar_shards(shards):
    config = ShardsSource(kind="shards", train="train-*.tar", test="test-*.tar", classes=NAMES)
    source = open_source(config, shards)
    assert [len(source.items(split)) for split in ("train", "test", "validation")] == [24, 16, 0]
    for split in ("train", "test"):
        blue = [item for item in source.items(split) if source.class_names[item.label] == "blue"]
        assert abs(source.load(blue, PIXELS).float().mean((0, 2, 3))[2] - 200) < 12
    assert not (shards.parent / "red-0.png").exists()


def test_what_is_wrong_with_shards(shards):
    with pytest.raises(UserError, match="no shard matches"):
        open_source(ShardsSource(kind="shards", train="gone-*.tar", test="test-*.tar"), shards)
    with pytest.raises(UserError, match="is none of the source's 1 class"):
        open_source(
            ShardsSource(kind="shards", train="train-*.tar", test="test-*.tar", classes=["red"]), shards
        )
    (shards / "train-0.tar").write_bytes(b"no archive at all")
    with pytest.raises(UserError, match="train-0.tar: cannot be read as a tar shard"):
        open_source(
            ShardsSource(kind="shards", train="train-*.tar", test="test-*.tar", classes=NAMES), shards
        )
    with tarfile.open(shards / "train-0.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("alone.png"), io.BytesIO())
    with pytest.raises(UserError, match="alone.png has no label beside it"):
        open_source(
            ShardsSource(kind="shards", train="train-*.tar", test="test-*.tar", classes=NAMES), shards
        )


def test_every_source_runs_through_the_same_stream(shards, split_file):
    sources = {
        "folder": "{kind: folder, root: images}",
        "coop": f"{{kind: coop, file: {split_file[0].name}, root: images}}",
        "shards": f"{{kind: shards, train: train-*.tar, test: test-*.tar, classes: [{', '.join(NAMES)}]}}",
    }
    tasks = "".join(f"  - name: {name}\n    source: {source}\n" for name, source in sources.items())
    (shards / "s.yaml").write_text(f"name: s\nshots: 2\ntasks:\n{tasks}")
    data = load(plan(load_scenario(str(shards / "s.yaml")), 0), "task-incremental", PIXELS)
    for task in data.tasks:
        assert len(task.train) == 8
        for image, label in zip(task.train.pixels, task.train.labels, strict=True):
            colour = COLOURS[
                {"gre en": "green"}.get(task.space.class_names[label], task.space.class_names[label])
            ]
            assert (image.float().mean((1, 2)) - torch.tensor(colour)).abs().max() < 20


def test_every_shipped_scenario_is_valid_and_names_data_sets_that_are_known():
    for name in shipped("scenario"):
        value = load_scenario(name).value
        assert value.name == name
        for entry in (*value.tasks, *value.zero_shot):
            assert not isinstance(entry.source, DatasetSource) or entry.source.name in DATASETS


def test_mtil_order_one_and_two_hold_the_same_eleven_sets():
    orders = [[task.source.name for task in load_scenario(f"mtil-order{i}").value.tasks] for i in (1, 2)]
    assert sorted(orders[0]) == sorted(orders[1]) and len(orders[0]) == 11 and orders[0] != orders[1]
    assert orders[0][:3] == ["aircraft", "caltech101", "cifar100"] and orders[1][:3] == [
        "stanford_cars",
        "food101",
        "mnist",
    ]


def test_a_known_data_set_in_a_scenario(tmp_path, monkeypatch):
    """PACS as a stream of four domains, found below $CL_COMPLORA_DATA, checked and loaded."""
    for domain in ("photo", "art_painting", "cartoon", "sketch"):
        for label, name in enumerate(("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")):
            for number in range(4):
                paint(tmp_path / "PACS" / domain / name / f"{number}.png", (30 * label, 90, 20), number, 20)
    monkeypatch.setenv("CL_COMPLORA_DATA", str(tmp_path))
    settings = ["shots=2", "zero_shot=[]"]
    plans = plan(load_scenario("pacs-domains", settings), 0)
    assert [len(p.train) for p in plans.tasks] == [14] * 4 and plans.tasks[2].prompts == (
        "a cartoon of a {}.",
    )
    data = load(plans, "domain-incremental", PIXELS)
    assert data.tasks[0].space.class_names[:2] == ("dog", "elephant") and len(data.tasks[0].test) == 14
    monkeypatch.setenv("CL_COMPLORA_DATA", str(tmp_path / "elsewhere"))
    report = verify("pacs-domains")
    assert len(report.faults) == 5 and all("get it:" in fault for fault in report.faults)


def test_prepare_fetches_what_torchvision_can_and_tells_the_rest(tmp_path, monkeypatch):
    from torchvision import datasets

    asked = []

    class Food101:
        def __init__(self, root, split, download):
            asked.append((root, split, download))

    class EuroSAT:
        def __init__(self, root, download):
            raise OSError("no route\nto host")

    monkeypatch.setattr(datasets, "Food101", Food101)
    monkeypatch.setattr(datasets, "EuroSAT", EuroSAT)
    tasks = "".join(
        f"  - name: {n}\n    source: {{kind: dataset, name: {n}}}\n" for n in ("food101", "eurosat", "ucf101")
    )
    (tmp_path / "s.yaml").write_text(f"name: s\ntasks:\n{tasks}")
    monkeypatch.setenv("CL_COMPLORA_DATA", str(tmp_path / "data"))
    done = CliRunner().invoke(app, ["data", "prepare", str(tmp_path / "s.yaml")])
    assert asked == [(str(tmp_path / "data"), split, True) for split in ("train", "test")]
    first, second = done.exception.messages
    assert "eurosat: not downloaded (OSError no route to host)" in first and "get it:" in first
    assert "ucf101: torchvision has no download for it" in second


def test_the_ensembles_of_clip_for_imagenet(tmp_path, class_folders):
    (tmp_path / "s.yaml").write_text(
        "name: s\nshots: 1\ntasks:\n  - name: a\n    source: {kind: folder, root:"
        f" {class_folders}}}\nzero_shot:\n  - name: z\n    source: {{kind: folder, root: {class_folders}}}\n "
        "   prompts: imagenet-80\n"
    )
    eighty = plan(load_scenario(str(tmp_path / "s.yaml")), 0).zero_shot[0].prompts
    assert len(eighty) == 80 and "a bad photo of a {}." in eighty and all(p.count("{}") == 1 for p in eighty)
    seven = (
        plan(load_scenario(str(tmp_path / "s.yaml"), ["zero_shot.0.prompts=imagenet-7"]), 0)
        .zero_shot[0]
        .prompts
    )
    assert len(seven) == 7 and set(seven) <= set(eighty)


def test_published_values_stand_beside_measured_ones():
    near = beside("imagenet", "ViT-B-16-quickgelu", "openai", 0.683)
    assert "68.3 %" in near and "published for ViT-B-16-quickgelu: 68.6 %" in near and "apart" not in near
    assert "-4.6 points apart" in beside("imagenet", "ViT-B-16-quickgelu", "openai", 0.64)
    assert beside("imagenet", "ViT-B-16", "laion2b_s34b_b88k", 0.7) is None
    assert beside("food101", "ViT-B-16-quickgelu", "openai", 0.8) is None
