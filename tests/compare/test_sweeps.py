"""Sweeps that some or all methods cannot take, and what a comparison says of itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cl_complora.compare.method import Method
from cl_complora.compare.study import Comparison, Request
from cl_complora.compare.sweeps import not_swept, sweeps_of
from cl_complora.compare.trials import digits, parse_sweep, trial
from cl_complora.config import load_scenario
from cl_complora.errors import UserError
from cl_complora.report.comparison.page import comparison_page
from cl_complora.report.comparison.saving import markdown
from cl_complora.report.comparison.tables import accuracy_table, how_chosen, told


@pytest.mark.parametrize(
    ("methods", "sweep", "told"),
    [
        ("lora", ["foo=1,2"], ("--sweep foo", "lora does not have this setting", "optimiser.lr")),
        ("lora,zeroshot", ["optimizer.lr=1e-4"], ("optimizer.lr", "did you mean 'optimiser.lr'")),
        ("lora", ["steps=5,10"], ("steps", "did you mean 'training.steps'")),
        ("lora", ["adapter.rnk=4"], ("did you mean 'adapter.rank'",)),
        ("finetune", ["rank=2,4"], ("adapter.rank", "only with kind: lowrank")),
        ("zeroshot", ["lr=1e-3"], ("zeroshot does not have", "nothing of it is trained")),
        ("random-head", ["lr=1e-3"], ("optimiser.lr: random-head does not have", "did you mean 'head.lr'")),
        (
            "rail",
            ["rank=2,4"],
            ("rail does not have", "must be head.hidden, head.regularisation, head.share"),
        ),
        ("random-head,zeroshot", ["head.lr=-1"], ("--sweep head.lr=-1", "greater than 0")),
        ("rail", ["head.lr=1e-3"], ("rail does not have",)),
        ("lora,finetune", ["lr=1e-3,-1"], ("--sweep optimiser.lr=-1", "greater than 0")),
        ("lora,zscl", ["training.steps=5,50"], ("training.steps=5: zscl does not take it", "average_every")),
        ("lora,zscl", ["training.steps=5,6"], ("training.steps=5: zscl does not take it", "average_every")),
        ("lora", ["lr=1e-3", "lr=1e-4"], ("swept twice",)),
        ("lora", ["lr=1e-3", "strategy.optimiser.lr=1e-4"], ("optimiser.lr is swept twice",)),
        (
            "lwf",
            ["regularisers[0].strength=1", "regularisers.0.strength=2"],
            ("regularisers.0.strength is swept twice",),
        ),
        ("lora", ["lr=1e-3,2e-3,0.001"], ("0.001 stands twice",)),
    ],
)
def test_a_sweep_that_no_method_takes_is_refused(methods, sweep, told):
    with pytest.raises(UserError) as refused:
        sweeps_of(methods.split(","), [], parse_sweep(sweep))
    assert all(part in refused.value.messages[0] for part in told), refused.value.messages


@pytest.mark.parametrize("setting", ["optimiser.lr=0.5", "strategy.optimiser.lr=0.5"])
@pytest.mark.parametrize("sweep", [{"optimiser.lr": [1e-3]}, None])
def test_a_setting_that_a_sweep_would_undo_is_refused(setting, sweep):
    with pytest.raises(UserError, match=rf"--set {setting} and .*the same is set twice"):
        sweeps_of(["zscl", "lora"], [setting], sweep)
    section = "optimiser={name: adamw, lr: 1, rates: {text: 1}}"
    assert sweeps_of(["lora"], [section], {"optimiser.lr": [1e-3]})["lora"]


def test_one_setting_has_one_spelling():
    swept = parse_sweep(["strategy.regularisers[0].strength=1,2"])
    assert swept == {"regularisers.0.strength": [1, 2]}
    assert sweeps_of(["lwf"], [], swept)["lwf"] == swept


def test_a_sweep_of_their_own_that_none_declares_is_refused():
    with pytest.raises(UserError, match="none of zeroshot declares a sweep"):
        sweeps_of(["zeroshot"], [], None)


def test_a_head_on_untouched_towers_is_swept_over_what_its_file_says():
    found = sweeps_of(["rail", "text-head", "nearest-mean"], [], None)
    assert found["rail"] == {"head.regularisation": [1e-4, 1e-3, 0.01, 0.1, 1, 10]}
    assert found["text-head"] == {"head.lr": [2.5e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2]}
    assert not_swept(found, None) == ["nearest-mean is not swept: it declares no sweep"]
    common = {"head.lr": [1e-3, 2e-3]}
    assert sweeps_of(["random-head", "lora"], [], common) == {"random-head": common, "lora": {}}


def test_methods_that_are_not_swept_as_asked_are_named():
    common = parse_sweep(["rank=2,4", " lr = 1e-3"])
    found = sweeps_of(["lora", "finetune", "zeroshot"], [], common)
    assert found == {
        "lora": {"adapter.rank": [2, 4], "optimiser.lr": [1e-3]},
        "finetune": {"optimiser.lr": [1e-3]},
        "zeroshot": {},
    }
    assert not_swept(found, common) == [
        "finetune is not swept over adapter.rank, which it does not have",
        "zeroshot is not swept: it has no adapter.rank, optimiser.lr",
    ]


def test_a_method_with_which_a_setting_is_idle_is_left_out():
    common = {"training.label_smoothing": [0.1, 0.2]}
    assert sweeps_of(["lora", "dac"], [], common) == {"lora": common, "dac": {}}


def test_values_that_differ_have_folders_that_differ(tiny_scenario, tiny_strategy):
    scenario = load_scenario(str(tiny_scenario))
    rates = (0.001, 0.0010000001, 0.0010000002, 1e-5, 2, 1234567, 1e6)
    made = [trial(str(tiny_strategy), (("optimiser.lr", rate),), 0, scenario) for rate in rates]
    assert [t.variant.removeprefix("optimiser.lr=") for t in made] == [
        *("0.001", "0.0010000001", "0.0010000002", "1e-05", "2", "1234567", "1e+06")
    ]
    assert made[1].label() == f"{tiny_strategy} · seed 0 · lr=0.0010000001"
    assert told((("optimiser.lr", 0.1 + 0.2),)) == "lr=0.30000000000000004" and digits(True) == "1"
    # What a user set stands as it was typed.
    assert told([("optimiser.lr", "1e-3"), ("shots", "all")]) == "lr=1e-3, shots=all"


@given(st.floats(allow_nan=False) | st.integers(-(2**53), 2**53))
def test_a_number_is_given_back_by_its_digits(value):
    assert float(digits(value)) == value
    # As earlier versions wrote it, wherever that was exact: their folders are found again.
    assert digits(value) == f"{value:g}" or float(f"{value:g}") != value


def content(seeds=(0,), sweep=None, curves=(), settings=()) -> dict:
    """A comparison of lora and zeroshot; those in ``curves`` were swept over the learning rate."""
    point = {"settings": {"optimiser.lr": 1e-3}, "told": "lr=0.001", "error": None}
    point |= {"last": 50.0, "average": 40.0, "retention": -1.0, "score": 50.0}
    figures = {"last": [50.0 + seed for seed in seeds], "retention": [-1.0 for _ in seeds]}
    methods = [
        Method(name, figures=figures)
        if name not in curves
        else Method(name, (("optimiser.lr", 1e-3),), [point], figures)
        for name in ("lora", "zeroshot")
    ]
    request = Request("tiny", ("lora", "zeroshot"), seeds, sweep=sweep, strategy_settings=settings)
    return Comparison(request, "tiny", "lora", methods).content()


def test_only_what_was_swept_is_said_to_be_chosen():
    sweep = {"optimiser.lr": [1e-3]}
    assert how_chosen(content()) is None and how_chosen(content(sweep=sweep)) is None
    said = how_chosen(content(sweep=sweep, curves=("lora",)))
    assert said == "Settings of lora chosen by last on validation shots (seed 0). Not swept: zeroshot."
    said = how_chosen(content(sweep=sweep | {"adapter.rank": [2]}, curves=("lora", "zeroshot")))
    assert "Settings chosen by" in said and "lora was not swept over adapter.rank." in said


def test_the_page_says_which_settings_were_changed(tmp_path):
    page = comparison_page(content(), tmp_path, tmp_path / "report.html").html()
    assert "with the settings of its own file; nothing was swept" in page
    page = comparison_page(content(settings=("training.steps=2",)), tmp_path, tmp_path / "report.html").html()
    assert "of its own file, but for what was changed for all; nothing was swept" in page
    assert "Changed for all methods by --set: strategy.training.steps=2." in page


def test_one_seed_has_no_spread(tmp_path):
    rows = accuracy_table(content())[1]
    assert "50.0" in [cell.text for cell in rows[0]] and not any("±" in cell.text for cell in rows[0])
    assert "±" not in markdown(content()) and "one seed" in markdown(content())
    assert "±" not in comparison_page(content(), tmp_path, tmp_path / "report.html").html()
    assert "50.5 ± 0.7" in markdown(content(seeds=(0, 1)))
