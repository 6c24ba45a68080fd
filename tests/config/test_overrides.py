"""Overrides with --set: applied, sorted by file, and blamed themselves where they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders.configs import SCENARIO, STRATEGY, TEXTS, animals, check, refusal, write
from cl_complora.config import apply_overrides, load_scenario, load_strategy
from cl_complora.config.overrides import as_overrides, split_overrides
from cl_complora.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What the valid files name; every broken file is written here."""
    return animals(tmp_path_factory.mktemp("config"))


# Overrides
BAD_SETTINGS = [
    ("optimiser.lr", "must have the form key.path=value, such as optimiser.lr=1e-3"),
    ("=5", "must have the form key.path=value"),
    ("optimizer.lr=1", "unknown key; did you mean 'optimiser.lr'? allowed: name,"),
    ("name=x", "write scenario.name or strategy.name: both have this key"),
    ("scenario=x", "unknown key"),
    ("strategy.shots=4", "unknown key in a strategy; it belongs in a scenario (or --set scenario.shots.…=…)"),
    (
        "scenario.training.steps=3",
        "unknown key in a scenario; it belongs in a strategy (or --set strategy.training",
    ),
    ("optimiser.lrr=1", "unknown key; did you mean 'lr'?"),
    ("optimiser.lr=-1", "must be greater than 0, got -1"),
    ("optimiser.lr='1'", "must be a number, got '1'; write it without quotes"),
    ("optimiser.lr=", "must be a number, got nothing"),
    ("optimiser.lr.x=1", "optimiser.lr is a value, not a section"),
    ("optimiser.lr=[1", "not valid YAML: this bracket is never closed"),
    ("optimiser.lr=!!python/name:os.system", "the tag !!python/name:os.system is not allowed"),
    ("optimiser.lr=&a [*a]", "nested too deeply here, or an alias holds itself"),
    (f"optimiser.lr={'9' * 5000}", "must be a whole number of at most 4300 digits"),
    ("strategy.name=../x", "1 to 64 letters"),
    ("adapter={kind: lowrank, rank: 0}", "adapter.rank: must be at least 1, got 0"),
    ("adapter.=1", "unknown key; allowed: kind, rank"),
    ("adapter.subspace.keep.fraction=0.2", "needs exactly one of energy, fraction, number"),
    ("optimiser.momentum=0.9", "has no effect with name: adamw, only with name: sgd"),
    ("optimiser=", "this section is missing; adapter kind lowrank"),
    ("schedule.warm=1", "unknown key; did you mean 'warmup'?"),
    ("regularisers.1.kind=lwf", "'1' must be an index from 0 to 0"),
    ("regularisers.²=1", "'²' must be an index from 0 to 0"),
    ("sweep={optimiser.lr: [-1]}", "sweep.optimiser.lr[0]: must be greater than 0"),
    ("shots=100", "100 shots a class, but class 'cat' of task 'a' has 4"),
    ("shots=a\nb", "must be a whole number or 'all' or a section (key: value), got 'a b'"),
    ("tasks=[]", "must not be empty"),
    ("tasks.-1.name=x", "'-1' must be an index from 0 to 1"),
    ("tasks[1].name=A", "'A' is already the name of tasks[0]"),
    ("tasks.1.class_range=[0, 9]", "ends at 9, but the source has 3 classes"),
    ("tasks.0.source.shots=4", "unknown key; it belongs beside source, not inside it; allowed"),
    (
        "tasks.0.source.classes=[cat]",
        "unknown key; it belongs beside source, not inside it, or to kind: manifest; allowed",
    ),
    ("tasks.0.source.domain=x", "unknown key; it belongs to kind: world"),
    ("seeds=[1, 1]", "seeds[1]: 1 stands twice"),
    ("model.pretrained=x", "the embedded model brings its own weights"),
]


@pytest.mark.parametrize("setting, told", BAD_SETTINGS, ids=lambda text: repr(text)[:40])
def test_a_bad_override_is_blamed_itself(setting, told, folder):
    paths = {kind: write(folder, f"set-{kind}", text) for kind, text in TEXTS.items()}
    with pytest.raises(UserError) as caught:
        for kind, overrides in zip(TEXTS, split_overrides([setting]), strict=True):
            check(kind, paths[kind], tuple(overrides))
    shown = setting.replace("\n", r"\n")
    for message in caught.value.messages:
        start = f"--set {shown}: " if len(shown) <= 80 else f"--set {shown[:79]}…: "
        assert message.startswith(start) and message.isprintable()
    assert told in caught.value.messages[0]


def test_a_line_that_an_override_has_spoilt_is_told_with_the_override(folder):
    path = write(folder, "spoilt", STRATEGY)
    (message,) = refusal("strategy", path, ("training.steps=5", "adapter.kind=full"))
    assert message.startswith(f"{path}:5: adapter.rank: has no effect")
    assert message.endswith("(with --set adapter.kind=full)")
    path = write(folder, "spoilt", SCENARIO)
    (message,) = refusal("scenario", path, ("shots=1", "tasks[0].name=b"))
    assert message.startswith(f"{path}:10: tasks[1].name: 'b' is already")
    assert message.endswith("(with --set tasks[0].name=b)")
    (message,) = refusal("scenario", path, ("tasks.0.source.root=nowhere",))
    assert message.startswith(f"{path}:9: tasks[0].source: ") and message.endswith(
        "(with --set tasks.0.source.root=nowhere)"
    )


def test_overrides_make_sections_and_take_the_place_of_others():
    located = load_strategy(
        "lora", ["memory={kind: replay}", "memory.per_class=3", "memory.per_class=4", "training={}"]
    )
    assert located.value.memory.per_class == 4
    assert (located.value.training.steps, load_strategy("lora").value.training.steps) == (100, 40)
    (message,) = refusal("strategy", "lora", ("memory.per_class=3",))
    assert message == "--set memory.per_class=3: memory.kind: this key is missing"
    (message,) = refusal("strategy", "lora", ("regularisers.0.strength=3",))
    assert message == "--set regularisers.0.strength=3: regularisers has no entry 0: it is not in the file"
    data = {"a": [{"b": 1}]}
    apply_overrides(data, ["a.0.b=2", "a[0].c=[x, 1e-3]", "d.e=null"])
    assert data == {"a": [{"b": 2, "c": ["x", 1e-3]}], "d": {"e": None}}


def test_a_section_takes_the_place_of_a_plain_value(folder):
    """As a mapping of Python's gives it, key by key, and as a comparison records it."""
    path = str(write(folder, "plain", SCENARIO))
    given = {"shots": {"most": 3, "least": 1}, "tasks.0": {"shots": {"most": 2}}}
    for overrides in (
        as_overrides(given),
        ["shots.least=1", "scenario.shots.most=3", "tasks[0].shots.most=2"],
    ):
        scenario = load_scenario(path, overrides).value
        assert (scenario.shots.most, scenario.shots.least, scenario.tasks[0].shots.most) == (3, 1, 2)
    loss = load_strategy("lora", as_overrides({"training": {"loss": {"gamma": 3.0, "kind": "focal"}}}))
    assert (loss.value.training.loss.kind, loss.value.training.loss.gamma) == ("focal", 3.0)
    messages = refusal("scenario", path, ("shots.most=3", "shots.moist=3"))
    assert any("--set shots.moist=3: unknown key; did you mean 'most'?" in message for message in messages)


def test_a_section_is_still_merged_into_a_section(folder):
    path = str(write(folder, "long", SCENARIO.replace("shots: 2", "shots: {most: 4, least: 2}")))
    assert load_scenario(path, as_overrides({"shots": {"least": 1}})).value.shots.most == 4


def test_where_no_section_may_stand_a_plain_value_stays(folder):
    for setting in ({"optimiser": {"lr": {"x": 1}}}, {"adapter": {"rank": {"0": 1}}}):
        (message,) = refusal("strategy", write(folder, "s", STRATEGY), tuple(as_overrides(setting)))
        assert "is a value, not a section" in message
    data = {"shots": 4}
    with pytest.raises(UserError, match="shots is a value, not a section"):
        apply_overrides(data, ["shots.most=1"])
    assert data == {"shots": 4}


def test_settings_of_a_plugin_take_sections(folder):
    """What they may be is the plugin's own matter."""
    path = str(write(folder, "plugin", f"{STRATEGY}plugin: mine.py:Mine\nsettings: {{a: 3}}\n"))
    located = load_strategy(path, as_overrides({"settings": {"a": {"b": 1}}}))
    assert located.value.settings == {"a": {"b": 1}}


def test_overrides_are_sorted_by_their_first_key():
    settings_ = ["shots=4", "optimiser.lr=1", "scenario.name=x", "strategy.name=y", "tasks[0].shots=1"]
    assert split_overrides(settings_) == (
        ["shots=4", "scenario.name=x", "tasks[0].shots=1"],
        ["optimiser.lr=1", "strategy.name=y"],
    )
    assert load_scenario("embedded", ["scenario.name=x"]).value.name == "x"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("training.steps=3", "training.steps=3"),
        ("optimiser.lr=1e-3", "strategy.optimiser.lr=1e-4"),
        ("tasks[0].shots=2", "scenario.tasks.0.shots=3"),
        ("optimiser.lr=1e-3", "optimiser={lr: 1e-4}"),
    ],
)
def test_what_is_set_twice_is_refused(first, second):
    with pytest.raises(UserError) as error:
        split_overrides([first, "shots=4", second])
    assert str(error.value).startswith(f"--set: {first} and {second}: the same is set twice; leave one")
    split_overrides([second, "training.batch_size=4"])


def test_what_is_wrong_by_itself_is_told_before():
    for settings, told in (
        (["name=a", "strategy.name=b"], "write scenario.name"),
        (["foo=1"] * 2, "unknown key"),
    ):
        with pytest.raises(UserError, match=told):
            split_overrides(settings)


def test_both_files_may_have_a_key_and_a_section_may_be_changed_after():
    split_overrides(["scenario.name=a", "strategy.name=b"])
    split_overrides(["optimiser={lr: 1e-3}", "optimiser.rates.text=1e-4"])


def test_a_sweep_is_of_the_file_as_it_stands():
    # The values to sweep for low-rank updates do not stop a run that has other settings.
    assert load_strategy("lora", ["optimiser.lr=1e-5", "adapter.rank=2"]).value.sweep
