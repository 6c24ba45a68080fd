"""An evaluation in shards is the evaluation: to the bit, whatever was computed twice, killed or damaged."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace

import pytest
import torch
from PIL import Image

from builders.captions import json_lines, painted
from builders.commands import cli
from builders.shards import killed_once
from cl_complora.clip.classifier import MEASURED_AT_ONCE, ClipClassifier
from cl_complora.clip.evaluate import answers
from cl_complora.data.labels import LabelSpace
from cl_complora.errors import UserError
from cl_complora.finished import eval_shards
from cl_complora.finished.asked_sets import Part, parts_of, together
from cl_complora.finished.eval_request import EvalRequest, open_request
from cl_complora.finished.eval_shards import Shards, gather, places_for
from cl_complora.run.worker_processes import Ended

COUNTS = (1, 2, 3, 7)


@pytest.fixture(scope="module")
def scenario(tmp_path_factory, tiny_scenario):
    """The tiny scenario, with a retrieval set and a multi-label set."""
    folder = tmp_path_factory.mktemp("more")
    painted(folder)
    json_lines(folder / "captions.jsonl")
    rows = [{"image": f"{name}.png", "labels": [name[0], name[-1]]} for name in ("red", "green", "blue")]
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = "\nretrieval:\n  - {name: told, source: {kind: captions, file: captions.jsonl}}\n"
    more += "multi_label:\n  - {name: several, source: {kind: multi-label, file: labels.jsonl}}\n"
    (folder / "scenario.yaml").write_text(tiny_scenario.read_text() + more)
    return folder / "scenario.yaml"


@pytest.fixture
def request_(tiny_run, scenario):
    """A run measured on that scenario."""
    return EvalRequest(str(tiny_run.folder), True, data=(str(scenario),), device="cpu")


def answered(found) -> dict[str, torch.Tensor]:
    return {f"{place}/{key}": value for place, by in together(found).items() for key, value in by.items()}


def same(found, wanted) -> bool:
    found, wanted = answered(found), answered(wanted)
    return found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_shards_are_whole_batches_and_share_them_out():
    sizes = [9, 0, 4, 1, 30]
    assert parts_of(sizes, 4) == [Part(0, 0, 9), Part(2, 0, 4), Part(3, 0, 1), Part(4, 0, 30)]
    for of in (1, 2, 3, 5, 7, 13, 40):
        shards = [parts_of(sizes, 4, number, of) for number in range(1, of + 1)]
        images = [(part.place, i) for shard in shards for part in shard for i in range(part.start, part.stop)]
        assert images == [(place, i) for place, size in enumerate(sizes) for i in range(size)]
        assert all(part.start % 4 == 0 for shard in shards for part in shard)
        batches = [sum(-(-(part.stop - part.start) // 4) for part in shard) for shard in shards]
        assert max(batches) - min(batches) <= 1


def test_slices_of_whole_batches_have_the_answers_of_the_whole(clip_model, tokenizer):
    classifier = ClipClassifier(clip_model, tokenizer).eval()
    space = LabelSpace.from_templates(["red", "green", "blue"], ["a {}"])
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (2 * MEASURED_AT_ONCE + 9, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels, shares = answers(classifier, pixels, space)
    for cut in (MEASURED_AT_ONCE, 2 * MEASURED_AT_ONCE):
        first, second = answers(classifier, pixels[:cut], space), answers(classifier, pixels[cut:], space)
        assert torch.equal(torch.cat([first[0], second[0]]), labels)
        assert torch.equal(torch.cat([first[1], second[1]]), shares)


def test_any_number_of_shards_gives_the_same(request_, tmp_path):
    request_ = replace(request_, batch_size=3)
    opened = open_request(request_)
    whole = opened.answer(opened.parts())
    rows = opened.measured(whole)
    assert [row.name for row in rows][:4] == [
        "tiny/warm",
        "tiny/cold",
        "tiny/colours",
        "tiny/told, image to text R@1",
    ]
    assert any(not row.share for row in rows)
    for of in COUNTS:
        said: list[str] = []
        found = gather(request_, Shards.find(opened, of, tmp_path), said.append, ["cpu"])
        assert same(found, whole) and opened.measured(found) == rows
        assert said[-1] == f"computing {eval_shards.counted(of)}, 1 at a time"
        said.clear()
        again = gather(request_, Shards.find(opened, of, tmp_path), said.append, ["cpu"])
        assert same(again, whole) and said == [f"{of} of {of} shards are there, or have no images"]
    Shards.find(opened, 3, tmp_path).compute(2)  # once more
    assert same(gather(request_, Shards.find(opened, 3, tmp_path), said.append), whole)


def test_there_may_be_more_shards_than_batches(request_, tmp_path):
    opened = open_request(request_)
    found = gather(request_, Shards.find(opened, 9, tmp_path), print, ["cpu"])
    assert same(found, opened.answer(opened.parts())) and len(list(tmp_path.iterdir())) == 5


def test_a_killed_worker_costs_its_shard_another_try(request_, tmp_path, monkeypatch):
    monkeypatch.setattr(eval_shards, "compute_shard", killed_once)
    opened = open_request(request_)
    found = gather(request_, Shards.find(opened, 3, tmp_path / "shards"), print, ["cpu", "cpu"])
    assert same(found, opened.answer(opened.parts()))
    tries = {n: (tmp_path / f"tries-{n}").read_text().split() for n in (1, 2, 3)}
    assert {n: len(devices) for n, devices in tries.items()} == {1: 1, 2: 2, 3: 1}
    monkeypatch.setattr(eval_shards, "WorkerProcesses", AlwaysKilled)
    for file in (tmp_path / "shards").glob("shard-[12]*"):
        file.unlink()
    with pytest.raises(UserError, match="shard 2/3: killed from outside, twice"):
        gather(request_, Shards.find(opened, 3, tmp_path / "shards"), print, ["cpu", "cpu"])
    assert len(list((tmp_path / "shards").iterdir())) == 2


class AlwaysKilled:
    """Stands in for processes of which the one that has shard 2 is killed twice."""

    def __init__(self, devices, threads: int) -> None:
        self.devices = devices

    def __enter__(self) -> AlwaysKilled:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to end."""

    def each(self, job, arguments):
        for index, (request, number, *rest) in enumerate(arguments):
            killed = Ended("killed from outside", killed=True)
            yield index, killed if number == 2 else job(request, number, *rest, self.devices[0])


def test_what_is_damaged_or_of_something_else_is_computed_again(request_, tmp_path):
    request_ = replace(request_, batch_size=3)
    opened = open_request(request_)
    shards, whole = Shards.find(opened, 3, tmp_path), opened.answer(opened.parts())
    gather(request_, shards, print, ["cpu"])
    first, second = shards.path(1), shards.path(2)
    good = second.read_bytes()
    cases = {
        good[:-1]: "damaged",
        b"": "damaged",
        good[:-3] + bytes([good[-3] ^ 1]) + good[-2:]: "checksum",
        first.read_bytes(): "is of other weights, data or settings",
    }
    for content, why in cases.items():
        second.write_bytes(content)
        said: list[str] = []
        assert same(gather(request_, shards, said.append, ["cpu"]), whole)
        assert why in said[0] and said[0].endswith("; computed again") and str(second) in said[0]
        assert said[1:] == ["2 of 3 shards are there, or have no images", "computing 1 shard, 1 at a time"]
    for key, value in {"label": torch.full((3,), 9, dtype=torch.int32), "share": torch.ones(2)}.items():
        assert not opened.asked[0].fits({**opened.answer([Part(0, 0, 3)])[0][1], key: value}, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"after": "1"},
        {"precision": "bf16"},
        {"factors": (("warm", 0.5),)},
        {"prompts": ("so {}",)},
        {"batch_size": 7},
    ],
)
def test_other_weights_data_or_settings_are_another_evaluation(request_, tmp_path, change):
    opened, other = open_request(request_), open_request(replace(request_, **change))
    assert opened.identity == open_request(request_).identity != other.identity
    Shards.find(opened, 2, tmp_path).compute(1)
    said: list[str] = []
    found = gather(replace(request_, **change), Shards.find(other, 2, tmp_path), said.append, ["cpu"])
    assert same(found, other.answer(other.parts()))
    assert "holds 1 shard of other weights, data or settings" in said[0]


def test_pictures_that_were_exchanged_are_another_evaluation(tmp_path):
    """A folder that was moved with its files is the same; other files of the same names and sizes are not."""

    def identity(folder):
        return open_request(EvalRequest("embedded", False, data=(str(folder),), device="cpu")).identity

    folder, moved = tmp_path / "one" / "seen", tmp_path / "two" / "seen"
    for name, colour in {"red": (255, 0, 0), "blue": (0, 0, 255)}.items():
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), colour).save(folder / name / "1.bmp")
    before = identity(folder)
    moved.parent.mkdir()
    folder.rename(moved)
    assert identity(moved) == before
    picture = moved / "red" / "1.bmp"
    written, size = picture.stat().st_mtime_ns, picture.stat().st_size
    Image.new("RGB", (8, 8), (0, 255, 0)).save(picture)
    os.utime(picture, ns=(written, written + 1))
    assert picture.stat().st_size == size and identity(moved) != before


def test_pictures_of_another_domain_are_another_evaluation(tmp_path):
    """Sets of the same name, classes, prompts and keys, as two styles are."""
    found = set()
    for style in ("style-photo", "style-chalk"):
        source = f"source: {{kind: world, domain: {style}}}, images: 4, prompts: ['a {{}}']"
        file = tmp_path / f"{style}.yaml"
        task = "tasks:\n  - {name: flags, source: {kind: world, domain: flags}}\n"
        file.write_text(f"name: s\n{task}zero_shot:\n  - {{name: styled, {source}}}\n")
        opened = open_request(EvalRequest("embedded", False, data=(str(file),), device="cpu"))
        found.add(opened.asked[-1].identity())
    assert len(found) == 2


def test_an_array_of_tasks_and_one_that_puts_together(tiny_run, tmp_path, monkeypatch, capsys):
    words = ("eval", tiny_run.folder, "--device", "cpu")
    code, plain, _ = cli(monkeypatch, capsys, *words, "--json")
    assert code == 0
    kept = ("--shard-folder", tmp_path / "kept")
    code, out, _ = cli(monkeypatch, capsys, *words, "--shard", "2/3", *kept, "--json")
    counted = json.loads(out)
    assert code == 0 and [(one["name"], one["images"], one["from"]) for one in counted] == [("cold", 12, 0)]
    assert counted[0]["right"] == round(12 * json.loads(plain)[1]["accuracy"])
    code, out, said = cli(monkeypatch, capsys, *words, "--shards", "3", *kept, "--json")
    assert code == 0 and out == plain and "1 of 3 shards are there" in said
    code, out, _ = cli(monkeypatch, capsys, *words, "--shard", "3/3", *kept)
    assert code == 0 and "shard 3/3" in out and "colours" in out and str(tmp_path / "kept") in out
    code, out, _ = cli(monkeypatch, capsys, *words, "--shard", "1/9", *kept)
    assert code == 0 and "no images are left for it" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--shard", "3/2"), "--shard 3/2: must be I/N with 1 ≤ I ≤ N"),
        (("--shard", "0/0"), "--shard 0/0: must be I/N"),
        (("--shard", "0/4"), "--shard 0/4: must be I/N"),
        (("--shard", "two"), "--shard two: must be I/N"),
        (("--shard", "1/2/3"), "must be I/N"),
        (("--shard", "-1/2"), "must be I/N"),
        (("--shard", "1/20000"), "must be I/N"),
        (("--shards", "0"), "--shards"),
        (("--shards", "x"), "--shards"),
        (("--shards", "2", "--shard", "1/2"), "--shards and --shard: give one of the two"),
        (("--shard-folder", "here"), "--shard-folder: is for --shards or --shard"),
        (("--shards", "2", "--curve", "warm"), "--shards: is not for --curve"),
        (("--device", "tpu"), "--device tpu: must be"),
        (("--precision", "tf32", "--device", "cpu"), "--precision: tf32 is a way of NVIDIA GPUs"),
        (("--precision", "fp8"), "fp8"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(tiny_run, words, told, monkeypatch, capsys):
    code, out, said = cli(monkeypatch, capsys, "eval", tiny_run.folder, *words)
    assert code == 2 and not out and told in " ".join(said.split()) and "Traceback" not in said


def test_processes_have_the_threads_of_an_evaluation_without_shards(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(eval_shards, "cores", lambda: 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert places_for("cpu", 5, said.append) == ["cpu"] * 2 and "OMP_NUM_THREADS=1 computes 5" in said[0]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert places_for("auto", 5, said.append) == ["cpu"] * 5 and len(said) == 1
    gpus = ["cuda:0", "cuda:1"]
    monkeypatch.setattr(eval_shards, "visible_gpus", lambda: gpus)
    assert places_for("auto", 5) == gpus and places_for("cuda", 1) == ["cuda:0"]
    assert places_for("cpu", 2) == ["cpu"] * 2


def test_what_bf16_changes_is_told_of_all_shards(tiny_run, tmp_path, monkeypatch, capsys):
    words = ("eval", tiny_run.folder, "--device", "cpu", "--precision", "bf16", "--json")
    code, plain, said = cli(monkeypatch, capsys, *words)
    assert code == 0 and re.search(r"note: measured in bf16: \d+.\d\d % of 12 answers are others", said)
    code, out, said = cli(monkeypatch, capsys, *words, "--shards", "3", "--shard-folder", tmp_path)
    assert code == 0 and out == plain and "of 32 answers are others than in fp32" in said


def test_shards_of_different_devices_are_told(request_, tmp_path, monkeypatch):
    opened, said = open_request(request_), []
    shards = Shards.find(opened, 2, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Shards, "_where", lambda self: "NVIDIA H100")
        shards.compute(1)
    gather(request_, shards, said.append, ["cpu"])
    assert "computed on NVIDIA H100 and on cpu, " in said[-1] and "last bits" in said[-1]
