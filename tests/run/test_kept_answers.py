"""An untouched model is measured once on a machine: what is kept is what would be measured, and nothing that
it follows from may change unnoticed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from builders.captions import json_lines, painted
from builders.runs import deltas_of, without_timings
from cl_complora.clip import evaluate
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.model import load_clip
from cl_complora.config import load_scenario, load_strategy
from cl_complora.data.labels import LabelSpace
from cl_complora.progress import Quiet
from cl_complora.run import kept_answers, measuring
from cl_complora.run.kept_answers import KeptAnswers
from cl_complora.run.stream import run
from cl_complora.store.answers import load_answers, save_answers
from cl_complora.store.tensors import with_checksum

SETS = 3  # two tasks and a zero-shot set


class Heard(Quiet):
    """Keeps the sentences."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)

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

    def once(scenario: Path = tiny_scenario, edits: list[str] = (), strategy: str = str(tiny_strategy)):
        heard = Heard()
        where = tmp_path / f"out{next(count)}"
        located = load_scenario(str(scenario), list(edits))
        found = run(located, load_strategy(strategy), out=where, progress=heard)
        return found, heard.known()

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


def test_what_answers_follow_from_is_told_apart(again):
    again()
    edits = {
        ("evaluation.precision=bf16",): 0,
        ("model.mean=[0.4, 0.4, 0.4]", "model.std=[0.3, 0.3, 0.3]"): 0,
        ("tasks.0.classes=[red, green]",): SETS - 1,
        ("tasks.0.prompts=['one {}']",): SETS - 1,
        ("zero_shot.0.images=7",): SETS - 1,
        ("shots=2",): SETS,  # says nothing about the untouched model
    }
    assert {one: again(edits=list(one))[1] for one in edits} == edits


def test_other_code_machines_or_threads_are_measured_again(again, cache, monkeypatch):
    again()
    others = [
        (kept_answers, "_code", "another line"),
        (kept_answers.platform, "node", "elsewhere"),
        (torch, "get_num_threads", 77),
        (torch.backends.cpu, "get_cpu_capability", "ABACUS"),
    ]
    for where, name, told in others:
        with monkeypatch.context() as patched:
            patched.setattr(where, name, lambda told=told: told)
            assert again()[1] == 0, name
    assert again()[1] == SETS


def test_other_weights_or_modules_are_another_model(cache, tiny_scenario):
    located = load_scenario(str(tiny_scenario))
    loaded = load_clip(located.value.model, located.folder)
    model = ClipClassifier(loaded.model, loaded.tokenizer, mean=loaded.mean, std=loaded.std)
    images, space = torch.zeros(2, 3, 16, 16, dtype=torch.uint8), LabelSpace.from_templates(["red"], ["{}"])

    def known(sha256: str) -> int:
        told = SimpleNamespace(loaded=SimpleNamespace(sha256=sha256), device="cpu")
        kept = KeptAnswers(told, model)
        kept.of_classes(images, space, lambda: (torch.zeros(2, dtype=torch.long), torch.ones(2)))
        return kept.known

    assert [known("a"), known("a"), known("b")] == [0, 1, 0]
    model.opened = torch.nn.Linear(1, 1)
    assert known("a") == 0


def test_a_file_that_cannot_be_what_was_kept_is_measured_again(again, cache):
    first, _ = again()
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
        found, known = again()  # which mends them
        assert known == 0 and found.results["accuracy"] == first.results["accuracy"], name
    assert again()[1] == SETS


def test_a_cache_that_is_off_or_cannot_be_written_is_done_without(again, cache, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for where in ("off", str(tmp_path / "file")):
        monkeypatch.setenv("CL_COMPLORA_CACHE", where)
        assert again()[1] == again()[1] == 0
    assert not cache.exists()


def answered(folder: Path) -> list[dict[str, torch.Tensor]]:
    return [load_file(file) for file in sorted((folder / "predictions").iterdir())]


def test_heads_on_untouched_towers_ask_them_once(again, cache, monkeypatch):
    fresh = again(strategy="rail")[0]
    kept = len(list(cache.iterdir()))
    asked = []
    real = evaluate.image_features
    monkeypatch.setattr(evaluate, "image_features", lambda *args: asked.append(len(args[1])) or real(*args))
    found = again(strategy="rail")[0]
    again(strategy="nearest-mean")
    assert not any(asked) and len(list(cache.iterdir())) == kept  # of no images there is nothing to keep
    assert without_timings(found.results) == without_timings(fresh.results)
    for one, other in zip(answered(found.folder), answered(fresh.folder), strict=True):
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    monkeypatch.setenv("CL_COMPLORA_CACHE", "off")
    anew = again(strategy="rail")[0]
    assert any(asked) and without_timings(anew.results) == without_timings(fresh.results)


@pytest.mark.parametrize("strategy", ["lfa", "lora+linear-probe"])
def test_features_of_towers_that_move_are_not_kept(again, cache, strategy, monkeypatch):
    monkeypatch.setattr(KeptAnswers, "of_images", None)
    again(strategy=strategy)
    assert len(list(cache.iterdir())) == SETS


def features_in(cache: Path) -> dict[Path, dict[str, torch.Tensor]]:
    found = {file: load_file(file) for file in cache.iterdir()}
    return {file: tensors for file, tensors in found.items() if "features" in tensors}


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
