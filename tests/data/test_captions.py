"""Files of captions in the layouts that they come in, and what is said of those that cannot be used."""

from __future__ import annotations

import json

import pytest

from builders import captions
from builders.captions import TEXTS, painted, write
from cl_complora.config import load_scenario
from cl_complora.config.sources import CaptionsSource
from cl_complora.data.captions.captioned import open_captions
from cl_complora.data.checks.verify import verify
from cl_complora.data.planning import plan
from cl_complora.data.tables.json_files import json_or_lines
from cl_complora.errors import UserError


def opened(file, **more):
    return open_captions(CaptionsSource(kind="captions", file=file.name, **more), file.parent)


def held(source) -> dict[str, tuple[str, ...]]:
    return {item.key: source.texts(item) for item in source.items("test")}


@pytest.mark.parametrize(
    "make, name, place",
    [
        (captions.json_lines, "set/captions.jsonl", "set"),
        (captions.json_lines, "set/lines.json", "set/images"),
        (captions.coco, "coco/annotations/captions_val2017.json", "coco/val2017"),
        (captions.coco, "coco/annotations/captions_val2014.json", "coco/images/val2014"),
        (captions.karpathy, "flickr/dataset_flickr30k.json", "flickr/flickr30k-images"),
        (captions.token, "flickr/results_20130124.token", "flickr/flickr30k_images"),
        (captions.table, "flickr8k/captions.txt", "flickr8k/Images"),
        (captions.table, "set/table.csv", "set"),
    ],
)
def test_layouts_are_told_by_their_content_and_pictures_found_where_they_usually_lie(
    tmp_path, make, name, place
):
    painted(tmp_path / place)
    source = opened(make(tmp_path / name))
    assert held(source) == TEXTS
    assert source.root == tmp_path / place
    beside = (tmp_path / place) != (tmp_path / name).parent
    assert any("pictures are taken from" in note for note in source.notes) == beside


def cell(texts) -> str:
    """A JSON list as a cell of a table."""
    return json.dumps(list(texts)).replace('"', '""')


def test_other_forms_of_the_same(tmp_path):
    painted(tmp_path)
    rows = [{"image": name, "caption": list(own)} for name, own in TEXTS.items()]
    assert held(opened(write(tmp_path / "list.json", json.dumps(rows)))) == TEXTS
    assert held(opened(write(tmp_path / "object.json", json.dumps(TEXTS)))) == TEXTS
    single = [{"file_name": name, "text": text} for name, own in TEXTS.items() for text in own]
    lines = "".join(json.dumps(row) + "\n" for row in single)
    assert held(opened(write(tmp_path / "metadata.jsonl", lines))) == TEXTS
    tabs = "".join(f"{name}\t{text}\n" for name, own in TEXTS.items() for text in own)
    assert held(opened(write(tmp_path / "openclip.tsv", "filepath\ttitle\n" + tabs))) == TEXTS
    quoted = "".join(f'{name},test,"{cell(own)}"\n' for name, own in TEXTS.items())
    assert held(opened(write(tmp_path / "hf.csv", "filename,split,raw\n" + quoted))) == TEXTS
    spaced = held(opened(captions.bars(tmp_path / "results.csv")))
    assert spaced == {name: tuple(f"{text} ." for text in own) for name, own in TEXTS.items()}


def test_json_is_one_value_or_lines_that_are_called_so(tmp_path):
    file = write(tmp_path / "one.json", '[{"a": 1}]')
    assert json_or_lines(file, 99, 99) == ([{"a": 1}], None)
    value, lines = json_or_lines(write(file, '\n{"a": 1}\n\nno JSON\n'), 99, 99)
    assert value is None and list(lines) == [(2, {"a": 1}), (4, None)]
    for neither in ("{", "1\n2\n", ""):
        with pytest.raises(UserError, match="one.json: cannot be read as JSON: "):
            json_or_lines(write(file, neither), 99, 99)


@pytest.mark.parametrize("kind", [int, float, bool])
def test_splits_that_are_numbers_are_named_as_they_are_told(tmp_path, kind):
    painted(tmp_path)
    rows = [
        {"image": name, "texts": own, "split": kind(k % 2)} for k, (name, own) in enumerate(TEXTS.items())
    ]
    file = write(tmp_path / "c.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="no row is of the split 'test'; .* may be") as caught:
        opened(file)
    for part in (0, 1):
        assert repr(str(kind(part))) in str(caught.value)
        source = opened(file, split=str(kind(part)))
        assert held(source) == dict(list(TEXTS.items())[part::2])
        assert any(f"2 of 4 rows are of the split '{kind(part)}'" in note for note in source.notes)


def test_karpathys_splits(tmp_path):
    painted(tmp_path / "val2014")
    file = captions.karpathy(tmp_path / "dataset_coco.json", "val2014")
    source = opened(file)
    assert held(source) == {f"val2014/{name}": own for name, own in TEXTS.items()}
    assert any("4 of 5 rows are of the split 'test'" in note for note in source.notes)
    with pytest.raises(UserError, match="no row is of the split 'val'; .* may be 'test', 'train'"):
        opened(file, split="val")
    with pytest.raises(UserError, match="names one image"):
        opened(file, split="train")
    with pytest.raises(UserError, match="split: test asks for a part, but no row says"):
        opened(captions.json_lines(tmp_path / "a.jsonl"), split="test")


FAULTS = {
    '{"image": "red.png", "texts": []}': "image 'red.png' has no text",
    '{"image": "red.png", "texts": ["a", " "]}': "a text of image 'red.png' is empty",
    '{"image": "red.png", "texts": [3]}': "must be text, got 3",
    '{"image": "red.png", "texts": null}': "must be text, got nothing",
    '{"image": "", "texts": ["a"]}': "image must be the name of a picture, got ''",
    '{"image": 3, "texts": ["a"]}': "image must be the name of a picture, got 3",
    '{"image": "../red.png", "texts": ["a"]}': "path must lie below the root",
    '{"image": "https://a.b/c.png", "texts": ["a"]}': "download the pictures first",
    '{"image": "./green.png", "texts": ["a"]}': "named a second time, after",
    '{"image": "red.png", "labels": ["a"]}': "the key texts is missing; found 'image', 'labels'",
    '{"texts": ["a"]}': "the key image is missing",
    '{"image": "red.png", "texts": ["\\ud800"]}': "not UTF-8",
    "[]": "must be a JSON object such as",
    "no JSON": "must be a JSON object such as",
}


@pytest.mark.parametrize("line", FAULTS)
def test_rows_that_cannot_be_used_are_told_by_line(tmp_path, line):
    painted(tmp_path)
    good = '{"image": "green.png", "texts": ["a green one"]}\n\n{"image": "blue.png", "texts": ["blue"]}\n'
    file = write(tmp_path / "captions.jsonl", good + line + "\n")
    with pytest.raises(UserError) as caught:
        opened(file)
    assert len(caught.value.messages) == 1
    assert str(caught.value).startswith(f"{file}:4: ") and FAULTS[line] in str(caught.value)


@pytest.mark.parametrize(
    "content, told",
    [
        ("[]", "names no image"),
        ('[{"image": "red.png", "texts": ["a"]}]', "names one image, which is always found"),
        ('{"a": 1}', "must be a list of"),
        ("3", "must be a list of"),
        ("{", "cannot be read as JSON"),
        (
            '{"images": [RED], "annotations": [{"image_id": 1, "bbox": []}]}',
            "have no caption; those of objects",
        ),
        ('{"images": [RED], "annotations": [{"image_id": 2, "caption": "a"}]}', "no image has the id 2"),
        ('{"images": [RED], "annotations": []}', "image 'red.png' has no text"),
        ('{"images": [RED, RED], "annotations": []}', "the id 1 is that of an image before"),
        ('{"images": [{"id": 1}], "annotations": []}', "images[0]: must have id and file_name"),
    ],
)
def test_files_that_are_none(tmp_path, content, told):
    painted(tmp_path)
    with pytest.raises(UserError) as caught:
        red = '{"id": 1, "file_name": "red.png"}'
        opened(write(tmp_path / "captions.json", content.replace("RED", red)))
    assert any(told in message for message in caught.value.messages)


def test_tables_without_the_columns_say_what_there_may_be(tmp_path):
    painted(tmp_path)
    with pytest.raises(UserError, match="captions.csv:1: the first line must name a column of images"):
        opened(write(tmp_path / "captions.csv", "name,words\nred.png,a red one\n"))
    with pytest.raises(UserError, match=r"captions.csv:3: has 3 cells for 2 columns"):
        opened(write(tmp_path / "captions.csv", "image,caption\nred.png,a\nblue.png,a, b\n"))


SCENARIO = """
name: captioned
model: {{name: embedded}}
shots: 1
tasks:
  - name: digits
    source: {{kind: world, domain: digits}}
retrieval:
  - name: {name}
    source: {source}
"""


def planned(folder, source="{kind: captions, file: captions.jsonl}", name="mine", more=""):
    file = write(folder / "scenario.yaml", SCENARIO.format(name=name, source=source) + more)
    return plan(load_scenario(str(file)), 0)


def test_a_scenario_chooses_images_once_for_all_seeds_and_tells_of_repetitions(tmp_path):
    painted(tmp_path)
    repeated = TEXTS | {"red.png": ("it", "it"), "blue.png": ("it", "blue")}
    captions.json_lines(tmp_path / "captions.jsonl", repeated)
    plans = planned(tmp_path)
    (whole,) = plans.retrieval
    assert dict(zip((i.key for i in whole.test), whole.texts, strict=True)) == repeated
    assert whole.owners == (0, 0, 1, 1, 2, 2, 3, 3) and "mine" not in [one.name for one in plans]
    assert any("texts that stand twice under one image: 1" in note for note in plans.notes)
    assert any("texts that stand under several images: 1 (such as 'it')" in note for note in plans.notes)
    (two,) = planned(tmp_path, more="    images: 2\n").retrieval
    assert len(two.test) == 2 and set(two.texts) <= set(whole.texts) and two.sha256() != whole.sha256()
    assert planned(tmp_path, more="measure: validation\nvalidation_shots: 1\n").retrieval == ()
    planned(tmp_path)
    report = verify(str(tmp_path / "scenario.yaml"))
    assert any(line.startswith("mine: 4 images with 8 texts, all can be read") for line in report.lines)


def test_missing_and_broken_pictures_are_refused_by_name_or_left_out(tmp_path):
    painted(tmp_path)
    captions.json_lines(tmp_path / "captions.jsonl")
    (tmp_path / "green.png").write_bytes(b"no picture")
    (tmp_path / "red.png").unlink()
    with pytest.raises(UserError, match=r"red\.png: No such file"):
        planned(tmp_path)
    plans = planned(tmp_path, more="broken: skip\n")
    assert [item.key for item in plans.retrieval[0].test] == ["blue.png", "yellow.png"]
    assert plans.retrieval[0].texts == (TEXTS["blue.png"], TEXTS["yellow.png"]) and len(plans.skipped) == 2
    (tmp_path / "blue.png").unlink()
    with pytest.raises(UserError, match="retrieval set 'mine' has 1 image; it needs two at least"):
        planned(tmp_path, more="broken: skip\n")


@pytest.mark.parametrize(
    "source, told",
    [
        ("{kind: folder, root: .}", "must be 'captions' or 'world', got 'folder'"),
        ("{kind: world, domain: flags}", "must be 'captions' or 'negatives', got 'flags'"),
        ("{kind: captions, file: none.jsonl}", "none.jsonl"),
        ("{kind: captions, file: captions.jsonl, root: nowhere}", "there is no such folder"),
    ],
)
def test_sources_without_captions_are_refused(tmp_path, source, told):
    painted(tmp_path)
    captions.json_lines(tmp_path / "captions.jsonl")
    with pytest.raises(UserError) as caught:
        planned(tmp_path, source)
    assert told in str(caught.value) and "retrieval[0].source" in str(caught.value)


def test_captions_are_no_classes_and_names_stand_once(tmp_path):
    painted(tmp_path)
    captions.json_lines(tmp_path / "captions.jsonl")
    with pytest.raises(UserError, match="'digits' is already the name of tasks"):
        planned(tmp_path, name="digits")
    more = "zero_shot:\n  - {name: z, source: {kind: world, domain: captions}}\n"
    with pytest.raises(UserError, match="texts and no classes; it is for retrieval"):
        planned(tmp_path, more=more)


def test_pictures_that_a_task_trains_on_are_told(tmp_path):
    painted(tmp_path)
    captions.json_lines(tmp_path / "captions.jsonl")
    for name in ("red", "green"):
        folder = tmp_path / "classes" / "train" / name
        folder.mkdir(parents=True)
        (folder / "1.png").write_bytes((tmp_path / f"{name}.png").read_bytes())
        test = tmp_path / "classes" / "test" / name
        test.mkdir(parents=True)
        (test / "2.png").write_bytes((tmp_path / "yellow.png").read_bytes())
    text = SCENARIO.format(name="mine", source="{kind: captions, file: captions.jsonl}")
    text = text.replace("{kind: world, domain: digits}", "{kind: folder, root: classes}")
    file = write(tmp_path / "scenario.yaml", text)
    report = verify(str(file))
    assert any("'mine': 2 of 4 test pictures are used in the training of 'digits'" in x for x in report.lines)
