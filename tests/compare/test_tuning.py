"""tune: what it may change, how it chooses within a time and above a floor, and what it leaves."""

from __future__ import annotations

import csv
import functools
import itertools
import json
import shlex
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from builders.commands import cli
from builders.places import LONG
from builders.processes import start
from builders.trials import Answering, Here, outcome, tuned
from cl_complora.compare import tuning as module
from cl_complora.compare.tunable import axes_of, grid_of
from cl_complora.compare.tuned import command, place_of, save
from cl_complora.compare.tuning import TuningRequest, prepare, tune
from cl_complora.config import load_strategy
from cl_complora.config.catalog import shipped
from cl_complora.errors import UserError
from cl_complora.run import worker_processes
from cl_complora.run.signals import exit_code_of

LR, STEPS, ENERGY = "optimiser.lr", "training.steps", "adapter.subspace.keep.energy"


@pytest.fixture
def asked(tiny_scenario, tiny_strategy):
    return TuningRequest(str(tiny_scenario), str(tiny_strategy))


def test_only_what_a_strategy_has_is_tuned():
    def keys(name: str, *settings: str) -> list[str]:
        return list(grid_of(name, settings, [64]))

    assert keys("complora-protected") == [LR, "optimiser.rates.text", STEPS, ENERGY]
    assert keys("tokens") == [LR, STEPS] and keys("linear-probe") == keys("zeroshot") == []
    assert (
        keys("complora-protected", "optimiser.rates={vision: 1e-3, text: 1e-3}")[0]
        == "optimiser.rates.vision"
    )
    assert ENERGY not in keys("complora-protected", "adapter.subspace.keep={number: 3}")
    assert keys("tokens", "training.steps=auto") == [LR, "training.epochs"]
    # All of it lies within the bounds: nothing would change.
    assert keys("tokens", "training.steps=auto", "training.epochs=1") == [LR]


def test_the_grid_begins_at_the_values_of_the_strategy():
    grid = grid_of(
        "complora-protected", ["optimiser.lr=1.23456e-3", "training.steps=5", f"{ENERGY}=0.6"], [64]
    )
    assert grid[LR][0] == 1.23456e-3 and grid[LR][4] == 0.0123 and min(grid[LR]) == -8
    assert grid[STEPS] == {-1: 3, 0: 5, 1: 10}
    assert grid[ENERGY] == {-1: 0.5, 0: 0.6, 1: 0.75, 2: 0.9}
    assert grid_of("complora-protected", ["training.average_every=40"], [64])[STEPS] == {0: 40, 1: 80}
    assert [axis.moves for axis in axes_of(grid)] == [(0, 1), (2,), (3,), (0,), (1,)]


def test_the_best_is_found_and_the_floor_holds(monkeypatch, asked):
    def answer(settings):
        rate = settings.get(LR, 5e-3) / 5e-3
        return outcome(40 + 10 * min(rate, 3), -2 * rate)  # faster learns more and forgets more

    found, answering = tuned(monkeypatch, asked, answer)
    chosen = dict(found.chosen)
    assert found.complete and chosen[LR] == 5e-3 and found.floor == -3
    assert len(answering.tried) == len({tuple(one.items()) for one in answering.tried}) == len(found.curve)
    loose, _ = tuned(monkeypatch, TuningRequest(asked.scenario, asked.strategy, floor=-8), answer)
    assert dict(loose.chosen)[LR] == 0.0158
    strict, _ = tuned(monkeypatch, TuningRequest(asked.scenario, asked.strategy, floor=0.0), answer)
    assert not strict.is_above_floor(strict.found(strict.chosen)) and dict(strict.chosen)[LR] == 5e-5


class BySeed(Answering):
    """The first seed likes low rates, the others all the more the high ones."""

    def run(self, trials, report):
        found = []
        for one in trials:
            rate = dict(one.settings).get(LR, 5e-3) / 5e-3
            self.tried.append({"seed": one.seed, **dict(one.settings)})
            found.append(outcome(50 - rate if one.seed == 0 else 50 + 3 * rate, -1))
            self.now += 60 / self.placing.jobs
        return found


@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_settings_are_chosen_by_the_mean_over_all_seeds(monkeypatch, asked, jobs):
    request = TuningRequest(asked.scenario, asked.strategy, seeds=(0, 1), minutes=1000)
    found, answering = prepare(request), BySeed(None)
    monkeypatch.setattr(module, "open_workers", answering)
    tune(found, Path("nowhere"), jobs, clock=lambda: answering.now)
    assert dict(found.chosen)[LR] == max(dict(p["settings"])[LR] for p in found.curve) > 5e-3
    for one in found.curve:
        rate = one["settings"][LR] / 5e-3
        assert one["last"] == one["score"] == pytest.approx(50 + rate)
    assert [row["seed"] for row in answering.tried] == [0, 1] * len(found.curve)


@pytest.mark.parametrize(("jobs", "tried"), [(1, 4), (2, 8)])
def test_every_seed_takes_its_time(monkeypatch, asked, jobs, tried):
    """Four and a half minutes, and one for every trial."""
    request = TuningRequest(asked.scenario, asked.strategy, seeds=(0, 1), minutes=4.5)
    found, answering = prepare(request), BySeed(None)
    monkeypatch.setattr(module, "open_workers", answering)
    tune(found, Path("nowhere"), jobs, clock=lambda: answering.now)
    assert not found.complete and len(answering.tried) == tried


def test_independent_tasks_have_no_average_to_choose_by(asked):
    request = TuningRequest(
        asked.scenario, asked.strategy, metric="average", scenario_settings=("independent=true",)
    )
    with pytest.raises(UserError, match="--metric average: independent tasks have none"):
        prepare(request)


def test_of_equals_what_the_strategy_had_is_kept(monkeypatch, asked):
    found, _ = tuned(monkeypatch, asked, lambda settings: outcome(50, -1))
    assert found.changed(found.chosen) == ()


@pytest.mark.parametrize(("minutes", "jobs", "most"), [(0.5, 1, 1), (5.5, 1, 5), (2.5, 2, 5)])
def test_it_stops_within_its_time(monkeypatch, asked, minutes, jobs, most):
    request = TuningRequest(asked.scenario, asked.strategy, minutes=minutes)
    found, answering = tuned(monkeypatch, request, lambda s: outcome(1e3 * s.get(LR, 5e-3), -1), jobs)
    assert not found.complete and 1 <= len(found.curve) <= most
    assert answering.now <= max(60.0, 60 * minutes)


def test_more_steps_are_known_to_take_longer(monkeypatch, asked):
    """A minute a trial, of which half is training: with twice the steps one and a half."""
    request = TuningRequest(asked.scenario, asked.strategy, minutes=100)
    found = prepare(request)
    pace = module.Pace()
    pace.learn(outcome(50, seconds=60), 1.0)
    assert [pace.seconds(factor) for factor in (0.5, 1, 2)] == [45, 60, 90]
    place = tuple(int(key == STEPS) for key in found.grid)
    assert found.steps_factor(place) == 2


def test_rates_that_cannot_be_trained_are_left_behind(monkeypatch, asked):
    def answer(settings):
        rate = settings.get(LR, 5e-3)
        return outcome(0, error="it diverged") if rate > 1e-3 else outcome(50, -1)

    found, _ = tuned(monkeypatch, asked, answer)
    assert dict(found.chosen)[LR] <= 1e-3 and found.curve[0]["error"] == "it diverged"
    with pytest.raises(UserError, match="could be trained: it diverged"):
        tuned(monkeypatch, asked, lambda settings: outcome(0, error="it diverged"))


def test_a_trial_that_the_machine_took_is_no_rate_that_cannot_be_trained(monkeypatch, asked):
    def answer(settings):
        rate = settings.get(LR, 5e-3)
        return outcome(0, error="killed", lost=True) if rate == 1.58e-2 else outcome(1e3 * rate, 0)

    assert 1.58e-2 in prepare(asked).grid[LR].values()
    with pytest.raises(UserError, match="the search lacks 1 run, .* goes on with what is there") as told:
        tuned(monkeypatch, asked, answer)
    assert any("killed" in line for line in told.value.messages)


@pytest.mark.parametrize("name", [name for name in shipped("strategy") if grid_of(name, (), [64])])
def test_the_file_is_the_strategy_with_what_was_chosen(name, monkeypatch, tmp_path, asked):
    request = TuningRequest(asked.scenario, name, minutes=3, strategy_settings=("training.batch_size=7",))
    found, _ = tuned(monkeypatch, request, lambda s: outcome(50 - 10 * (not s), -1))
    (key, value), *_ = found.changed(found.chosen)
    written = save(found, tmp_path / "mine.yaml")[0]
    again = load_strategy(str(written)).value
    settings = [f"{key}={value}" for key, value in found.chosen]
    expected = load_strategy(name, [*request.strategy_settings, *settings]).value
    same = {"name": f"{expected.name}-tuned", "sweep": {}, "about": None}
    assert again == expected.model_copy(update=same)
    assert f"#   {key}: {value:g} (was" in written.read_text()


def test_texts_that_look_like_numbers_stay_texts(monkeypatch, tmp_path, asked):
    strategy = tmp_path / "odd.yaml"
    text = Path(asked.strategy).read_text() + "description: '1e-3'\n"
    strategy.write_text(
        text + "plugin: odd:Odd\nsettings: {a: '1e-3', b: 'no', c: 'x: [', d: [1e-05, 'null']}\n"
    )
    (tmp_path / "odd.py").touch()
    found, _ = tuned(monkeypatch, TuningRequest(asked.scenario, str(strategy)), lambda s: outcome(50, -1))
    file = place_of(found, tmp_path / "runs")
    assert file.parent == tmp_path  # where its plugin is
    again = load_strategy(str(save(found, file)[0])).value
    assert again.settings == load_strategy(str(strategy)).value.settings and again.description == "1e-3"
    with pytest.raises(UserError, match=r"must lie in .*beside odd\.py"):
        place_of(found, tmp_path / "runs", tmp_path / "runs" / "x.yaml")
    with pytest.raises(UserError, match="is the strategy that is tuned"):
        place_of(found, tmp_path / "runs", strategy)


def test_without_zero_shot_images_no_floor_holds(monkeypatch, tmp_path, asked, class_folders):
    request = TuningRequest(asked.scenario, asked.strategy, scenario_settings=("zero_shot=[]",))
    all_tested = ("zero_shot.0.source.test_fraction=1.0", f"zero_shot.0.source.root={class_folders}/train")
    all_tested += ("zero_shot.0.images=null", "reference=null")
    other = prepare(TuningRequest(asked.scenario, asked.strategy, scenario_settings=all_tested))
    assert other.floor is None and "--set zero_shot.0.images=12 leaves some" in other.unmeasured
    found, _ = tuned(monkeypatch, request, lambda s: outcome(50))
    assert found.floor is None and found.held_out == ()
    text = save(found, tmp_path / "x.yaml")[0].read_text()
    assert "Floor: none: tiny has no zero-shot set" in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--strategy", "linear-probe"], "has no rate, steps or energy"),
        (["--strategy", "nothing"], "no strategy named 'nothing'"),
        (["--budget", "0"], "--budget 0: must be greater than 0"),
        (["--budget", "nan"], "--budget nan: must be a finite number"),
        (["--floor", "inf"], "--floor inf: must be a finite number"),
        (["--floor", "3"], "--floor 3: must be at most 0; -3 is a loss of at most 3 points"),
        (
            ["--floor=-3", "--set", "zero_shot=[]"],
            "--floor -3: retention cannot be measured: tiny has no",
        ),
        (
            ["--metric", "harmonic", "--set", "zero_shot=[]"],
            "--metric harmonic: retention cannot be measured",
        ),
        (["--metric", "best"], "must be one of last, average, harmonic"),
        (["--validation-shots", "9"], "9 for validation a class"),
        (["--validation-shots", "3", "--set", "validation_shots=2"], "the same is set twice"),
        (["--set", "measure=test"], "--set measure=test: has no effect: settings are chosen on"),
        (["--seeds", "0", "--set", "seeds=[5]"], "--set seeds=[5]: has no effect beside --seeds"),
        (["--seeds", "0,0"], "different whole numbers"),
        (["--device", "gpu"], "must be auto, cpu"),
        (["--output", "x.txt"], "must be called .yaml"),
        (["--output", "/proc/x.yaml"], "--output /proc/x.yaml: cannot be written: "),
        (["--set", "shots=6"], "6 shots and 1 for validation a class"),
        (["--set", "shots=6"], "--set shots=5 would do"),
        (["--set", "shots=6", "-s", "zeroshot"], "so there is nothing to tune"),
        (["--set", "training.stepz=6"], "training.stepz"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_run(
    words, told, tmp_path, tiny_scenario, monkeypatch, capsys
):
    code, _, err = cli(monkeypatch, capsys, "tune", tiny_scenario, "--out", tmp_path / "runs", *words)
    assert code == 2 and told in err and all(line.startswith("error: ") for line in err.splitlines())
    assert not (tmp_path / "runs").exists()


def test_the_command_that_uses_it_is_one_that_a_run_takes(monkeypatch, tmp_path, asked):
    settings = ("seeds=[0]", "scenario.shots=2")
    found, _ = tuned(monkeypatch, replace(asked, scenario_settings=settings), lambda s: outcome(50))
    assert command(found, tmp_path / "x.yaml").endswith("x.yaml --set scenario.shots=2")


OPENED: list[str] | None = None


def _note_opened(event: str, arguments: tuple) -> None:
    if OPENED is not None and event == "open":
        OPENED.append(str(arguments[0]))


@pytest.fixture
def opened(monkeypatch):
    """Names of all files that are opened, by an audit hook, which cannot be taken off again."""
    if not getattr(sys, "_cl_complora_audited", False):
        sys.addaudithook(_note_opened)
        sys._cl_complora_audited = True
    monkeypatch.setitem(globals(), "OPENED", [])
    return globals()["OPENED"]


def test_a_user_tunes_uses_and_goes_on(
    tmp_path, tiny_scenario, tiny_strategy, class_folders, monkeypatch, capsys, opened
):
    monkeypatch.setattr(worker_processes, "ProcessPoolExecutor", Here)
    monkeypatch.chdir(tmp_path)
    words = ["tune", tiny_scenario, "-s", tiny_strategy, "--set", "training.steps=1", "--set", "test_limit=2"]
    words += ["--floor=-100"]
    code, out, err = cli(monkeypatch, capsys, *words, "--budget", "0.0001")
    assert code == 0, err
    assert "1 combination," in out and "the same command goes on for another" in out
    # A third of a minute passes from one look at the clock to the next: there is time for two more.
    clock = itertools.count(0, 20).__next__
    monkeypatch.setattr(module, "tune", functools.partial(tune, clock=clock))
    code, out, err = cli(monkeypatch, capsys, *words, "--budget", "1")
    assert code == 0, err
    assert "found finished" in out and "tiny/quick-tuned.yaml" in out
    pictures = {Path(name) for name in opened if name.startswith(str(class_folders))}
    assert any("train" in path.parts for path in pictures)
    assert not [path for path in pictures if (class_folders / "test") in path.parents]

    rows = list(csv.DictReader((tmp_path / "runs/tiny/quick-tuned.csv").open()))
    told = json.loads((tmp_path / "runs/tiny/quick-tuned.json").read_text())
    assert len(rows) == len(told["tried"]) > 1 and told["before"][STEPS] == 1
    assert {LR, STEPS, ENERGY, "last", "retention"} <= set(rows[0])
    text = (tmp_path / "runs/tiny/quick-tuned.yaml").read_text()
    command = text.splitlines()[0].partition("Run: ")[2]
    assert command in out and "no test image was opened" in text and "-100 points" in text
    program, *run = shlex.split(command)
    code, out, err = cli(monkeypatch, capsys, *run)
    assert program == "cl-complora" and code == 0, err
    assert (tmp_path / "runs/tiny/quick-tuned/seed0/results.json").exists()


def test_what_no_setting_would_change_ends_the_search(
    tmp_path, tiny_scenario, tiny_strategy, monkeypatch, capsys
):
    monkeypatch.setattr(worker_processes, "ProcessPoolExecutor", Here)
    strategy = tmp_path / "own.yaml"
    strategy.write_text(tiny_strategy.read_text() + "plugin: own:Own\n")
    command = ["tune", tiny_scenario, "-s", strategy, "--out", tmp_path / "runs"]
    code, out, err = cli(monkeypatch, capsys, *command)
    assert code == 2 and "allow it with --allow-plugins" in err and err.count("\n") == 1
    assert out.count("allow it with") == 1  # one trial


# Ctrl-C is Python's own KeyboardInterrupt, which SIGTERM has to be made into.
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT] if LONG else [signal.SIGTERM])
def test_interrupted_it_says_that_it_goes_on(tmp_path, tiny_scenario, tiny_strategy, number):
    command = ["tune", tiny_scenario, "-s", tiny_strategy, "--out", tmp_path / "runs"]
    process = start(*command)
    process.wait_for(lambda: "  1 " in process.said())
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == 128 + number, err
    assert exit_code_of(KeyboardInterrupt()) == 128 + signal.SIGINT
    assert "finished trials; the same command goes on" in err
    assert "Traceback" not in err
    again = start(*command, "--budget", "0.0001")
    out, err = again.communicate()
    assert again.returncode == 0 and "found finished" in out, out + err
