"""Data sets of Hugging Face: from folders of save_to_disk, from the cache, and where there are none."""

from __future__ import annotations

import json
import os
import sys

import pytest

from builders.hostile import PIXELS, told
from builders.hub import COLOURS, NAMES, NO_DATASETS, coloured, parquet, rows
from cl_complora.config import load_scenario
from cl_complora.config.hub_sources import HuggingFaceSource
from cl_complora.data.division import UNDIVIDED
from cl_complora.data.hub import hub_pictures
from cl_complora.data.hub.hugging_face import refuse_elsewhere
from cl_complora.data.kinds import open_source
from cl_complora.data.planning import plan

WORDS = ["red", "light blue"]


@pytest.fixture(scope="module")
def datasets():
    return pytest.importorskip("datasets", reason=NO_DATASETS)


def opened(where, /, **settings):
    return open_source(HuggingFaceSource(kind="huggingface", **settings), where)


def made(datasets, count, start=0):
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=NAMES))
    return datasets.Dataset.from_dict(rows(count, start), features=features)


@pytest.fixture
def folder(datasets, tmp_path):
    """A folder of save_to_disk with three splits."""
    parts = {"train": made(datasets, 6), "test": made(datasets, 4, 20), "validation": made(datasets, 2, 30)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    return tmp_path


def test_a_folder_of_save_to_disk(folder):
    source = opened(folder, root="saved")
    assert source.class_names == WORDS and source.notes == []
    assert [len(source.items(part)) for part in ("train", "test", "validation")] == [6, 4, 2]
    item = source.items("train")[3]
    assert (item.key, item.size, item.label) == ("train/3/3.png", len(coloured(1, 3)), 1)
    assert source.load([item], PIXELS)[0, :, 9, 9].tolist() == list(COLOURS[1])
    swapped = opened(folder, root="saved", splits={"train": "test", "test": "train"})
    assert [len(swapped.items(part)) for part in ("train", "test")] == [4, 6]
    alone = opened(folder, root="saved", split="test")
    assert [len(alone.items(part)) for part in ("train", "test", UNDIVIDED)] == [2, 2, 4]
    (line,) = told(lambda: opened(folder, root="saved", split="dev"))
    assert line.endswith("saved: split: there is no split 'dev'; there are 'train', 'test', 'validation'")


def test_one_table_alone_is_divided(datasets, tmp_path):
    made(datasets, 8).select([7, 6, 5, 4, 3, 2, 1, 0]).save_to_disk(tmp_path / "saved")
    source = opened(tmp_path, root="saved")
    every = source.items(UNDIVIDED)
    assert len(every) == 8 and [item.label for item in every] == [1, 0] * 4
    assert source.load(every, PIXELS)[:, 0, 0, 0].tolist() == [7, 6, 5, 4, 3, 2, 1, 0]


def test_pictures_that_cannot_be_read(datasets, tmp_path):
    columns = rows(4)
    columns["image"][1] = {"bytes": b"damaged", "path": None}
    features = datasets.Features(image=datasets.Image(decode=False), label=datasets.ClassLabel(names=NAMES))
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(tmp_path / "saved")
    source = opened(tmp_path, root="saved", split=None)
    (line,) = told(lambda: source.load(source.items(UNDIVIDED), PIXELS))
    assert f"{tmp_path}/saved, split " in line and "row 1, column 'image': cannot be read as an image" in line


def test_pictures_beside_the_table_stay_below_its_folder(datasets, tmp_path):
    """``save_to_disk`` takes pictures into the table; an older or a hostile one only names them."""
    made(datasets, 4).save_to_disk(tmp_path / "saved")
    (tmp_path / "outside.png").write_bytes(coloured(0))
    (tmp_path / "saved" / "inside.png").write_bytes(coloured(0))
    pa = pytest.importorskip("pyarrow")
    (file,) = (tmp_path / "saved").glob("*.arrow")
    schema = pa.ipc.open_stream(file.read_bytes()).schema
    paths = ["outside.png", "saved/inside.png", "saved/../outside.png", "saved/gone.png"]
    pictures = [{"bytes": None, "path": str(tmp_path / path)} for path in paths]
    with pa.ipc.new_stream(file, schema) as writer:
        writer.write_table(pa.table({"image": pictures, "label": [0, 1, 0, 1]}, schema))
    source = opened(tmp_path, root="saved")
    one, two, three, four = source.items(UNDIVIDED)
    assert source.load([two], PIXELS).shape == (1, 3, 32, 32)
    for item in (one, three):
        assert "lies outside the data set and the cache" in told(lambda: source.load([item], PIXELS))[0]  # noqa: B023
    assert "No such file" in told(lambda: source.load([four], PIXELS))[0]


def listed(root, states, splits=None):
    """A folder as of save_to_disk, whose ``state.json`` name these files."""
    root.mkdir()
    for split, files in states.items():
        (root / split).mkdir(exist_ok=True)
        (root / split / "state.json").write_text(
            json.dumps({"_data_files": [{"filename": f} for f in files]})
        )
        (root / split / "dataset_info.json").write_text("{}")
        (root / split / "data.arrow").write_bytes(b"")
    if splits is not None:
        (root / "dataset_dict.json").write_text(json.dumps({"splits": splits}))


def test_tables_of_a_saved_folder_lie_in_it(tmp_path):
    """Or in the cache of Hugging Face, which is full of links to what it holds once."""
    saved, blobs = tmp_path / "saved", tmp_path / "blobs"
    listed(saved, {".": ["data.arrow"], "train": ["data.arrow", "gone.arrow"]}, ["train", "gone"])
    refuse_elsewhere(saved, [str(saved)])
    blobs.mkdir()
    (saved / "train" / "data.arrow").rename(blobs / "0a1b")
    (saved / "train" / "data.arrow").symlink_to("../../blobs/0a1b")
    refuse_elsewhere(saved, [str(saved), str(blobs)])
    (line,) = told(refuse_elsewhere, saved, [str(saved)])
    assert line == f"{saved}/train/data.arrow: is a link that leads out of the data set, to {blobs}/0a1b"


ELSEWHERE = "../saved/data.arrow|/etc/passwd|..|a/b|a\\b|file::a|a\0|\ud800|".split("|") + [None, 3]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_names_that_lead_out_of_a_saved_folder_are_refused(tmp_path, name):
    listed(tmp_path / "a", {".": ["data.arrow", name]})
    (line,) = told(refuse_elsewhere, tmp_path / "a", [str(tmp_path / "a")])
    assert line.startswith(f"{tmp_path}/a/state.json: _data_files must name what lies beside it")
    listed(tmp_path / "b", {"train": ["data.arrow"]}, ["train", name])
    (line,) = told(refuse_elsewhere, tmp_path / "b", [str(tmp_path / "b")])
    assert line.startswith(f"{tmp_path}/b/dataset_dict.json: splits must name what lies beside it")


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "data.arrow"])
def test_what_is_no_file_of_a_saved_folder(tmp_path, name):
    listed(tmp_path / "a", {".": ["data.arrow"]})
    (tmp_path / "a" / name).unlink()
    os.mkfifo(tmp_path / "a" / name)
    assert told(refuse_elsewhere, tmp_path / "a", [str(tmp_path / "a")]) == (
        f"{tmp_path}/a/{name}: is no regular file",
    )


@pytest.mark.parametrize("content", ["[" * 50_000, "{}", "[]", "3", '{"_data_files": [{}]}', "\0"])
def test_lists_of_a_saved_folder_that_are_none(tmp_path, content):
    listed(tmp_path / "a", {".": []})
    (tmp_path / "a" / "state.json").write_text(content)
    (line,) = told(refuse_elsewhere, tmp_path / "a", [str(tmp_path / "a")])
    assert line.startswith(f"{tmp_path}/a/state.json: is damaged, or not what save_to_disk wrote")


def test_the_lists_of_a_saved_folder_are_read_before_its_tables(datasets, tmp_path):
    listed(tmp_path / "a", {".": ["../outside.arrow"]})
    (line,) = told(lambda: opened(tmp_path, root="a"))
    assert line.startswith(f"{tmp_path}/a/state.json: _data_files must name what lies beside it")


@pytest.fixture
def cached(datasets, tmp_path, monkeypatch):
    """The cache of Hugging Face with the configuration ``small`` of me/My_Set."""
    import datasets.config as settings
    from datasets.packaged_modules.parquet.parquet import Parquet

    monkeypatch.setattr(settings, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    parquet(tmp_path / "train.parquet", rows(6))
    parquet(tmp_path / "test.parquet", rows(4, 20))

    def fetch(config):
        files = {part: [str(tmp_path / f"{part}.parquet")] for part in ("train", "test")}
        cache = tmp_path / "cache"
        Parquet(str(cache), "MySet", config, hash="0" * 8, data_files=files).download_and_prepare()
        (place,) = (cache / "my_set").iterdir()
        (cache / "me___my_set").mkdir(exist_ok=True)
        place.rename(cache / "me___my_set" / config)

    fetch("small")
    return fetch


def test_by_name_from_the_cache(cached, tmp_path, capfd):
    source = opened(tmp_path, name="me/MySet")
    assert source.class_names == WORDS and len(source.items("train")) == 6
    assert source.items("test")[0].key == "test/0/20.png" and source.stamp(source.items("test")[0])
    assert opened(tmp_path, name="me/MySet", config="small").items("test") == source.items("test")
    assert "Using the latest" not in capfd.readouterr().err
    (line,) = told(lambda: opened(tmp_path, name="me/MySet", config="large"))
    assert "holds no configuration 'large', but ['small']" in line
    cached("other")
    (line,) = told(lambda: opened(tmp_path, name="me/MySet"))
    assert "holds several configurations" in line and "say which in the source: config: " in line


def test_what_is_not_there_is_told_with_what_to_put_where(datasets, tmp_path, monkeypatch):
    import datasets.config as settings
    import huggingface_hub.constants as hub

    monkeypatch.setattr(settings, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (line,) = told(lambda: opened(tmp_path, name="me/pets", config="x"))
    assert line.startswith(f"me/pets: is not in the cache of Hugging Face ({tmp_path}/datasets)")
    assert "load_dataset('me/pets', 'x')" in line and "save_to_disk(FOLDER)" in line and "kind:" not in line
    parquet(tmp_path / "hub/datasets--me--pets/snapshots/aa/data/train-0.parquet", rows(2))
    (line,) = told(lambda: opened(tmp_path, name="me/pets"))
    assert line.endswith(f"as kind: parquet ({tmp_path}/hub/datasets--me--pets/snapshots/aa/data)")
    assert "there is no such folder" in told(lambda: opened(tmp_path, root="gone"))[0]
    (tmp_path / "empty").mkdir()
    assert "empty: cannot be read by the package datasets" in told(lambda: opened(tmp_path, root="empty"))[0]


@pytest.mark.parametrize("damage", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_damaged_folders_are_named(datasets, tmp_path, damage):
    made(datasets, 4).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / damage).write_bytes(b"{\xff" * 40)
    (line,) = told(lambda: opened(tmp_path, root="saved"))
    assert line.startswith(f"{tmp_path}/saved")


def test_it_is_a_task_like_any_other(folder):
    (folder / "s.yaml").write_text(
        "name: s\nshots: 2\ntasks: [{name: t, source: {kind: huggingface, root: saved}}]\n"
        "zero_shot: [{name: z, source: {kind: huggingface, root: saved,\n"
        "  split: validation, test_fraction: 1}}]\n"
    )
    plans = plan(load_scenario(str(folder / "s.yaml")), 0)
    assert len(plans.tasks[0].train) == 4 and len(plans.zero_shot[0].test) == 2
    assert json.loads(json.dumps(plans.tasks[0].manifest()))[0]["key"].startswith("train/")


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_pictures, "find_spec", lambda name: None)
    before = set(sys.modules)
    (line,) = told(lambda: opened(tmp_path, name="me/pets"))
    assert line.startswith(
        "kind: huggingface needs the package datasets, which is not installed: pip install"
    )
    assert "cl_complora[datasets]" in line and "pyarrow" not in set(sys.modules) - before


@pytest.mark.parametrize(
    ("source", "fault"),
    [("{kind: huggingface}", "needs name (owner/name, from the cache) or root"),
     ("{kind: huggingface, name: a/b, root: c}", "needs name (owner/name, from the cache) or root"),
     ("{kind: huggingface, name: ../b}", "must be owner/name as on the Hub, got '../b'; a folder of"),
     ("{kind: huggingface, root: a, config: b}", "source.config: has no effect with root"),
     ("{kind: huggingface, name: a, splits: {train: c, test: c}}", "'c' is the training split"),
     ("{kind: huggingface, name: a, split: b, splits: {train: c, test: d}}", "has no effect with splits")],
)  # fmt: skip
def test_what_does_not_fit_is_refused_where_it_stands(tmp_path, source, fault):
    (tmp_path / "s.yaml").write_text(f"name: s\ntasks:\n  - name: t\n    source: {source}\n")
    (line,) = told(lambda: load_scenario(str(tmp_path / "s.yaml")))
    assert "s.yaml:4: " in line and fault in line
