"""An untouched model is measured once on a machine: what is kept is what would be measured, and nothing that
it follows from may change unnoticed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from builders.captions import json_lines, painted
from builders.interruptions import Said, Stop
from builders.runs import deltas_of, without_timings
from cl_complora.clip import evaluate
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.model import load_clip
from cl_complora.config import load_scenario, load_strategy
from cl_complora.config.scenario import Model
from cl_complora.data.labels import LabelSpace
from cl_complora.errors import UserError
from cl_complora.run import kept_answers, measuring
from cl_complora.run.kept_answers import KeptAnswers
from cl_complora.run.stream import run
from cl_complora.store.answers import load_answers, save_answers
from cl_complora.store.folder import RunDir
from cl_complora.store.tensors import with_checksum

SETS = 3  # two tasks and a zero-shot set


class Heard(Said):
    """Keeps the sentences.

    Args:
        cut: end the run once the untouched model is measured.
    """

    def __init__(self, cut: bool) -> None:
        super().__init__()
        self._cut = cut

    def evaluated(self, index: int, row: Sequence[float], zero_shot: dict[str, float]) -> None:
        if self._cut:
            raise Stop

    def known(self) -> int:
        """How many sets it was said that an earlier run had measured."""
        told = [line for line in self.lines if "had measured it on" in line]
        return int(told[0].split()[-2]) if told else 0


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CL_COMPLORA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "answers"


@pytest.fixture
def again(cache, tmp_path, tiny_scenario, tiny_strategy):
    """Runs the tiny stream in a folder of its own: (result, sets that were known)."""
    count = iter(range(99))

    def once(
        scenario: Path = tiny_scenario,
        edits: list[str] = (),
        strategy: str = str(tiny_strategy),
        cut: bool = False,
        analysis: bool = False,
    ):
        heard = Heard(cut)
        where = tmp_path / f"out{next(count)}"
        located = load_scenario(str(scenario), list(edits))
        with pytest.raises(Stop) if cut else nullcontext():
            found = run(located, load_strategy(strategy), out=where, progress=heard, analysis=analysis)
        return where if cut else found, heard.known()

    return once


@pytest.fixture
def measured(again):
    """The same up to the first task: (answers of the untouched model, sets that were known)."""

    def once(edits: list[str] = ()) -> tuple[dict[str, torch.Tensor], int]:
        where, known = again(edits=edits, cut=True)
        (file,) = where.rglob("predictions/*")
        return load_file(file), known

    return once


def test_the_second_run_says_the_same_without_asking_the_model(again, cache, monkeypatch):
    first, none = again()
    assert none == 0 and len(list(cache.iterdir())) == SETS
    asked = []
    real = measuring.answers
    monkeypatch.setattr(measuring, "answers", lambda *args, **more: asked.append(1) or real(*args, **more))
    second, known = again()
    tasks = len(first.results["tasks"])
    assert known == SETS and len(asked) == tasks * SETS  # after every task, and not before the first
    assert without_timings(second.results) == without_timings(first.results)
    for file in sorted((first.folder / "predictions").iterdir()):
        one, other = load_file(file), load_file(second.folder / "predictions" / file.name)
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    ours, others = (deltas_of(found.folder) for found in (first, second))
    assert all(torch.equal(part[key], others[file][key]) for file, part in ours.items() for key in part)


def test_what_answers_follow_from_is_told_apart(measured):
    measured()
    edits = {
        ("evaluation.precision=bf16",): 0,
        ("model.mean=[0.4, 0.4, 0.4]", "model.std=[0.3, 0.3, 0.3]"): 0,
        ("tasks.0.classes=[red, green]",): SETS - 1,
        ("tasks.0.prompts=['one {}']",): SETS - 1,
        ("zero_shot.0.images=7",): SETS - 1,
        ("shots=2",): SETS,  # says nothing about the untouched model
    }
    assert {one: measured(list(one))[1] for one in edits} == edits


def test_other_code_machines_or_threads_are_measured_again(measured, monkeypatch):
    measured()
    others = [
        (kept_answers, "_code", "another line"),
        (kept_answers.platform, "node", "elsewhere"),
        (torch, "get_num_threads", 77),
        (torch.backends.cpu, "get_cpu_capability", "ABACUS"),
    ]
    for where, name, told in others:
        with monkeypatch.context() as patched:
            patched.setattr(where, name, lambda told=told: told)
            assert measured()[1] == 0, name
    assert measured()[1] == SETS


def kept(weights: Path, config: Path, **more) -> KeptAnswers:
    """What is kept of a model."""
    loaded = load_clip(Model(name="tiny_clip", config=str(config), pretrained=str(weights)))
    model = ClipClassifier(loaded.model, loaded.tokenizer, mean=loaded.mean, std=loaded.std)
    return KeptAnswers(SimpleNamespace(loaded=replace(loaded, **more), device="cpu"), model)


def asked(answers: KeptAnswers, names: tuple[str, ...] = ("red",)) -> int:
    """Ask about a class; how often something was known."""
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    space = LabelSpace.from_templates(names, ["{}"])
    answers.of_classes(images, space, lambda: (torch.zeros(2, dtype=torch.long), torch.ones(2)))
    return answers.known


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("vision_cfg", "head_width", 8),
        ("vision_cfg", "pool_type", "avg"),
        ("text_cfg", "heads", 1),
        ("text_cfg", "no_causal_mask", True),
        ("text_cfg", "pool_type", "last"),
    ],
)
@pytest.mark.parametrize("seen_by", ["config", "answers"])
def test_another_architecture_of_the_same_weights_is_another_model(
    cache, tiny_files, tmp_path, part, key, value, seen_by, monkeypatch
):
    config, weights = tiny_files
    # Either of the two is enough, so each is looked at without the other.
    same = {"sha256": "0"}
    if seen_by == "config":
        monkeypatch.setattr(kept_answers, "_said", lambda model, size: "nothing")
    else:
        same["name"] = "no model of open_clip's"
    assert asked(kept(weights, config, **same)) == 0 and asked(kept(weights, config, **same)) == 1
    settings = json.loads(config.read_text())
    assert settings[part].get(key) != value
    settings[part][key] = value
    other = tmp_path / "tiny_clip.json"
    other.write_text(json.dumps(settings))
    assert asked(kept(weights, other, **same)) == 0


def test_a_run_does_not_go_on_with_another_architecture(tiny_scenario, tiny_strategy, tiny_files, tmp_path):
    settings = json.loads(tiny_files[0].read_text())
    out, config = tmp_path / "out", tmp_path / "tiny_clip.json"
    for pool in ("tok", "avg"):
        settings["vision_cfg"]["pool_type"] = pool
        config.write_text(json.dumps(settings))
        located = load_scenario(str(tiny_scenario), [f"model.config={config}"])
        with nullcontext() if pool == "tok" else pytest.raises(UserError, match="model.config_sha256"):
            run(located, load_strategy(str(tiny_strategy)), out=out)


def test_other_weights_modules_or_words_are_asked_again(cache, tiny_files):
    config, weights = tiny_files
    first = kept(weights, config)
    assert [asked(first), asked(first), asked(kept(weights, config))] == [0, 1, 1]
    assert asked(kept(weights, config, sha256="another")) == 0
    opened = kept(weights, config)
    opened._made_with["model"][2] += "an opened module"
    assert asked(opened) == 0
    # A tokenizer that reads only the last of the classes in another way.
    assert asked(kept(weights, config), ("red", "t-shirt")) == 0
    changed = kept(weights, config)
    tokenizer = changed._model.text.tokenizer
    changed._model.text.tokenizer = lambda texts, **more: tokenizer(
        [text.replace("-", "") if text == "t-shirt" else text for text in texts], **more
    )
    assert asked(changed, ("red", "t-shirt")) == 0


def test_what_is_read_gives_the_same_bits_as_what_was_computed(cache, tiny_files):
    """A file's bytes lie where they lie, and products of numbers that are not aligned differ in last bits."""
    config, weights = tiny_files
    features, weight = torch.randn(4000, 128), torch.randn(4, 128)
    images = torch.zeros(4000, 3, 1, 1, dtype=torch.uint8)
    kept(weights, config).of_images(images, lambda: features)
    again = kept(weights, config)
    read = again.of_images(images, lambda: pytest.fail("asked again"))
    assert again.known == 1 and torch.equal(read, features)
    assert read.data_ptr() % 64 == 0 and torch.equal(read @ weight.mT, features @ weight.mT)


def test_a_file_that_cannot_be_what_was_kept_is_measured_again(measured, cache):
    first, _ = measured()
    damages = {
        "longer": lambda label, share: (torch.cat([label, label]), torch.cat([share, share])),
        "classes that are not there": lambda label, share: (label + 100, share),
        "no numbers": lambda label, share: (label, share * torch.nan),
        "cut": None,
    }
    for name, damage in damages.items():
        for file in cache.iterdir():
            whole = file.read_bytes()
            file.write_bytes(
                save_answers({"set": damage(*load_answers(file)["set"])}) if damage else whole[:-3]
            )
        found, known = measured()  # which mends them
        assert known == 0 and found.keys() == first.keys(), name
        assert all(torch.equal(found[key], first[key]) for key in first), name
    assert measured()[1] == SETS


def test_a_cache_that_is_off_or_cannot_be_written_is_done_without(measured, cache, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for where in ("off", str(tmp_path / "file")):
        monkeypatch.setenv("CL_COMPLORA_CACHE", where)
        assert measured()[1] == measured()[1] == 0
    assert not cache.exists()


def answered(folder: Path) -> list[dict[str, torch.Tensor]]:
    return [load_file(file) for file in sorted((folder / "predictions").iterdir())]


def test_heads_on_untouched_towers_ask_them_once(again, cache, monkeypatch):
    fresh = again(strategy="rail", analysis=True)[0]
    kept = len(list(cache.iterdir()))
    asked = []
    real = evaluate.image_features
    monkeypatch.setattr(evaluate, "image_features", lambda *args: asked.append(len(args[1])) or real(*args))
    found = again(strategy="rail", analysis=True)[0]
    again(strategy="nearest-mean", analysis=True)
    assert not any(asked) and len(list(cache.iterdir())) == kept  # of no images there is nothing to keep
    assert without_timings(found.results) == without_timings(fresh.results)
    for one, other in zip(answered(found.folder), answered(fresh.folder), strict=True):
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    monkeypatch.setenv("CL_COMPLORA_CACHE", "off")
    anew = again(strategy="rail")[0]
    assert any(asked) and without_timings(anew.results) == without_timings(fresh.results)


@pytest.mark.parametrize("strategy", ["lfa", "lora+linear-probe"])
def test_features_of_towers_that_move_are_not_kept(again, cache, strategy, monkeypatch):
    def refused(*_: object) -> None:
        raise AssertionError("features of towers that move")

    monkeypatch.setattr(KeptAnswers, "of_images", refused)
    again(strategy=strategy)
    assert len(list(cache.iterdir())) == SETS
    with pytest.raises(AssertionError, match="towers that move"):
        again(strategy="nearest-mean")


def features_in(cache: Path) -> dict[Path, dict[str, torch.Tensor]]:
    found = {file: load_file(file) for file in cache.iterdir()}
    return {file: tensors for file, tensors in found.items() if "features" in tensors}


def test_an_untouched_tower_beside_one_that_moves_is_that_of_heads_alone(again, cache, tmp_path):
    """What it sees is known of a run that only fitted heads, under the same name, also after it has moved."""
    again(strategy="nearest-mean")
    kept = set(features_in(cache))
    paired = tmp_path / "paired.yaml"
    paired.write_text(
        "name: paired\nadapter: {kind: lowrank, rank: 2}\noptimiser: {lr: 5e-2}\ntraining: {steps: 3}\n"
        "head: {kind: linear-probe, with_untouched: true, c: [10.0]}\n"
    )
    found = again(strategy=str(paired))[0]
    assert set(features_in(cache)) == kept
    for file, tensors in features_in(cache).items():  # had they been asked, these would have been taken
        wrong = {**tensors, "features": tensors["features"].flip(1)}
        file.write_bytes(with_checksum(wrong, "features"))
    other = again(strategy=str(paired))[0]
    one, two = (load_file(RunDir(each.folder).head(0, "warm"))["weight"] for each in (found, other))
    width = one.shape[1] // 2
    assert not torch.allclose(one[:, width:], two[:, width:], atol=1e-3)


def test_features_that_cannot_be_what_was_kept_are_computed_again(again, cache):
    first, _ = again(strategy="nearest-mean")
    for file, tensors in features_in(cache).items():
        file.write_bytes(with_checksum({**tensors, "features": tensors["features"] * torch.nan}, "features"))
    assert again(strategy="nearest-mean")[0].results["accuracy"] == first.results["accuracy"]
    finite = [bool(tensors["features"].isfinite().all()) for tensors in features_in(cache).values()]
    assert finite.count(False) == 1  # of the zero-shot set, whose answers are known


def test_a_head_costs_what_it_would_have_cost_as_the_first(again, cache):
    again(strategy="nearest-mean")
    for file, tensors in features_in(cache).items():
        file.write_bytes(
            with_checksum({**tensors, "seconds": torch.tensor(1000.0, dtype=torch.float64)}, "features")
        )
    details = again(strategy="rail")[0].results["tasks_detail"]
    assert all(1000 < detail["train_seconds"] < 1100 for detail in details)  # its own shots, once


def test_places_of_captions_are_kept_as_well(again, tiny_scenario, tmp_path):
    painted(tmp_path)
    json_lines(tmp_path / "captions.jsonl")
    more = "\nretrieval:\n  - {name: told, source: {kind: captions, file: captions.jsonl}}\n"
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(tiny_scenario.read_text() + more)
    first, _ = again(scenario)
    second, known = again(scenario)
    assert known == SETS + 1
    assert json.dumps(second.results["retrieval"]) == json.dumps(first.results["retrieval"])
    lines = (tmp_path / "captions.jsonl").read_text()
    (tmp_path / "captions.jsonl").write_text(lines.replace("a red square", "a rosy square"))
    assert again(scenario)[1] == SETS
