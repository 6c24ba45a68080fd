"""Which words a task moved: by name, the furthest first."""

from __future__ import annotations

import torch

from cl_complora.analysis.words import MOST, words_moved
from cl_complora.delta import TaskDelta
from cl_complora.report.run.weights import moved_weights
from cl_complora.store.folder import RunDir
from cl_complora.store.forms import Analysis
from cl_complora.store.loaded_run import LoadedRun


class Letters:
    """A tokenizer of 26 words and of tokens that are no text."""

    def decode(self, tokens: list[int]) -> str:
        return {n: f"word{chr(97 + n)} " for n in range(26)}[tokens[0]]


def test_the_words_that_moved_furthest_come_first_with_their_distances():
    change = torch.zeros(40, 4)
    change[3, 0], change[30, 1], change[7, 2] = 0.5, 2.0, 1.0
    for delta in (TaskDelta.of_changes({"token_embedding.weight": change}),
                  TaskDelta(dense={"text.token_embedding.weight": change})):  # fmt: skip
        found = words_moved(delta, Letters())
        assert [(one["word"], one["norm"]) for one in found["furthest"]] == [
            ("token 30", 2.0),
            ("wordh", 1.0),
            ("wordd", 0.5),
        ]
        assert found["moved"] == 3
        assert Analysis.model_validate({"words": found}).words.moved == 3


def test_none_are_named_where_none_moved_and_few_where_many_did():
    assert words_moved(TaskDelta(), Letters()) == {}
    assert words_moved(TaskDelta(dense={"visual.proj": torch.ones(3, 3)}), Letters()) == {}
    assert words_moved(TaskDelta(dense={"token_embedding.weight": torch.zeros(3, 3)}), Letters()) == {}
    many = words_moved(TaskDelta(dense={"token_embedding.weight": torch.ones(26, 3)}), Letters())
    assert many["moved"] == 26 and len(many["furthest"]) == MOST


def test_the_report_lists_them(tmp_path):
    results = {"tasks": ["a"], "zero_shot_sets": [], "accuracy": [[0.5], [0.6]]}
    run = LoadedRun(RunDir(tmp_path), results, None)
    run.records = [None, {"geometry": {}}]
    run.analyses = [
        {"words": {"moved": 2, "furthest": [{"word": "tulip", "norm": 1.25}, {"word": "rose", "norm": 0.5}]}}
    ]
    table = next(b for b in moved_weights(run) if getattr(b, "caption", "").startswith("Words"))
    assert [cell.text for cell in table.rows[0]] == ["a", "2", "tulip 1.2, rose 0.5"]
