"""Updates that are stored by row: every matrix that moved is seen, whichever way its change is kept."""

from __future__ import annotations

import json

import pytest
import torch

from builders.models import tiny_clip
from cl_complora.analysis.changes import change_of_parameter
from cl_complora.clip.model import load_clip
from cl_complora.clip.slots import open_slots
from cl_complora.compare.updates import measure_updates
from cl_complora.config import load_scenario, load_strategy
from cl_complora.delta import TaskDelta
from cl_complora.run.stream import run
from cl_complora.store.deltas import save_delta
from cl_complora.store.folder import RunDir


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def attention():
    """q, k and v of one block, which are rows of one weight."""
    slots = open_slots(tiny_clip())
    return [slot for slot in slots if slot.parameter == slots[0].parameter]


def test_rows_and_the_whole_say_the_same_of_every_matrix(attention):
    width = attention[0].rows.stop
    whole = torch.zeros(3 * width, width)
    whole[-3:], whole[1] = random(3, width), random(width, seed=1)  # some rows of v, and one of q
    by_row, dense = TaskDelta.of_changes({attention[0].parameter: whole}), TaskDelta()
    dense.dense[attention[0].parameter] = whole
    assert list(by_row.rows) == list(dense.dense)
    for slot in attention:
        found = change_of_parameter(by_row, slot)
        assert torch.equal(found, change_of_parameter(dense, slot)) and torch.equal(found, whole[slot.rows])
    assert change_of_parameter(TaskDelta(), attention[0]) is None


def test_a_run_that_moves_one_of_q_k_and_v_has_a_geometry(tmp_path, tiny_scenario):
    quick = ["training.steps=2", "training.batch_size=4", "adapter.rank=2", "adapter.matrices=[v]"]
    located = load_scenario(str(tiny_scenario))
    folder = run(located, load_strategy("dora", quick), out=tmp_path).folder
    for place, task in enumerate(("warm", "cold")):
        path = RunDir(folder).analysis(place, task)
        matrices = json.loads(path.read_text(encoding="utf-8"))["matrices"]
        assert matrices and all(name.endswith(".v") for name in matrices)
        assert all(("warm" in one["overlap_with"]) == (task == "cold") for one in matrices.values())
    for row in measure_updates(folder, located):
        assert row["matrix_norm"] == pytest.approx(row["norm"], rel=1e-5) and row["principal"] > 0


def test_a_matrix_that_nothing_moved_before_has_no_earlier_directions(tmp_path, tiny_scenario):
    """Factors of rank zero, which pruned and undrawn matrices have, are no direction to lie in."""
    scenario = load_scenario(str(tiny_scenario))
    one, other = open_slots(load_clip(scenario.value.model, scenario.folder).model)[:2]

    def pair(slot, seed: int, size: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        out, inputs = slot.weight.shape
        return size * random(out, 1, seed=seed), random(1, inputs, seed=seed + 1)

    deltas = [
        TaskDelta(factors={one.key: pair(one, 0), other.key: pair(other, 2, 0.0)}),
        TaskDelta(factors={one.key: pair(one, 0, 0.0), other.key: pair(other, 4)}),
    ]
    (tmp_path / "deltas").mkdir()
    for index, delta in enumerate(deltas):
        (tmp_path / "deltas" / f"{index + 1:03d}-t{index}.safetensors").write_bytes(save_delta(delta))
    (tmp_path / "results.json").write_text(json.dumps({"tasks": ["t0", "t1"]}))
    _, second = measure_updates(tmp_path, scenario)
    assert second["earlier"] == 0.0 and second["cosine"] == 0.0
