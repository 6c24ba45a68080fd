"""A comparison of runs that are there: no worker, no torch, the same table; and what makes a run no longer
the one that was asked for."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from builders.runs import STRATEGY
from cl_complora.compare import found_finished, worker_kinds
from cl_complora.compare.found_finished import FoundFinished
from cl_complora.compare.outcomes import folder_of
from cl_complora.compare.study import Request, compare, prepare
from cl_complora.compare.trial_folders import TrialFolders
from cl_complora.compare.trials import trial
from cl_complora.compare.weight_files import weights_known_by
from cl_complora.compare.worker_kinds import open_workers
from cl_complora.compare.workers import Placing, run_trial
from cl_complora.config import Scenario, load_scenario
from cl_complora.errors import UserError
from cl_complora.store.arrays import read_arrays
from cl_complora.store.tensors import read_tensors, with_checksum


@pytest.fixture(scope="module")
def request_(tiny_scenario, tmp_path_factory):
    strategy = tmp_path_factory.mktemp("methods") / "quick.yaml"
    strategy.write_text(STRATEGY.format(name="quick") + "sweep: {optimiser.lr: [1e-3, 5e-3]}\n")
    return Request(str(tiny_scenario), (str(strategy), "zeroshot"), (0,), sweep={}, validation_shots=2)


@pytest.fixture(scope="module")
def here():
    """Workers that run in this process."""

    class Here:
        def __init__(self, placing, tell=None):
            self.placing, self.ran = placing, []

        def __enter__(self):
            return self

        def __exit__(self, *error): ...

        def run(self, trials, report):
            outcomes = [run_trial(t, self.placing, "cpu") for t in trials]
            self.ran += trials
            for pair in zip(trials, outcomes, strict=True):
                report(*pair)
            return outcomes

    return Here


@pytest.fixture(scope="module")
def finished(request_, tmp_path_factory, here):
    """The first comparison, and the folder of its runs."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker_kinds, "Processes", here)
        return compare(request_, out), out


@pytest.fixture
def none_opened(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("workers were opened")

    monkeypatch.setattr(worker_kinds, "Processes", refuse)
    monkeypatch.setattr(worker_kinds, "RayTasks", refuse)


@pytest.mark.parametrize("cluster", [None, "auto"])
def test_finished_runs_start_nothing(finished, request_, none_opened, cluster):
    first, out = finished
    told = []
    again = compare(request_, out, report=lambda *line: told.append(line), cluster=cluster)
    assert again.content() == first.content()
    lines = [(outcome.told().split(" · ")[1], done, total) for _, outcome, done, total in told]
    assert lines == [("found finished", done, total) for total in (2,) for done in (1, 2)] * 2


def test_neither_torch_nor_a_model_is_loaded_for_them(finished, request_):
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from cl_complora.compare.study import Request, compare\n"
        "from cl_complora.report.comparison.saving import save\n"
        f"found = compare({request_!r}, Path({str(finished[1])!r}))\n"
        "save(found.content(), Path(sys.argv[1]))\n"
        "assert all(outcome.reused for _, outcome in found.trials) and len(found.trials) == 4\n"
        "assert not {'torch', 'open_clip', 'avalanche'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program, finished[1] / "saved"], check=True)


def test_only_what_is_missing_is_run(finished, request_, here, monkeypatch):
    first, out = finished
    monkeypatch.setattr(worker_kinds, "Processes", here)
    prepared = prepare(replace(request_, seeds=(1, 0)))
    told = []
    with open_workers(Placing(out)) as workers:
        tests = prepared.tests(first_methods(first, prepared))
        outcomes = workers.run(tests, lambda t, outcome: told.append(t))
        assert [t.seed for t in workers._opened.ran] == [1, 1]
    # What is there is told first; what is given back stands in the order of the trials.
    assert [t.seed for t in told] == [0, 0, 1, 1]
    assert [outcome.results["seed"] for outcome in outcomes] == [1, 0, 1, 0]
    assert [outcome.reused for outcome in outcomes] == [False, True, False, True]


def first_methods(first, prepared):
    return dict(zip(prepared.names, first.methods, strict=True))


def of_zeroshot(scenario, *settings):
    return trial("zeroshot", (), 0, load_scenario(str(scenario), settings))


@pytest.fixture
def one(tmp_path, tiny_scenario, tiny_files):
    """A finished trial with a copy of the tiny model's files of its own."""
    config, weights = tiny_files
    text = tiny_scenario.read_text()
    for file in (config, weights):
        copy = tmp_path / file.name
        copy.write_bytes(file.read_bytes())
        text = text.replace(str(file), str(copy))
    scenario = tmp_path / "tiny.yaml"
    scenario.write_text(text)
    placing, t = Placing(tmp_path / "runs"), of_zeroshot(scenario)
    assert FoundFinished(placing.out).outcome(t) is None
    assert not run_trial(t, placing, "cpu").error
    return t, placing, scenario, tmp_path / weights.name, folder_of(t, placing.out)


def found(t, placing) -> bool:
    outcome = FoundFinished(placing.out).outcome(t)
    return outcome is not None and outcome.reused and outcome.error is None


def test_what_a_run_depends_on_is_looked_at_again(one, monkeypatch):
    t, placing, scenario, weights, folder = one
    assert found(t, placing)
    assert not found(of_zeroshot(scenario, "tasks.0.classes=[red, green]"), placing)
    assert not found(of_zeroshot(scenario, "model.mean=[0.1, 0.1, 0.1]"), placing)
    with monkeypatch.context() as patch:
        patch.setattr(found_finished, "software", lambda: {"torch": "0.1"})
        assert not found(t, placing)
    with folder.locked():  # who looks at a finished run is in nobody's way, nor is anybody in theirs
        assert found(t, placing)
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert not found(t, placing)
    weights.write_bytes(content)
    assert found(t, placing)


def test_a_run_that_is_changed_while_it_is_read_is_left_to_a_worker(one, monkeypatch):
    t, placing, _, _, folder = one
    read = found_finished.kept_by

    def meanwhile(of, results):
        folder.results.write_text(folder.results.read_text() + " ")
        return read(of, results)

    monkeypatch.setattr(found_finished, "kept_by", meanwhile)
    assert FoundFinished(placing.out).outcome(t) is None


def test_words_beside_a_models_config_are_looked_at(one):
    t, placing, _, weights, _ = one
    merges = weights.with_name("bpe.txt.gz")
    merges.write_bytes(b"others")
    assert not found(t, placing)
    merges.unlink()
    assert found(t, placing)


def test_published_weights_of_another_tag_are_other_weights(tmp_path, tiny_scenario):
    """They are no file here, and nothing may load them to see."""
    lines = tiny_scenario.read_text().splitlines()
    scenario = tmp_path / "tags.yaml"
    scenario.write_text("\n".join("model: {name: ViT-S-32-alt}" if "model:" in x else x for x in lines))
    placing, t = Placing(tmp_path / "runs"), of_zeroshot(scenario)
    assert not run_trial(t, placing, "cpu").error
    assert found(t, placing)
    TrialFolders(placing.out).check(t)
    tagged = of_zeroshot(scenario, "model.pretrained=openai")
    assert not found(tagged, placing)
    with pytest.raises(UserError, match="made with scenario.model.pretrained = None, now it is openai"):
        TrialFolders(placing.out).check(tagged)


def test_what_is_published_of_a_model_of_ones_own_knows_its_config_and_words(tmp_path):
    config = tmp_path / "c.json"
    config.write_text("{}")
    source = {"kind": "folder", "root": "pictures"}
    scenario = Scenario(
        name="s",
        model={"name": "mine", "config": "c.json"},
        tasks=[{"name": "a", "source": source}],
    )
    known = [weights_known_by(scenario, tmp_path)]
    config.write_text("{ }")
    known.append(weights_known_by(scenario, tmp_path))
    (tmp_path / "c.bpe.txt.gz").write_bytes(b"words")
    known.append(weights_known_by(scenario, tmp_path))
    assert len(set(known)) == 3 and all(one.startswith("mine, None") for one in known)


def test_a_damaged_run_is_left_to_a_worker(one):
    t, placing, _, _, folder = one
    delta = next((folder.root / "deltas").iterdir())
    for path in (folder.results, folder.updates, folder.config, folder.checked, folder.classes, delta):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert not found(t, placing), path
        path.unlink()
        assert not found(t, placing), path
        path.write_bytes(content)
        assert found(t, placing)
    folder.checked.unlink()
    assert run_trial(t, placing, "cpu").reused and found(t, placing)


@pytest.mark.parametrize("content", ["[]", '[{"norm": 1.0}, {"norm": 1.0}]', "{}"])
def test_updates_that_an_earlier_version_noted_as_they_were_are_measured_again(one, content):
    t, placing, _, _, folder = one
    folder.updates.write_text(content)
    found_finished.note_checked(t, folder)
    assert not found(t, placing)
    outcome = run_trial(t, placing, "cpu")
    assert outcome.error is None and len(outcome.updates) == len(outcome.results["tasks"])
    assert found(t, placing)


def test_arrays_are_read_as_tensors_are(tmp_path):
    tensors = {
        "a/label": torch.tensor([3, 1], dtype=torch.int32),
        "a/share": torch.rand(2),
        "none": torch.ones(0),
    }
    path = tmp_path / "answers.safetensors"
    path.write_bytes(with_checksum(tensors, "answers"))
    arrays = read_arrays(path)
    assert arrays.keys() == tensors.keys() == read_tensors(path).keys()
    assert all(np.array_equal(arrays[name], tensors[name].numpy()) for name in tensors)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="does not have the checksum"):
        read_arrays(path)
    path.unlink()
    with pytest.raises(UserError, match="damaged"):
        read_arrays(path)
