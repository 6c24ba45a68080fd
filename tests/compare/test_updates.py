"""Measured updates: of factors as of whole matrices, kept as long as they are of the run's files."""

from __future__ import annotations

import json
import os

import pytest
import torch

from cl_complora.compare import updates
from cl_complora.compare.update_rows import are_rows
from cl_complora.compare.updates import EARLIER, Used, _Change, _Measure, measure_updates
from cl_complora.config import load_scenario
from cl_complora.delta import TaskDelta
from cl_complora.store.deltas import save_delta
from cl_complora.store.folder import RunDir
from cl_complora.subspace import overlap


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def low_rank(out: int, inputs: int, seed: int, rank: int = 3) -> _Change:
    b, a = random(out, rank, seed=seed), random(rank, inputs, seed=seed + 1)
    return _Change(b @ a, (b, a))


def dense_leading(changes: list[_Change]) -> torch.Tensor:
    """As it is defined: eigenvectors of Σ ΔW ΔWᵀ."""
    gram = sum(c.whole @ c.whole.mT for c in changes)
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0), vectors.flip(1)
    return vectors[:, : int((values.cumsum(0) < EARLIER * values.sum()).sum()) + 1]


@pytest.mark.parametrize("out", [40, 8])
def test_directions_from_factors_are_those_of_the_dense_sum(out):
    """Of 8 rows the ranks of three updates are more than the map's, which is then kept whole."""
    seen = [low_rank(out, 24, seed) for seed in (0, 2, 4)]
    for turned in (False, True):
        changes = [c.turned() if turned else c for c in seen]
        used = Used(len(changes[0].whole))
        for change in changes:
            used.add(change)
        assert (used.gram is None) == (len(changes[0].whole) > 9)
        mine, dense = used.leading(), dense_leading(changes)
        assert mine.shape == dense.shape
        assert float((mine @ mine.mT - dense @ dense.mT).abs().max()) < 1e-9
        new = low_rank(out, 24, 9)
        probe = new.whole.mT if turned else new.whole
        assert overlap(probe, mine) == pytest.approx(overlap(probe, dense), abs=1e-9)


def test_a_whole_update_joins_those_of_factors():
    changes = [low_rank(20, 12, 0), _Change(random(20, 12, seed=5)), low_rank(20, 12, 7)]
    used = Used(20)
    for change in changes:
        used.add(change)
    mine, dense = used.leading(), dense_leading(changes)
    assert float((mine @ mine.mT - dense @ dense.mT).abs().max()) < 1e-9


def test_no_matrix_of_a_map_s_size_is_decomposed_for_low_rank_updates(monkeypatch):
    sizes, whole = [], torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda m: sizes.append(len(m)) or whole(m))
    used = Used(300)
    for seed in (0, 2):
        used.add(low_rank(300, 24, seed))
    assert used.leading().shape[1] <= 6 and sizes == [6]


@pytest.fixture
def measured(tmp_path, tiny_scenario):
    """A run of two low-rank tasks, its scenario, and what is measured of it."""
    from cl_complora.clip.model import load_clip
    from cl_complora.clip.slots import open_slots

    scenario = load_scenario(str(tiny_scenario))
    slot = open_slots(load_clip(scenario.value.model, scenario.folder).model)[0]
    run = RunDir(tmp_path)
    (tmp_path / "deltas").mkdir()
    for index, name in enumerate(("t0", "t1")):
        _, (b, a) = low_rank(*slot.weight.shape, seed=index)
        content = save_delta(TaskDelta(factors={slot.key: (b.float(), a.float())}))
        run.delta(index, name).write_bytes(content)
    run.results.write_text(json.dumps({"tasks": ["t0", "t1"]}))
    return run, scenario, measure_updates(tmp_path, scenario)


@pytest.mark.parametrize(
    "content", ["{", "[]", "[1, 2]", '[{"norm": 1}, {"norm": 1}]', '{"norm": 1}', "[null, null]"]
)
def test_a_damaged_file_of_updates_is_measured_again(measured, content):
    run, scenario, rows = measured
    run.updates.write_text(content)
    assert measure_updates(run.root, scenario) == rows
    assert json.loads(run.updates.read_text()) == rows


def test_updates_of_deltas_that_were_learned_again_are_measured_again(measured):
    run, scenario, rows = measured
    run.delta(1, "t1").write_bytes(run.delta(0, "t0").read_bytes())
    later = run.updates.stat().st_mtime_ns + 10**9
    os.utime(run.delta(1, "t1"), ns=(later, later))
    again = measure_updates(run.root, scenario)
    assert again[0] == rows[0] and again[1]["cosine"] == pytest.approx(1)


def test_what_is_there_and_whole_is_not_measured_again(measured, monkeypatch):
    run, scenario, rows = measured
    monkeypatch.setattr(updates, "_Measure", None)
    assert measure_updates(run.root, scenario) == rows


def test_a_worker_splits_the_same_weights_once(measured, monkeypatch):
    run, scenario, rows = measured
    whole, split = updates.principal, []
    monkeypatch.setattr(updates, "principal", lambda *words, **more: split.append(1) or whole(*words, **more))
    updates._PRINCIPAL.clear()
    for _ in range(2):
        run.updates.unlink()
        assert measure_updates(run.root, scenario) == rows
    # Of the one map that moved; of other weights the next, in place of these.
    assert len(split) == 1 and len(updates._PRINCIPAL) == 1
    updates._principal_of("others")
    assert list(updates._PRINCIPAL) == ["others"]


def test_rows_need_every_figure():
    whole = {"norm": 1.0, "matrix_norm": 1, "principal": None, "earlier": 0.5, "cosine": -0.1}
    assert are_rows([whole], 1) and are_rows([], 0)
    for key in whole:
        assert not are_rows([{name: value for name, value in whole.items() if name != key}], 1)
    assert not are_rows([whole | {"norm": None}], 1) and not are_rows([whole | {"cosine": True}], 1)


def test_the_cosine_is_to_all_that_earlier_updates_moved(tiny_scenario):
    """Also where this one leaves some of their maps alone; 1 / √(1 + 10²) here."""
    measure = _Measure(load_scenario(str(tiny_scenario)))
    first, second = list(measure.slots)[:2]

    def delta(**sizes: float) -> TaskDelta:
        found = {}
        for key, size in ((first, sizes.get("one", 0.0)), (second, sizes.get("other", 0.0))):
            if size:
                rows, columns = measure.slots[key].weight.shape
                b, a = torch.zeros(rows, 1), torch.zeros(1, columns)
                b[0], a[0, 0] = size, 1.0
                found[key] = (b, a)
        return TaskDelta(factors=found)

    assert measure.add(delta(one=1.0, other=10.0))["cosine"] is None
    row = measure.add(delta(one=1.0))
    assert row["cosine"] == pytest.approx(101**-0.5) and row["earlier"] == pytest.approx(1)
