"""TensorBoard's event files: what results.json says, once, the same after a resume, whatever things are
called."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from builders.drawing import leave_out
from builders.images import paint
from builders.interruptions import Stop, StopAfter
from builders.places import LONG
from cl_complora import metrics
from cl_complora.cli import app
from cl_complora.config import load_scenario, load_strategy
from cl_complora.config.catalog import shipped
from cl_complora.report.tensorboard import figures
from cl_complora.report.tensorboard.figures import curves_image, matrix_image, mistakes_image
from cl_complora.report.tensorboard.hparams import COLUMNS, table_row
from cl_complora.run.stream import run


def go(tiny_scenario, out, strategy="complora", scenario=(), **options):
    quick = load_strategy(strategy, ["training.steps=3", "training.batch_size=4"])
    return run(load_scenario(str(tiny_scenario), list(scenario)), quick, out=out, **options)


def events(folder) -> EventAccumulator:
    found = EventAccumulator(
        str(folder / "tensorboard"), size_guidance={"images": 0, "scalars": 0, "tensors": 0}
    )
    found.Reload()
    return found


def content(folder) -> dict:
    """Everything in the event files but when it was written."""
    board = events(folder)
    tags = board.Tags()
    found = {tag: [(e.step, e.value) for e in board.Scalars(tag)] for tag in tags["scalars"]}
    found |= {tag: [(e.step, e.encoded_image_string) for e in board.Images(tag)] for tag in tags["images"]}
    return found | {
        tag: [(e.step, str(e.tensor_proto)) for e in board.Tensors(tag)] for tag in tags["tensors"]
    }


@pytest.fixture
def blank(monkeypatch):
    """Pictures without content: where it matters whether there are any, and of which tags."""
    leave_out(monkeypatch.setattr, "boards")


@pytest.fixture(scope="module")
def done(tmp_path_factory, tiny_scenario):
    return go(tiny_scenario, tmp_path_factory.mktemp("runs"))


def test_scalars_say_what_the_results_say(done):
    board, results = events(done.folder), done.results

    def curve(tag):
        return [(e.step, pytest.approx(e.value)) for e in board.Scalars(tag)]

    for column, task in enumerate(results["tasks"]):
        assert curve(f"accuracy/{column + 1}_{task}") == [
            (i, row[column]) for i, row in enumerate(results["accuracy"])
        ]
    assert curve("zero_shot/colours") == list(enumerate(results["zero_shot"]["colours"]))
    assert curve("retention/colours")[-1] == (2, pytest.approx(results["retention"]["colours"], abs=1e-4))
    for name in ("last", "average", "forgetting", "bwt", "transfer"):
        assert curve(f"stream/{name}")[-1] == (2, pytest.approx(results[name]))
    forgotten = metrics.forgetting(results["accuracy"])
    assert curve("forgetting/1_warm")[-1] == (2, pytest.approx(forgotten[0], abs=1e-6))
    assert [e.step for e in board.Scalars("train/loss")] == list(range(1, 7))
    assert curve("update/delta_norm") == [
        (i, d["delta_norm"]) for i, d in enumerate(results["tasks_detail"], 1)
    ]
    assert [e.step for e in board.Scalars("feature_similarity/1_warm")] == [2]
    assert [e.step for e in board.Scalars("overlap_with/1_warm")] == [2]
    layers = [tag for tag in board.Tags()["scalars"] if tag.startswith("half_energy_rank/")]
    assert "half_energy_rank/vision.0" in layers and "half_energy_rank/text.1" in layers


def test_pictures_come_after_every_task(done):
    board = events(done.folder)
    for tag, steps in (
        ("accuracy_matrix", [0, 1, 2]),
        ("accuracy_by_task", [0, 1, 2]),
        ("geometry/spectra", [1, 2]),
        ("geometry/layers", [1, 2]),
    ):
        pictures = board.Images(tag)
        assert [e.step for e in pictures] == steps
        assert min(Image.open(io.BytesIO(pictures[-1].encoded_image_string)).size) > 200


def test_every_chart_of_the_layout_finds_its_curves(done):
    """Transfer of a task and the overlap of the last one with later ones do not exist; everything else
    must."""
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    board = events(done.folder)
    (event,) = board.Tensors("custom_scalars__config__")
    layout = Layout.FromString(event.tensor_proto.string_val[0])
    assert [category.title for category in layout.category] == [
        "Forgetting",
        "Zero-shot",
        "Training",
        "Geometry",
    ]
    tags = board.Tags()["scalars"]
    for category in layout.category:
        for chart in category.chart:
            found = [tag for tag in tags if any(re.match(pattern, tag) for pattern in chart.multiline.tag)]
            found += {series.value for series in chart.margin.series} & set(tags)
            assert found, chart.title


def test_the_configuration_is_there_to_read(done):
    (event,) = events(done.folder).Tensors("config/text_summary")
    assert "    name: complora" in event.tensor_proto.string_val[0].decode()


# Of updates that are no factors, test_analysis compares what the board is told.
@pytest.mark.parametrize("strategy", ["complora", "finetune"] if LONG else ["complora"])
def test_a_killed_and_resumed_run_has_the_same_events(
    tmp_path, tmp_path_factory, tiny_scenario, done, strategy
):
    if strategy == "complora":
        whole = done
    else:
        whole = go(tiny_scenario, tmp_path_factory.mktemp("whole"), strategy)
    with pytest.raises(Stop):
        go(tiny_scenario, tmp_path, strategy, progress=StopAfter(1))
    parts = go(tiny_scenario, tmp_path, strategy)
    ours, theirs = content(parts.folder), content(whole.folder)
    config = "config/text_summary"  # says where the scenario file lies, as far from here as from there
    assert ours.pop(config) == theirs.pop(config)
    assert ours == theirs


def test_hparams_have_the_same_columns_for_every_strategy():
    filled: set[str] = set()
    for name in shipped("strategy"):
        strategy = load_strategy(name).value.model_dump(mode="json")
        config = {
            "scenario": {"name": "s", "shots": 8},
            "strategy": strategy,
            "seed": 0,
            "model": {"name": "m"},
        }
        row = table_row(config)
        assert row.keys() <= COLUMNS.keys() and row["Strategy"] == name
        filled |= row.keys()
        assert all(isinstance(value, str) == (COLUMNS[key] is str) for key, value in row.items())
    assert COLUMNS.keys() - filled <= {"vision lr"}  # which no shipped strategy sets


def test_hparams_of_a_run(done):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = events(done.folder).summary_metadata
    begun = HParamsPluginData.FromString(
        found["_hparams_/session_start_info"].plugin_data.content
    ).session_start_info
    assert begun.hparams["Strategy"].string_value == "complora" and begun.hparams["Rank"].number_value == 8
    experiment = HParamsPluginData.FromString(found["_hparams_/experiment"].plugin_data.content).experiment
    assert {info.name for info in experiment.hparam_infos} == set(COLUMNS)
    names = {info.name.tag for info in experiment.metric_infos}
    assert {"stream/last", "stream/transfer", "retention/colours"} <= names


def test_newly_wrong_pictures_of_hostile_names(tmp_path, tiny_strategy, tiny_files, blank, monkeypatch):
    """Mathematics, markup and letters that no font has; a task that is made to forget everything."""
    monkeypatch.setattr(figures, "mistakes_image", mistakes_image)  # the only one that is looked at
    names = ("$x_", "<script>alert(1)</script>", "日本", "a\\frac{")
    for place, name in enumerate(names):
        for split in ("train", "test"):
            for number in range(4):
                folder = tmp_path / ("one" if place < 2 else "two") / split / name.replace("/", "∕")
                paint(folder / f"{number}.png", (60 * place, 200 - 40 * place, 90), number + 10 * place)
    config, weights = tiny_files
    (tmp_path / "s.yaml").write_text(
        f"name: s\nmodel: {{name: tiny_clip, config: {config}, pretrained: {weights}}}\nshots: 2\ntasks:\n  -"
        " {name: one, source: {kind: folder, root: one}}\n  - {name: two, source: {kind: folder, root:"
        " two}}\n"
    )
    strong = load_strategy("finetune", ["training.steps=12", "optimiser.lr=0.02"])
    for seed in range(4):
        out = run(load_scenario(str(tmp_path / "s.yaml")), strong, seed=seed, out=tmp_path / "runs")
        if "mistakes/newly_wrong" in events(out.folder).Tags()["images"]:
            (event,) = events(out.folder).Images("mistakes/newly_wrong")
            assert (
                event.step == 2 and np.asarray(Image.open(io.BytesIO(event.encoded_image_string))).std() > 0
            )
            return
    pytest.fail("no seed forgot anything")


def test_names_that_tensorboard_would_merge_stay_apart(tmp_path, tiny_scenario, blank):
    out = go(tiny_scenario, tmp_path, scenario=["tasks.0.name=a b", "tasks.1.name=a+b"])
    tags = events(out.folder).Tags()["scalars"]
    assert {"accuracy/1_a_b", "accuracy/2_a_b"} <= set(tags)


def test_independent_tasks(tmp_path, tiny_scenario, blank):
    out = go(tiny_scenario, tmp_path, scenario=["independent=true"])
    board = events(out.folder)
    assert [e.step for e in board.Scalars("accuracy/2_cold")] == [0, 2]
    assert board.Scalars("stream/last")[-1].value == pytest.approx(out.results["last"])
    tag, *_ = [tag for tag in board.Tags()["scalars"] if tag.startswith("retention/")]
    kept = list(out.results["retention"].values())[0]
    assert board.Scalars(tag)[-1].value == pytest.approx(kept)
    assert f"{kept:+.2f} points" in str(board.Tensors("accuracy/text_summary")[-1].tensor_proto)
    assert not any(tag.startswith(("forgetting/", "feature_similarity/")) for tag in board.Tags()["scalars"])


def test_without_analysis(tmp_path, tiny_scenario, blank):
    out = go(tiny_scenario, tmp_path, analysis=False)
    assert set(events(out.folder).Tags()["images"]) == {"accuracy_matrix", "accuracy_by_task"}


def test_the_command_tells_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    missing = CliRunner().invoke(app, ["tensorboard", "nowhere"])
    assert "there is no such folder" in str(missing.exception)
    empty = CliRunner().invoke(app, ["tensorboard", "."])
    assert "holds no run that TensorBoard could show" in str(empty.exception)


def test_the_command_serves_the_folder(done, monkeypatch):
    from tensorboard import program

    asked = []
    monkeypatch.setattr(program.TensorBoard, "launch", lambda self: asked.append(self.flags) or "http://h:1/")
    monkeypatch.setattr(
        "threading.Event.wait", lambda self, timeout=None: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    told = CliRunner().invoke(app, ["tensorboard", str(done.folder), "--port", "0"])
    assert told.exit_code == 130
    assert told.output.startswith("http://h:1/?smoothing=0#custom_scalars&_smoothingWeight=0\n")
    assert asked[0].logdir == str(done.folder) and asked[0].port == 0 and asked[0].host == "localhost"


@pytest.mark.parametrize(("tasks", "independent"), [(2, False), (2, True), (200, False)])
def test_pictures_of_the_stream_stay_of_bearable_size(tasks, independent):
    rows = np.random.default_rng(0).random((tasks + 1, tasks))
    if independent:  # every model answers to its own task alone
        rows[1:][~np.eye(tasks, dtype=bool)] = np.nan
    names = [f"task number {index}" for index in range(tasks)]
    states = range(1, tasks + 1)
    for picture in (matrix_image(rows, names, states), curves_image(rows, names, states)):
        assert picture.dtype == np.uint8 and picture.shape[2] == 3
        assert 100_000 < picture.nbytes < 6_000_000
        assert (picture[:, -1] == 255).all() and (picture[0] == 255).all(), "something reaches over the edge"
