"""--log: what TensorBoard is told goes to trackers too, and a tracker that fails ends nothing but itself."""

from __future__ import annotations

import re
import sys
import types
from importlib.machinery import ModuleSpec
from importlib.util import find_spec

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import cl_complora
from builders.commands import cli
from cl_complora.errors import UserError
from cl_complora.report import trackers


class Recording(types.ModuleType):
    """A tracker's package that remembers what it is told."""

    def __init__(self, name: str, fails_after: int = 10**9) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.logged: list[dict] = []
        self.params: dict = {}
        self.named, self.ended, self.fails_after = "", 0, fails_after

    def _take(self, told: dict) -> None:
        if len(self.logged) >= self.fails_after:
            raise ConnectionError("the server is gone")
        self.logged.append(told)

    # As of wandb and trackio.
    def init(self, project, name, config, **own):
        self.named, self.params = name, config
        return self

    def log(self, told):
        self._take(told)

    def finish(self):
        self.ended += 1

    def Image(self, picture):  # noqa: N802 - their name
        assert picture.dtype == np.uint8 and picture.shape[2] == 3
        return "picture"

    # As of MLflow.
    def set_experiment(self, name):
        pass

    def start_run(self, run_name):
        self.named = run_name

    def log_params(self, params):
        assert all(isinstance(value, str) and len(value) <= 500 for value in params.values())
        if refused := [key for key in params if not re.fullmatch(r"[\w\-. :/]*", key)]:
            raise ValueError(f"Invalid value {refused[0]}")
        self.params = params

    def log_metric(self, key, value, step):
        self._take({key: value, "step": step})

    def log_image(self, picture, artifact_file):
        self._take({artifact_file: "picture"})

    def end_run(self):
        self.ended += 1


@pytest.fixture
def package(monkeypatch):
    def install(name: str, **options) -> Recording:
        module = Recording(name, **options)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return install


def board(folder) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder / "tensorboard"), {"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_a_tracker_gets_the_scalars_and_figures_of_tensorboard(
    package, name, tmp_path, tiny_scenario, tiny_strategy
):
    module = package(name)
    made = cl_complora.run(
        tiny_scenario, tiny_strategy, out=tmp_path, settings={"training.steps": 2}, log=[name]
    )
    assert module.named == "tiny · quick · seed 0" and module.ended == 1
    told: dict[str, list[tuple[int, float]]] = {}
    for entry in module.logged:
        (tag, value), (axis, step) = entry.items() if len(entry) == 2 else (*entry.items(), ("", 0))
        if value != "picture":
            assert axis == (
                "step" if name == "mlflow" else trackers.STEPS if tag.startswith("train/") else trackers.TASKS
            )
            told.setdefault(tag, []).append((step, pytest.approx(value, abs=1e-5)))
    shown = {tag: v for tag, v in board(made.folder).items() if not tag.startswith("_hparams_")}
    assert told.keys() == shown.keys() - {"hp_metric"}
    assert all(shown[tag] == values for tag, values in told.items())
    assert any("accuracy_matrix" in tag for entry in module.logged for tag in entry)
    assert any("steps" in key for key in trackers.flat(module.params))


def test_signs_that_mlflow_refuses_are_left_out_of_keys(package, tmp_path):
    """Such as those in the name of a task, which may have splits of its own."""
    module = package("mlflow")
    trackers._OfMlflow(module, "tiny", {"splits": {"warm + more": "split.json"}}, tmp_path)
    assert module.params == {"splits.warm _ more": "split.json"}


def test_a_run_of_mlflow_that_is_refused_is_ended(package, tmp_path, monkeypatch):
    module = package("mlflow")
    monkeypatch.setattr(trackers, "_mlflow_key", lambda key: f"{key}+")
    with pytest.raises(ValueError, match="Invalid value"):
        trackers._OfMlflow(module, "tiny", {"seed": 0}, tmp_path)
    assert module.ended == 1


def test_a_tracker_that_fails_is_told_once_and_the_run_ends_well(
    package, tmp_path, tiny_scenario, tiny_strategy, capsys
):
    package("wandb", fails_after=3)
    options = {"out": tmp_path, "settings": {"training.steps": 1}, "progress": True}
    made = cl_complora.run(tiny_scenario, tiny_strategy, log="wandb", **options)
    said = capsys.readouterr().out
    assert made.results["status"] == "done" and len(board(made.folder)) > 5
    assert said.count("no more is logged there (ConnectionError: the server is gone)") == 1
    cl_complora.run(tiny_scenario, tiny_strategy, log="wandb", **options)
    assert "found finished: nothing is told to wandb" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, told", [("tensorbord", "must be one of wandb, mlflow, trackio"), ("mlflow", "pip inst")]
)
def test_what_cannot_be_logged_to_is_told_first(monkeypatch, capsys, tmp_path, name, told):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    code, _, err = cli(monkeypatch, capsys, "run", "embedded", "--log", name)
    assert code == 2 and err.startswith(f"error: --log {name}: ") and told in err
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match=rf"^log {name}"):
        cl_complora.run("embedded", log=[name])


@pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed")
def test_wandb_itself_takes_it_offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    said: list[str] = []
    (tracker,) = trackers.open_trackers(["wandb"], "a run", {"training": {"steps": 3}}, tmp_path, said.append)
    tracker.scalar("accuracy/a", 0.5, 0)
    tracker.scalar("train/loss", 1.5, 1)
    tracker.figure("stream/matrix", np.zeros((4, 4, 3), np.uint8), 0)
    tracker.end()
    assert not said and list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_a_tracker_that_is_named_twice_is_refused():
    with pytest.raises(UserError, match="--log wandb: stands twice; each may stand once"):
        trackers.check_trackers(["wandb", "wandb"])
