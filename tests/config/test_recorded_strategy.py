"""A strategy or scenario that a run recorded is the one that it was made with."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from cl_complora.config import Scenario, Strategy, load_scenario, load_strategy
from cl_complora.config.catalog import shipped
from cl_complora.config.recorded import recorded
from cl_complora.store.folder import RunDir


def strategies_alike(name: str, *settings: str) -> None:
    content = load_strategy(name, settings).value.model_dump(mode="json", exclude={"description", "sweep"})
    again = recorded(Strategy, content)
    assert again.model_dump(mode="json", exclude={"description", "sweep"}) == content


@pytest.mark.parametrize("name", sorted(shipped("strategy")))
def test_what_is_recorded_is_read_again(name):
    strategies_alike(name)


@pytest.mark.parametrize("momentum", [0.9, 0.95, 0.8])
def test_a_default_that_belongs_to_another_optimiser_is_no_default(momentum):
    strategies_alike("lora", "optimiser.name=muon", f"optimiser.momentum={momentum}")


def test_a_setting_that_no_optimiser_reads_is_not_taken_for_said():
    strategies_alike("lora", "optimiser.name=prodigy", "optimiser.rates={}")
    strategies_alike("lora", "optimiser.name=schedule-free", "optimiser.rates={}", "schedule.name=constant")


@pytest.mark.parametrize("name", sorted(shipped("scenario")))
def test_a_scenario_is_read_again(name):
    content = load_scenario(name).value.model_dump(mode="json")
    assert recorded(Scenario, content).model_dump(mode="json") == content


@pytest.mark.parametrize("said", [True, False])
def test_default_prompts_are_recorded_as_said_or_not(said, tmp_path):
    """A run of before, which recorded the default whether or not it was said, keeps its sources' prompts."""
    path = tmp_path / "mine.yaml"
    world = "source: {kind: world, domain: %s}"
    path.write_text(
        f"name: mine\ntasks:\n  - {{name: a, {world % 'digits'}}}\n  - {{name: b, {world % 'captions'}}}\n"
        f"  - {{name: c, source: {{kind: folder, root: r}}}}\n"
        f"  - {{name: d, source: {{kind: dataset, name: dtd}}, prompts: ['own {{}}']}}\n"
        f"zero_shot: [{{name: z, {world % 'general'}}}]\nreference: {{{world % 'general'}}}\n"
    )
    scenario = load_scenario(str(path), ["prompts=['a photo of a {}.']"] if said else []).value
    content = scenario.model_dump(mode="json")
    again = recorded(Scenario, content)
    assert again.model_dump(mode="json") == content
    default = ["a photo of a {}."] if said else None
    assert again.prompts == ["a photo of a {}."]
    assert [one.prompts for one in again.tasks] == [default, None, None, ["own {}"]]
    assert again.zero_shot[0].prompts == again.reference.prompts == default


SOURCES = [
    "{kind: folder, root: r, splits: {train: a, test: b}}",
    "{kind: parquet, train: a.parquet, test: b.parquet}",
    "{kind: parquet, train: a.parquet, validation: b.parquet}",
    "{kind: huggingface, root: r, splits: {train: a, test: b}}",
    "{kind: captions, file: a.jsonl, test_file: b.jsonl}",
    "{kind: captions, file: a.jsonl, split: train, test_split: dev}",
]


@pytest.mark.parametrize("source", SOURCES)
def test_what_a_run_records_of_a_source_is_no_setting_of_the_users(source, tmp_path):
    """A share to set apart that the file does not name is recorded at its default."""
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\nshots: 2\ntasks:\n  - {{name: a, source: {source}}}\n")
    content = load_scenario(str(path)).value.model_dump(mode="json")
    assert content["tasks"][0]["source"]["test_fraction"] == 0.5
    config = {"scenario": content, "files": {"scenario": str(path), "strategy": "lora"}}
    again = RunDir(tmp_path / "run").recorded_scenario(config)
    assert again.value.model_dump(mode="json") == content


@pytest.mark.parametrize("content", [None, [], "mine", {}, {"name": "mine", "tasks": 3}, {1: 2}])
def test_what_is_no_scenario_is_refused_as_ever(content):
    with pytest.raises(ValidationError):
        recorded(Scenario, content)
