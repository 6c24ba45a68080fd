"""What the arguments of functions may be: refused by name and value before anything is begun, and whatever
counts as such is taken."""

from __future__ import annotations

import pickle
from os import PathLike
from pathlib import Path

import numpy as np
import pytest

import cl_complora
from cl_complora import UserError
from cl_complora.api import arguments
from cl_complora.api.wording import overrides_of
from cl_complora.config.overrides import split_overrides
from cl_complora.progress import Quiet
from cl_complora.run.devices import device_of

DEVICES = "must be auto, cpu, cuda or cuda:<n>"
FOR_A_SWEEP = "is for a sweep; leave it out, or give sweep as well (True, or a mapping"
FLAG = "must be True or False, got"
SEEDS = "seeds: must be a list of different whole numbers such as [0, 1, 2], got"


class Place(PathLike):
    def __init__(self, place):
        self.place = place

    def __fspath__(self):
        return self.place


@pytest.mark.parametrize(
    "given, told",
    [
        ({"device": "gpu"}, f"device gpu: {DEVICES}"),
        ({"device": "cuda:"}, f"device cuda:: {DEVICES}"),
        ({"device": "cuda:01"}, f"device cuda:01: {DEVICES}"),
        ({"device": "cuda:²"}, f"device cuda:²: {DEVICES}"),
        ({"device": 0}, "device: must be a text such as 'auto', 'cpu', 'cuda' or 'cuda:1', got 0"),
        ({"out": "a\0b"}, "out: must be a path, got 'a\\x00b'"),
        ({"progress": Quiet}, "progress: must be True, False, None or an object with the methods message, "),
        ({"settings": {"seeds": [3]}},
         "settings['seeds']: has no effect in a run, whose seed is said with seed"),
        ({"settings": {"sweep.lr": [1]}},
         "settings['sweep.lr']: has no effect in a run, which sweeps nothing"),
        ({"settings": {"seed": 3}}, "settings['seed']: unknown key; the seed of a run is said with seed"),
        ({"out": 3}, "out: must be a path, got 3"),
        ({"out": b"runs"}, "out: must be a path, got b'runs'"),
        ({"out": Place(b"runs")}, "out: must be a path, got <"),
        ({"variant": 5}, "variant: must be a text, got 5"),
        ({"progress": "yes"}, "progress: must be True, False, None or an object with the methods message, "),
        ({"save_every": -1}, "save_every: must be a number of seconds, at least 0, got -1"),
        ({"save_every": "x"}, "save_every: must be a number of seconds, at least 0, got 'x'"),
        ({"save_every": float("nan")}, "save_every: must be a number of seconds, at least 0, got nan"),
        ({"fresh": "no"}, f"fresh: {FLAG} 'no'"),
        ({"evaluate": "no"}, f"evaluate: {FLAG} 'no'"),
        ({"analysis": None}, f"analysis: {FLAG} None"),
        ({"allow_plugins": "no"}, f"allow_plugins: {FLAG} 'no'"),
        ({"elsewhere": 1}, f"elsewhere: {FLAG} 1"),
        ({"log": 3}, "log: must be texts, got 3"),
        ({"log": [["wandb"]]}, "log: must be texts, got [['wandb']]"),
        ({"settings": {"training.steps": 3, "training": {"steps": 4}}},
         "settings: training.steps=3 and training.steps=4: the same is set twice; leave one of the two out"),
    ],
)  # fmt: skip
def test_a_run_is_not_begun_with_what_cannot_work(tiny_scenario, tiny_strategy, tmp_path, given, told):
    with pytest.raises(UserError) as error:
        cl_complora.run(**({"scenario": tiny_scenario, "strategy": tiny_strategy, "out": tmp_path} | given))
    assert error.value.messages[0].startswith(told)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "given, told",
    [
        ({"name": Path("small.safetensors")}, "small.safetensors: there is no such file"),
        ({"name": "ViT-B-16", "pretrained": ""}, "pretrained: must not be empty"),
        ({"name": "ViT-B-16", "config": ""}, "config: must not be empty"),
        (
            {"name": Path("a.safetensors"), "config": Path("b")},
            "config: an exported checkpoint brings its own",
        ),
        ({"name": Path("ViT-B-61")}, "ViT-B-61: neither a run's folder nor a model (did you mean ViT-B-16?)"),
        ({"name": 3}, "name: must be a path, got 3"),
        ({"name": "ViT-B-16", "pretrained": 3}, "pretrained: must be a path, got 3"),
    ],
)
def test_a_model_is_opened_by_any_path_and_refused_in_a_callers_words(given, told):
    with pytest.raises(UserError) as error:
        cl_complora.open_model(**given)
    assert error.value.messages[0].startswith(told)


def test_weights_that_are_random_are_told_as_a_warning():
    with pytest.warns(UserWarning, match="RN50-quickgelu has random weights"):
        cl_complora.open_model("RN50-quickgelu")


def test_python_shows_all_that_an_error_says(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nshots: 0\ntasks: []\n")
    with pytest.raises(UserError) as told:
        cl_complora.run(path, out=tmp_path)
    shots, tasks = str(told.value).splitlines()
    assert f"{path}:2: shots: must be" in shots and f"{path}:3: tasks: must not be empty" in tasks
    assert str(pickle.loads(pickle.dumps(told.value))) == str(told.value)


@pytest.mark.parametrize(
    "given, told",
    [
        ({"seeds": [0, 0]}, f"{SEEDS} [0, 0]"),
        ({"seeds": 0}, f"{SEEDS} 0"),
        ({"seeds": []}, f"{SEEDS} []"),
        ({"seeds": "0,1"}, f"{SEEDS} '0,1'"),
        ({"seeds": [0, 1.5]}, "seeds: must be a whole number from 0 to 4294967295, got 1.5"),
        ({"sweep": True, "sweep_seeds": [1, 1]}, f"sweep_{SEEDS} [1, 1]"),
        ({"sweep": True, "sweep_seeds": 1}, f"sweep_{SEEDS} 1"),
        ({"jobs": 0}, "jobs: must be a whole number, at least 1, got 0"),
        ({"jobs": "2"}, "jobs: must be a whole number, at least 1, got '2'"),
        ({"jobs": True}, "jobs: must be a whole number, at least 1, got True"),
        ({"sweep": {"lr": []}}, "sweep['lr']: must be a list of numbers such as [1e-4, 3e-4], got []"),
        ({"sweep": {"lr": 1e-3}}, "sweep['lr']: must be a list of numbers such as [1e-4, 3e-4], got 0.001"),
        ({"sweep": {"lr": ["a"]}}, "sweep['lr']: must be a number, got 'a'"),
        ({"sweep": {3: [1]}}, "sweep[3]: the key must be a text such as 'lr'"),
        ({"sweep": {"lr": [1e-3], "optimiser.lr": [1e-4]}},
         "sweep['optimiser.lr']: optimiser.lr is swept twice; give all of its values at once"),
        ({"validation_shots": -2}, "validation_shots: must be a whole number, at least 1, got -2"),
        ({"validation_shots": 0}, "validation_shots: must be a whole number, at least 1, got 0"),
        ({"floor": "-3"}, "floor: must be a number, got '-3'"),
        ({"floor": float("nan")}, "floor nan: must be a finite number"),
        ({"metric": ["last"]}, "metric: must be a text, got ['last']"),
        ({"metric": "last"}, f"metric: {FOR_A_SWEEP}"),
        ({"floor": 3}, "floor 3: must be at most 0; -3 is a loss of at most 3 points"),
        ({"floor": 0}, f"floor: {FOR_A_SWEEP}"),
        ({"validation_shots": 4}, f"validation_shots: {FOR_A_SWEEP}"),
        ({"sweep_seeds": [5]}, f"sweep_seeds: {FOR_A_SWEEP}"),
        ({"elsewhere": "no"}, f"elsewhere: {FLAG} 'no'"),
        ({"reference": 3}, "reference: must be a name or a path, got int"),
        ({"strategies": 3}, "strategies: must be a list of names or paths, got 3"),
        ({"strategies": ["lora", 3]}, "strategies: must be a name or a path, got int"),
        ({"device": "gpu"}, f"device gpu: {DEVICES}"),
        ({"device": 0}, "device: must be a text such as 'auto', 'cpu', 'cuda' or 'cuda:1', got 0"),
        ({"out": 3}, "out: must be a path, got 3"),
        ({"allow_plugins": "no"}, f"allow_plugins: {FLAG} 'no'"),
        ({"progress": "yes"}, f"progress: {FLAG} 'yes'"),
        ({"settings": {"shots": 3, "scenario": {"shots": 4}}},
         "settings: shots=3 and scenario.shots=4: the same is set twice"),
    ],
)  # fmt: skip
def test_nor_is_a_comparison(tiny_scenario, tmp_path, given, told):
    with pytest.raises(UserError) as error:
        cl_complora.compare(**({"scenario": tiny_scenario, "strategies": ["lora"], "out": tmp_path} | given))
    assert error.value.messages[0].startswith(told)
    assert not list(tmp_path.iterdir())


def test_what_is_read_and_written_is_named_by_paths(tiny_run, tmp_path):
    run = cl_complora.load_run(Place(str(tiny_run.folder)))
    assert run.report(Place(str(tmp_path / "page.html"))).exists()
    for call, name in (
        (cl_complora.load_run, "folder"), (cl_complora.load_comparison, "folder"), (run.report, "output")
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"{name}: must be a path, got 3"):
            call(3)


def test_what_counts_as_such_is_taken():
    assert arguments.seeds("seeds", np.arange(2)) == (0, 1) == arguments.seeds("seeds", range(2))
    assert arguments.seeds("sweep_seeds", np.array([], int), may_be_none=True) == ()
    assert arguments.flag("fresh", np.bool_(True)) is True and arguments.whole("jobs", np.int64(2), 1) == 2
    assert arguments.seconds("save_every", float("inf")) > arguments.seconds("save_every", 0) == 0
    assert arguments.texts("log", "wandb") == ["wandb"] and arguments.texts("log", ()) == []
    assert [arguments.shown_by(one) for one in (True, False, None)] == [True, False, None]
    assert isinstance(arguments.shown_by(Quiet()), Quiet)
    assert arguments.named(Place("mine"), "strategy") == "./mine" and arguments.named("mine", "x") == "mine"
    found = arguments.swept({"lr": np.array([1e-3, 2e-3]), "head.steps": (3,)}, {"lr": "optimiser.lr"})
    assert found == {"optimiser.lr": [1e-3, 2e-3], "head.steps": [3]}
    assert all(type(one) in (int, float) for values in found.values() for one in values)
    assert [arguments.swept(one, {}) for one in (True, False)] == [{}, None]


@pytest.mark.parametrize(
    "settings",
    [
        {"tasks.0.shots": 2, "tasks": [{"shots": 3}]},
        {"tasks[0].shots": 2, "tasks": {"0": {"shots": 3}}},
        {"strategy.training.steps": 2, "training": {"steps": 3}},
    ],
)
def test_a_setting_that_another_would_undo_is_refused(settings):
    with pytest.raises(UserError, match="settings: .*: the same is set twice"):
        split_overrides(overrides_of(settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"scenario.description": "a", "strategy.description": "b"},
        {"training": {"steps": 2}, "training.batch_size": 3},
        {"tasks": [{"shots": 3}], "tasks.0.shots": 2},
        {"tasks.1.shots": 2, "tasks.10.shots": 3},
    ],
)
def test_settings_beside_one_another_are_taken(settings):
    assert len(overrides_of(settings)) == 2
    split_overrides(overrides_of(settings))


def test_a_device_of_another_name_is_refused_wherever_it_comes_from():
    with pytest.raises(UserError, match=f"--device gpu: {DEVICES}"):
        device_of("gpu")
