"""What was published is not written over by less; what was made of something else since is replaced."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builders.runs import STRATEGY
from cl_complora.compare import publishing
from cl_complora.compare.publishing import refuse_other_streams
from cl_complora.compare.results_files import Asked, Entry, fingerprint, place
from cl_complora.compare.study import Request
from cl_complora.config import load_scenario, load_strategy
from cl_complora.errors import UserError
from cl_complora.files import write_json

RATES = (1e-3, 5e-3)


@pytest.fixture
def quick(tmp_path) -> str:
    path = tmp_path / "quick.yaml"
    path.write_text(STRATEGY.format(name="quick") + "sweep: {optimiser.lr: [1e-3, 5e-3]}\n")
    return str(path)


@pytest.fixture
def request_(tiny_scenario, quick) -> Request:
    """What the entry was made by: a sweep with seed 0, tests with two seeds."""
    return Request(str(tiny_scenario), (quick,), (0, 1), sweep={}, validation_shots=2)


@pytest.fixture
def folder(tmp_path, tiny_scenario, quick, request_, monkeypatch) -> Path:
    """Results of that request, of which nothing but what was asked is looked at."""
    write_entry(tmp_path / "results", request_, {"optimiser.lr": 1e-3})
    monkeypatch.setattr(publishing, "read_entry", read)
    return tmp_path / "results"


def write_entry(folder: Path, request: Request, chosen: dict) -> None:
    scenario = load_scenario(request.scenario, request.scenario_settings)
    strategy = load_strategy(request.strategies[0], request.strategy_settings)

    def run(settings: dict, seed: int, validation: bool) -> dict:
        row = {"settings": settings, "seed": seed, "validation": validation, "identity": "0" * 64}
        return row | {"results": {}, "updates": []}

    swept = [run({"optimiser.lr": rate}, 0, True) for rate in RATES] if request.sweep is not None else []
    entry = Entry(
        scenario="tiny",
        method="quick",
        fingerprint=fingerprint(scenario.value, strategy.value, scenario.folder),
        strategy={},
        asked=Asked(
            seeds=list(request.seeds),
            sweep_seeds=[0] if swept else [],
            metric=request.metric,
            floor=request.floor,
            validation_shots=2,
            scenario_settings=list(request.scenario_settings),
            strategy_settings=list(request.strategy_settings),
        ),
        chosen=chosen,
        published_with={},
        trials=[*swept, *(run(chosen, seed, False) for seed in request.seeds)],
    )
    path = place(folder, "tiny", "quick")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, entry.model_dump(mode="json"))


def read(path: Path) -> Entry | None:
    return Entry.model_validate_json(path.read_bytes()) if path.is_file() else None


def refuse(request: Request, folder: Path) -> list[str]:
    return refuse_other_streams(request, ["quick"], "tiny", folder)


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ({"sweep": None}, "holds 2 values of its sweep, which would be lost"),
        ({"sweep": None, "seeds": (0,)}, "2 values of its sweep, the seeds 1 of its tests"),
        ({"sweep": {"optimiser.lr": [1e-3, 2e-3]}}, "holds 1 value of its sweep"),
        ({"seeds": (0,)}, "holds the seeds 1 of its tests"),
        ({"seeds": (0, 1), "sweep_seeds": (1,)}, "holds the seeds 0 of its sweep"),
        ({"metric": "harmonic"}, "chosen by last with no floor on 2 validation images a class"),
        ({"floor": -3.0}, "chosen by last with no floor"),
        ({"validation_shots": 3}, "on 2 validation images"),
        ({"strategy_settings": ("training.steps=5",)}, "other settings of the strategy (none; now training"),
        ({"scenario_settings": ("shots=2",)}, "other settings of the scenario (none; now shots=2)"),
    ],
)
def test_less_is_refused_before_anything_is_run(folder, request_, now, told):
    with pytest.raises(UserError) as error:
        refuse(replace(request_, **now), folder)
    said = str(error.value)
    assert told in said and str(place(folder, "tiny", "quick")) in said
    assert "publish into another folder, or delete the file" in said


@pytest.mark.parametrize(
    "now",
    [
        {},
        {"seeds": (0, 1, 2)},
        {"seeds": (2, 1, 0), "sweep_seeds": (0,)},
        {"sweep": {"optimiser.lr": [1e-3, 2e-3, 5e-3]}},
        {"sweep": {"optimiser.lr": [1e-3]}, "seeds": (2,)},  # the chosen value is that, and all stays
    ],
)
def test_as_much_or_more_is_not(folder, request_, now):
    assert refuse(replace(request_, **now), folder) == []


def test_seeds_without_a_sweep_come_one_after_the_other(folder, request_):
    plain = replace(request_, sweep=None)
    write_entry(folder, plain, {})
    refuse(replace(plain, seeds=(2, 3)), folder)
    refuse(replace(plain, seeds=(0,), metric="harmonic"), folder)
    refuse(request_, folder)  # a sweep where there was none, with all seeds
    with pytest.raises(UserError, match="the seeds 1 of its tests"):
        refuse(replace(request_, seeds=(0,)), folder)


def test_what_is_stale_is_replaced(folder, request_, quick, monkeypatch):
    """As where the file of the strategy took the value that was chosen."""
    text = Path(quick).read_text().replace("lr: 5e-3", "lr: 1e-3")
    assert text != Path(quick).read_text()
    Path(quick).write_text(text)
    (told,) = refuse(replace(request_, sweep=None, seeds=(0,)), folder)
    assert f"{place(folder, 'tiny', 'quick')} (4 runs) was made with other tasks, settings or weights" in told
    # Settings beside it are others, and what was made with the old ones is stale by itself.
    monkeypatch.setattr(publishing, "is_current", lambda entry: False)
    refuse(replace(request_, strategy_settings=("training.steps=5",)), folder)


def test_the_name_of_a_strategy_that_ships_is_not_lent(tmp_path, tiny_scenario):
    own = tmp_path / "mine.yaml"
    own.write_text(STRATEGY.format(name="lora"))
    request = Request(str(tiny_scenario), (str(own),), (0,))
    with pytest.raises(UserError, match="mine.yaml is called 'lora', as a strategy that ships with"):
        refuse_other_streams(request, ["lora"], "tiny", tmp_path)
    own.write_text(own.read_text() + "head: {kind: linear-probe}\n")
    with pytest.raises(UserError, match="is called 'lora'"):
        refuse_other_streams(
            replace(request, strategy_settings=("head.folds=3",)), ["lora"], "tiny", tmp_path
        )
    as_it_ships = replace(request, strategies=("lora",), strategy_settings=("training.steps=1",))
    assert refuse_other_streams(as_it_ships, ["lora"], "tiny", tmp_path) == []


def test_settings_that_the_file_took_over_are_the_same_strategy(folder, request_, quick):
    write_entry(folder, replace(request_, strategy_settings=("optimiser.lr=2e-3",)), {"optimiser.lr": 1e-3})
    with pytest.raises(UserError, match="other settings of the strategy"):
        refuse(request_, folder)
    Path(quick).write_text(Path(quick).read_text().replace("lr: 5e-3", "lr: 2e-3"))
    refuse(request_, folder)
