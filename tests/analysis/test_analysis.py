"""Geometry, drift and stored answers: against plain references, equal after a resume, without effect on the
run."""

from __future__ import annotations

import functools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from builders.interruptions import Stop, StopAfter
from builders.models import tiny_clip
from builders.runs import without_timings
from cl_complora.analysis import observer
from cl_complora.analysis.geometry import GeometryWatch, Spectrum, Update
from cl_complora.analysis.representation import linear_cka, spread
from cl_complora.clip.slots import open_slots
from cl_complora.config import load_scenario, load_strategy
from cl_complora.run.stream import run
from cl_complora.store.folder import RunDir


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_a_spectrum_rebuilds_its_matrix(rows, columns, seed):
    weight = random(rows, columns, seed=seed)
    found = Spectrum.of(weight)
    torch.testing.assert_close(found.u * found.sigma @ found.v.mT, weight, atol=1e-5, rtol=1e-5)
    energies = found.sigma.double().square().cumsum(0) / found.sigma.double().square().sum()
    assert float(energies[found.k - 1]) >= 0.5 - 1e-9 and (found.k == 1 or float(energies[found.k - 2]) < 0.5)
    points = found.points()
    assert points[0] == float(found.sigma[0]) and points[-1] == float(found.sigma[-1]) and len(points) <= 32


@pytest.mark.parametrize("shape", [(400, 390), (390, 400)])
def test_the_spectrum_of_a_large_matrix_is_its_own(shape):
    weight = random(*shape) * torch.logspace(0, -4, shape[1])
    _, sigma, _ = torch.linalg.svd(weight.double(), full_matrices=False)
    found = Spectrum.of(weight)
    torch.testing.assert_close(found.sigma.double(), sigma, atol=1e-6 * float(sigma[0]), rtol=1e-5)
    clear = min(found.u.shape[1], found.v.shape[1])
    rebuilt = found.u[:, :clear] * found.sigma[:clear] @ found.v[:, :clear].mT
    assert float(torch.linalg.matrix_norm(rebuilt - weight, 2)) < 2e-3 * float(sigma[0])
    for directions in (found.u, found.v):
        product = directions[:, : found.k].mT @ directions[:, : found.k]
        torch.testing.assert_close(product, torch.eye(found.k), atol=1e-5, rtol=0)


def test_the_spectrum_of_factors_is_that_of_their_product():
    b, a = random(40, 3), random(3, 30, seed=1)
    found, whole = Spectrum.of_factors(b, a), Spectrum.of(b @ a)
    torch.testing.assert_close(found.sigma, whole.sigma[:3], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.u * found.sigma @ found.v.mT, b @ a, rtol=1e-4, atol=1e-4)
    assert found.k == whole.k and found.leading()[0].shape == whole.leading()[0].shape


def test_effective_rank_of_known_matrices():
    assert Spectrum.of(torch.eye(7)).effective_rank() == pytest.approx(7)
    assert Spectrum.of(torch.outer(random(5), random(9, seed=1))).effective_rank() == pytest.approx(
        1, abs=1e-3
    )
    assert Spectrum.of(torch.zeros(3, 3)).effective_rank() == 0


@pytest.mark.parametrize("large", [False, True])  # which go through Gram matrices, and updates by factors
def test_geometry_against_its_definitions(monkeypatch, large):
    if large:
        monkeypatch.setattr("cl_complora.analysis.geometry.LARGE", 1)
    slot = open_slots(tiny_clip())[0]
    before = slot.weight.detach().clone().double()
    out, inputs = before.shape
    factors = (random(out, 2, seed=1), random(2, inputs, seed=2)), (random(out, 3, seed=3), random(3, inputs))
    first, second = (b @ a for b, a in factors)
    watch = GeometryWatch([slot])
    watch.before()
    with torch.no_grad():
        slot.weight.add_(first)
    watch.after("first", {slot.name: Update(first, factors[0])})
    watch.before()
    middle = slot.weight.detach().clone().double()
    with torch.no_grad():
        slot.weight.add_(second)
    (found,) = watch.after("second", {slot.name: Update(second, factors[1])}).values()

    u, sigma, vh = torch.linalg.svd(middle)
    k = int((sigma.square().cumsum(0) < 0.5 * sigma.square().sum()).sum()) + 1
    inside = (
        (torch.eye(out) - u[:, :k] @ u[:, :k].mT) @ second.double() @ (torch.eye(inputs) - vh[:k].mT @ vh[:k])
    )
    norm = torch.linalg.matrix_norm(second.double())
    assert found["principal_rank"] == k and found["delta_norm"] == pytest.approx(float(norm), rel=1e-5)
    assert found["relative_norm"] == pytest.approx(float(norm / torch.linalg.matrix_norm(middle)), rel=1e-5)
    share = torch.linalg.matrix_norm(second.double() - inside) / norm
    assert found["principal_overlap"] == pytest.approx(float(share), rel=1e-4)
    u_after, _, vh_after = torch.linalg.svd(middle + second.double())
    angles = [
        torch.linalg.svdvals(u[:, :k].mT @ u_after[:, :k]).clamp(max=1).arccos(),
        torch.linalg.svdvals(vh[:k] @ vh_after[:k].mT).clamp(max=1).arccos(),
    ]
    expected = float(torch.stack([angle.sin().square().mean() for angle in angles]).mean())
    assert found["drift"] == pytest.approx(expected, abs=1e-4)
    q_left, q_right = torch.linalg.qr(first.double()).Q[:, :2], torch.linalg.qr(first.mT.double()).Q[:, :2]
    sides = (q_left.mT @ second.double(), second.double() @ q_right)
    expected = float(sum(torch.linalg.matrix_norm(side) for side in sides) / 2 / norm)
    assert found["overlap_with"] == {"first": pytest.approx(expected, rel=1e-4)}
    assert found["update_rank"] <= 3 + 1e-6
    assert found["spectrum_before"][0] == pytest.approx(float(sigma[0]), rel=1e-5)


def test_what_does_not_move_is_not_reported():
    slots = open_slots(tiny_clip())
    watch = GeometryWatch(slots)
    watch.before()
    assert watch.after("one", {slots[0].name: Update(torch.zeros_like(slots[0].weight))}) == {}


@given(st.integers(3, 30), st.integers(1, 6), st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_cka_is_a_similarity(images, width, seed):
    x = random(images, width, seed=seed).double()
    y = random(images, width + 1, seed=seed + 1).double()
    turn = torch.linalg.qr(random(width, width, seed=seed + 2).double()).Q
    assert linear_cka(x, x) == pytest.approx(1)
    assert linear_cka(x @ turn * 3 + 5, x) == pytest.approx(1)
    assert 0 <= linear_cka(x, y) <= 1 + 1e-9 and linear_cka(x, y) == pytest.approx(linear_cka(y, x))
    centred = [m - m.mean(0) for m in (x, y)]
    k, other = (m @ m.mT for m in centred)  # the definition by Gram matrices of the images
    hsic = float((k * other).sum() / (torch.linalg.matrix_norm(k) * torch.linalg.matrix_norm(other)))
    assert linear_cka(x, y) == pytest.approx(hsic)


def test_cka_of_what_does_not_vary_is_undefined():
    assert math.isnan(linear_cka(torch.ones(4, 3), random(4, 3)))


@pytest.mark.parametrize("images", [0, 1, 255, 256, 257, 5000])
def test_the_sample_is_spread_and_fixed(images):
    places = spread(images)
    assert len(places) == min(images, 256) and len(places.unique()) == len(places)
    assert not len(places) or (int(places.min()) == 0 and int(places.max()) >= images - images // 256 - 1)


def go(tiny_scenario, out, strategy="complora", **options):
    quick = load_strategy(strategy, ["training.steps=3", "training.batch_size=4"])
    return run(load_scenario(str(tiny_scenario)), quick, out=out, **options)


def analyses(folder) -> dict[str, dict]:
    found = {}
    for path in sorted((folder / "analysis").iterdir()):
        found[path.name] = json.loads(path.read_text())
        del found[path.name]["seconds"]
    return found


@pytest.fixture(scope="module")
def watched(tmp_path_factory, tiny_scenario):
    """Strategy → its run, made once and for reading only."""
    return functools.cache(lambda strategy: go(tiny_scenario, tmp_path_factory.mktemp("watched"), strategy))


@pytest.mark.parametrize("strategy", ["complora", "finetune", "tokens"])
def test_looking_changes_nothing(tmp_path, tiny_scenario, watched, strategy):
    whole = watched(strategy)
    blind = go(tiny_scenario, tmp_path, strategy, analysis=False)
    assert without_timings(whole.results) == without_timings(blind.results)
    assert not (blind.folder / "analysis").exists() and not (blind.folder / "features").exists()
    found = analyses(whole.folder)
    assert [sorted(one["cka"]) for one in found.values()] == [[], ["warm"]]
    assert bool(found["001-warm.json"]["matrices"]) == (strategy != "tokens")


@pytest.mark.parametrize("strategy", ["complora", "finetune"])
def test_an_interrupted_run_leaves_the_same_analysis(tmp_path, tiny_scenario, watched, strategy):
    with pytest.raises(Stop):
        go(tiny_scenario, tmp_path, strategy, progress=StopAfter(1))
    assert analyses(go(tiny_scenario, tmp_path, strategy).folder) == analyses(watched(strategy).folder)


@pytest.mark.parametrize(("strategy", "looks"), [("complora", 3), ("zeroshot", 2), ("nearest-mean", 2)])
def test_features_are_computed_again_only_where_weights_have_moved(
    tmp_path, tiny_scenario, strategy, looks, monkeypatch
):
    looked = []
    real = observer.known_features
    monkeypatch.setattr(observer, "known_features", lambda *given: looked.append(1) or real(*given))
    found = analyses(go(tiny_scenario, tmp_path, strategy).folder)
    assert len(looked) == looks
    assert (found["002-cold.json"]["cka"]["warm"] == pytest.approx(1, abs=1e-9)) == (strategy != "complora")


def test_the_stored_answers_are_those_of_the_matrix(watched):
    done = watched("complora")
    folder = RunDir(done.folder)
    classes = folder.read_json(folder.classes)
    for state, name in enumerate(["zero-shot", *done.results["tasks"]]):
        answers = load_file(folder.predictions(state - 1, name))
        for column, task in enumerate([*done.results["tasks"], *done.results["zero_shot_sets"]]):
            lines = [json.loads(line) for line in folder.split(task).read_text().splitlines()]
            truth = [
                classes[task]["classes"].index(line["class"]) for line in lines if line["split"] == "test"
            ]
            share = float(np.mean(answers[f"{task}/label"].numpy() == np.array(truth)))
            row = done.results["accuracy"][state] if column < 2 else done.results["zero_shot"][task]
            assert share == pytest.approx(row[column] if column < 2 else row[state])
            assert bool(((answers[f"{task}/share"] > 0) & (answers[f"{task}/share"] <= 1)).all())
