"""Settings that would have no effect, or could not work, are refused; beside them, what is meant to go on
working."""

from __future__ import annotations

import pytest

from builders.commands import cli
from cl_complora.config import Strategy, load_scenario, load_strategy
from cl_complora.config.catalog import shipped
from cl_complora.config.recorded import recorded
from cl_complora.errors import UserError

JOINT = "training.stream=joint"
ONCE = "has no effect with training.stream: joint, which trains once and has no earlier tasks"


def subspace(settings: str) -> list[str]:
    return [f"adapter.subspace={{{settings}}}"]


@pytest.mark.parametrize(
    "name, changed, told",
    [
        ("replay", [JOINT], f"memory: {ONCE}"),
        ("ewc", [JOINT], f"regularisers[0].kind: ewc {ONCE}"),
        ("lwf", [JOINT], f"regularisers[0].kind: lwf {ONCE}"),
        ("olora", [JOINT], f"regularisers[0].kind: orthogonal {ONCE}"),
        ("dac", [JOINT], f"regularisers[0].kind: apart {ONCE}"),
        (
            "inflora",
            ["regularisers=[{kind: orthogonal, strength: 1}]"],
            "orthogonal does not go with start.kind: inp",
        ),
        ("joint", ["regularisers=[{kind: l2-init, strength: 1}, {kind: lwf, strength: 1}]"], f"lwf {ONCE}"),
        ("lora", subspace("select: none, keep: {energy: 0.5}"), "keep: has no effect with select: none"),
        ("lora", subspace("select: none, sides: both"), "sides: has no effect with select: none"),
        ("lora", subspace("select: none, of: merged"), "of: has no effect with select: none"),
        ("lora", subspace("select: none, protect: [principal]"), "protect: has no effect with select: none"),
        ("lora", subspace("select: none, form: reduced"), "form: has no effect with select: none"),
        ("complora", ["adapter.subspace.protect=[updates]"], "protect=[updates]: must name principal; to"),
        ("lora", ["adapter.subspace.sides=in"], "sides=in: has no effect with select: none"),
        (
            "complora",
            ["adapter.subspace.select=none"],
            "keep: has no effect (nor have sides, of, protect, fo",
        ),
        (
            "lora",
            subspace("select: top, keep: {number: 0}"),
            "keep.number: must be greater than 0 with select",
        ),
        (
            "lora",
            subspace("select: top, keep: {fraction: 0.0}"),
            "keep.fraction: must be greater than 0 with",
        ),
        ("nusa", ["adapter.subspace.sides=out"], "core works with subspace.sides: both or in, not out"),
        ("nusa", subspace("select: none"), "core needs a subspace to have coordinates in"),
        ("lfa", ["head={kind: lfa, steps: 0, map: ema}"], "head.map: has no effect with steps: 0"),
        ("lfa", ["head={kind: lfa, steps: 0, lr: 1e-3}"], "head.lr: has no effect with steps: 0"),
        ("lfa", ["head={kind: lfa, steps: 0, noise: 0.0}"], "head.noise: has no effect with steps: 0"),
        (
            "lfa",
            ["head={kind: lfa, steps: 0, crops: 2, scale: 4.0, dropout: 0.0}"],
            "head.scale: has no effect (nor have dropout, crops) with steps: 0",
        ),
        ("lfa", ["head.steps=0"], "head.lr: has no effect (nor has weight_decay) with steps: 0 (with --set"),
    ],
)
def test_what_has_no_effect_is_refused(name, changed, told):
    with pytest.raises(UserError) as refused:
        load_strategy(name, changed)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    "name, changed",
    [
        ("replay", ["training.stream=cumulative"]),
        ("joint", ["regularisers=[{kind: l2-init, strength: 1}, {kind: similarities}]"]),
        ("lora", subspace("select: complement, keep: {number: 0}")),
        ("lora", subspace("select: top, keep: {number: 1}")),
        ("nusa", ["adapter.subspace.sides=in"]),
        ("lfa", ["head={kind: lfa, steps: 0, beta: 0.5, completion: svd, map: refined}"]),
        ("lora", ["optimiser.name=schedule-free"]),
        ("xgblora", ["optimiser.clip_norm=null"]),
    ],
)
def test_what_has_an_effect_is_not(name, changed):
    located = load_strategy(name, changed)
    assert recorded(Strategy, located.value.model_dump(mode="json")).adapter == located.value.adapter


UNTRAINED = [name for name in shipped("strategy") if load_strategy(name).value.adapter.kind == "none"]


@pytest.mark.parametrize("name", UNTRAINED)
def test_what_a_comparison_sets_for_all_of_its_strategies_suits_one_that_trains_nothing(name):
    for_all = ["training.steps=5", "training.precision=bf16", "training={chunk: 4}", "schedule.name=constant"]
    assert load_strategy(name, for_all).value.training.chunk == 4


@pytest.mark.parametrize(
    "settings, keys",
    [
        (f"training: {{{key}: {value}}}", [f"training.{key}"])
        for key, value in {
            "steps": 100,
            "batch_size": 8,
            "label_smoothing": 0.1,
            "prompts": "first",
            "precision": "fp32",
            "average_every": 5,
            "compile": "true",
            "chunk": 4,
            "checkpointing": "true",
            "remember": "false",
            "on_nan": "skip",
            "classes": "seen",  # asked for by no head but one that is trained
        }.items()
    ]
    + [
        ("schedule: {name: cosine}", ["schedule"]),
        ("training: {steps: 3, loss: classes, chunk: null}", ["training.steps", "training.chunk"]),
    ],
)
def test_what_a_file_says_of_steps_that_it_does_not_take_is_refused(tmp_path, settings, keys):
    file = tmp_path / "s.yaml"
    file.write_text(f"name: s\nadapter: {{kind: none}}\nhead: {{kind: nearest-mean}}\n{settings}\n")
    with pytest.raises(UserError) as refused:
        load_strategy(str(file))
    told = "has no effect with adapter kind none, which trains nothing"
    assert list(refused.value.messages) == [f"{file}:4: {key}: {told}" for key in keys]


def test_a_run_notes_the_settings_that_a_strategy_without_steps_does_not_take(
    tmp_path, tiny_scenario, monkeypatch, capsys
):
    words = ["run", tiny_scenario, "-s", "zeroshot", "--set", "training.steps=5", "--out", tmp_path / "runs"]
    code, out, _ = cli(monkeypatch, capsys, *words)
    assert code == 0 and "note: training.steps has no effect: zeroshot takes no steps" in out


def test_a_comparison_names_the_strategy_that_does_not_take_a_setting(
    tmp_path, tiny_scenario, monkeypatch, capsys
):
    words = ["-s", "lora,zeroshot", "--set", "optimiser.lr=1e-3", "--out", tmp_path / "runs"]
    code, _, err = cli(monkeypatch, capsys, "compare", tiny_scenario, *words)
    told = "zeroshot does not take it: optimiser: has no effect with adapter kind none, which trains nothing"
    assert code == 2 and err.splitlines()[0] == f"error: --set optimiser.lr=1e-3: {told}"


def test_a_trained_head_reads_which_classes_are_contrasted(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text("name: s\nadapter: {kind: none}\nhead: {kind: linear}\ntraining: {classes: task}\n")
    assert load_strategy(str(file)).value.head.classes == "task"


FRACTION = "test_fraction: has no effect with"
PARTED = "since the file then says which pictures are the test"


def a_scenario(tmp_path, source: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\nshots: 2\ntasks:\n  - name: a\n    source: {{{source}}}\n")
    return str(path)


@pytest.mark.parametrize(
    "source, told",
    [
        (
            "kind: folder, root: r, splits: {train: a, test: b}",
            "splits, which name the folder of the test",
        ),
        ("kind: parquet, train: a, test: b", "test, whose pictures are the test"),
        ("kind: parquet, test: b", "test, whose pictures are the test"),
        ("kind: parquet, train: a, validation: b", "validation, whose pictures are the test"),
        (
            "kind: huggingface, name: a/b, splits: {train: a, test: b}",
            "splits, which name the split that is the test",
        ),
        ("kind: captions, file: a.jsonl, test_file: b.jsonl", "test_file, whose pictures are the test"),
        ("kind: captions, file: a.jsonl, test_split: dev", f"test_split, {PARTED}"),
        ("kind: captions, file: a.jsonl, split: all", f"split, {PARTED}"),
    ],
)
def test_no_share_is_set_apart_where_the_test_is_named(source, told, tmp_path):
    assert load_scenario(a_scenario(tmp_path, source))
    for share in (0.5, 0.2):  # also the default, where it is said
        path = a_scenario(tmp_path, f"{source}, test_fraction: {share}")
        with pytest.raises(UserError) as caught:
            load_scenario(path)
        assert caught.value.messages == (f"{path}:5: tasks[0].source.{FRACTION} {told}",)


@pytest.mark.parametrize(
    "source",
    [
        "kind: folder, root: r",
        "kind: folder, root: r, splits: none",
        "kind: folder, root: r, splits: {train: a, test: ./a}",  # one folder, which is divided
        "kind: parquet, train: a",
        "kind: huggingface, name: a/b",
        "kind: huggingface, name: a/b, split: train",
        "kind: captions, file: a.jsonl",
    ],
)
def test_a_share_is_set_apart_where_nothing_says_what_the_test_is(source, tmp_path):
    located = load_scenario(a_scenario(tmp_path, f"{source}, test_fraction: 0.2"))
    assert located.value.tasks[0].source.test_fraction == 0.2
