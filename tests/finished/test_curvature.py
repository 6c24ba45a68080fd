"""Curvature: the authors' figures, dense Hessians, and what a run's strategies are measured in."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

from builders.golden import FORMS, golden, tensor
from builders.models import tiny_clip
from builders.steps import SPACE, experience
from cl_complora.cli import app
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.clip.slots import open_slots
from cl_complora.config import load_scenario, load_strategy
from cl_complora.engine.experience import ClipExperience
from cl_complora.errors import UserError
from cl_complora.finished import loss_curvature
from cl_complora.finished.lanczos import extremes
from cl_complora.finished.loss_curvature import TaskLoss, curvature, largest_of, swept_rate
from cl_complora.finished.states import find_state
from cl_complora.run.stream import run


def go(tiny_scenario, out, strategy, *settings):
    quick = load_strategy(strategy, ["training.steps=2", "training.batch_size=4", *settings])
    return run(load_scenario(str(tiny_scenario)), quick, out=out, analysis=False).folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_scenario):
    out = tmp_path_factory.mktemp("runs")
    few = {"complora": ["adapter.matrices=[q]"], "finetune": []}  # a matrix more is a Hessian more
    return {name: go(tiny_scenario, out, name, *settings) for name, settings in few.items()}


def loss_of(inputs, a, b):
    """The authors' small model: logits_t = tanh((W0 + B A) e_t) readoutᵀ, next-token cross-entropy."""
    ids, labels = torch.tensor(inputs["ids"]), torch.tensor(inputs["labels"])
    embedded = tensor(inputs["embedding"])[ids[:, :-1]]
    logits = torch.tanh(embedded @ (tensor(inputs["W0"]) + b @ a).mT) @ tensor(inputs["readout"]).mT
    return F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


@pytest.mark.parametrize("form", FORMS)
def test_the_authors_figures(form):
    for case in golden("lambda_max", form)["cases"]:
        inputs, outputs, exact = case["inputs"], case["outputs"], case["exact"]
        if "S" in inputs:
            matrix, start = tensor(inputs["S"]), tensor(inputs["start_vector"])
            found = extremes(lambda v, s=matrix: s @ v, start, 1e-9, inputs["max_iter"])
            assert found.largest == pytest.approx(exact["eigenvalues"][-1], rel=1e-6)
            # Power iteration would find −10 of this matrix, whose largest eigenvalue is 5.
            shifted = matrix - 4 * torch.eye(len(matrix), dtype=matrix.dtype)
            found = extremes(lambda v, s=shifted: s @ v, start, 1e-9, 12)
            assert found.largest == pytest.approx(5.000093, abs=1e-5)
            assert found.smallest == pytest.approx(-9.9999937, abs=1e-5)
            continue
        a, b = (tensor(inputs[key]).requires_grad_() for key in "AB")
        loss = loss_of(inputs, a, b)
        assert float(loss.detach()) == pytest.approx(exact["loss"], rel=1e-9)
        found = largest_of(lambda i=inputs, a=a, b=b: loss_of(i, a, b), [a, b], 0, 1e-10, 40)
        for key, value in (("lambda_max", found.largest), ("lambda_min", found.smallest)):
            assert value == pytest.approx(exact[key], rel=1e-6)
            assert value == pytest.approx(outputs[key], abs=1e-5, rel=1e-5)


def test_small_eigenvalues_are_found_as_exactly_as_large_ones():
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(20, 20, generator=generator, dtype=torch.float64)
    symmetric = square + square.mT
    start = torch.randn(20, generator=generator, dtype=torch.float64)
    true = float(torch.linalg.eigvalsh(symmetric)[-1])
    for scale in (1.0, 1e-9):
        found = extremes(lambda v, scale=scale: scale * (symmetric @ v), start, 1e-6, 20)
        assert found.largest / scale == pytest.approx(true, rel=1e-4)
        assert found.steps > 5


def test_an_eigenvalue_that_stays_for_a_step_is_not_taken_for_found():
    diagonal = torch.cat([torch.tensor([-10.0]), torch.linspace(-1, 1, 300, dtype=torch.float64)])
    start = torch.randn(301, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = extremes(lambda v: diagonal * v, start, 1e-2, 100)
    assert found.converged and abs(found.largest - 1) <= 1e-2 * 10


def test_what_the_loss_does_not_depend_on_is_flat():
    free, other = torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)
    assert largest_of(lambda: (free**2).sum(), [other], 0, 1e-3, 10).largest == 0.0
    assert largest_of(lambda: (free**2).sum(), [free, other], 0, 1e-3, 10).largest == pytest.approx(2.0)


def test_a_product_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        extremes(lambda v: v * float("nan"), torch.ones(3))


@pytest.mark.parametrize("strategy", ["complora", "finetune"])
def test_jointly_is_at_least_as_curved_as_any_module(runs, strategy):
    steps = {"complora": 60, "finetune": 15}[strategy]  # the latter has 63 modules
    found = curvature(find_state(runs[strategy], after="0"), ["cold"], most_images=4, most_steps=steps)
    assert found == json.loads((runs[strategy] / "curvature.json").read_text())
    (cold,) = found["tasks"]
    most = max(module["largest"] for module in cold["modules"].values())
    assert cold["joint"]["largest"] >= most * 0.99 > 0
    assert cold["images"] == 4 and found["learning_rate"] > 0
    if strategy == "complora":
        # B = 0 at the start: the A–A block is zero, and H indefinite.
        assert cold["joint"]["smallest"] < 0 and "free subspace" in found["coordinates"]


def test_what_matrices_share_is_one_coordinate(tmp_path, tiny_scenario, monkeypatch):
    """SD-LoRA's α: it is in the curvature of every matrix, and jointly one coordinate a task."""
    folder = go(tiny_scenario, tmp_path, "sdlora", "adapter.rank=2", "adapter.matrices=[q]")
    asked: list[list[int]] = []

    def noted(loss, parameters, *rest):
        asked.append([id(p) for p in parameters])
        return largest_of(loss, parameters, *rest)

    monkeypatch.setattr(loss_curvature, "largest_of", noted)
    (cold,) = curvature(find_state(folder, after="0"), ["cold"], most_images=4, most_steps=5)["tasks"]
    joint, *each = asked
    assert len(set(joint)) == len(joint) == 2 * len(each) + 1 and all(len(one) == 3 for one in each)
    model = find_state(folder, after="0").loaded.model
    sides = sum(sum(slot.weight.shape) for slot in open_slots(model) if slot.matrix == "q")
    assert cold["parameters"] == 2 * sides + 2


def test_what_was_found_of_other_tasks_stays(runs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs["complora"], copy)
    told: list[str] = []

    def stored(task: str, images: int = 2) -> list[dict]:
        state = find_state(copy, after="0")
        found = curvature(state, [task], images, most_steps=5, jointly_only=True, tell=told.append)
        assert [one["name"] for one in found["tasks"]] == [task]
        return json.loads((copy / "curvature.json").read_text())["tasks"]

    (cold,) = stored("cold")
    both = stored("warm")
    assert [one["name"] for one in both] == ["warm", "cold"] and both[1] == cold
    assert stored("cold") == both and not any("goes" in line for line in told)
    # On other images it is another loss: no row of the same table.
    assert [one["name"] for one in stored("cold", images=3)] == ["cold"]
    assert "curvature.json: what it said of warm was found with other settings and goes" in told
    (copy / "curvature.json").write_text('{"tasks": 3}')
    assert [one["name"] for one in stored("cold")] == ["cold"]


def test_modules_that_were_found_stay_where_a_task_is_asked_jointly(runs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs["complora"], copy)

    def stored(images: int = 2, jointly: bool = True) -> list[dict]:
        curvature(find_state(copy, after="0"), ["warm"], images, most_steps=2, jointly_only=jointly)
        return json.loads((copy / "curvature.json").read_text())["tasks"]

    whole = stored(jointly=False)
    assert whole[0]["modules"] and stored() == whole
    assert not stored(images=3)[0]["modules"]  # another loss
    damaged = json.loads((copy / "curvature.json").read_text()) | {"tasks": [{"name": "warm", "modules": 3}]}
    (copy / "curvature.json").write_text(json.dumps(damaged))
    assert stored(images=3)[0]["modules"] == {}


def test_the_order_of_images_does_not_matter(runs):
    from cl_complora.clip.classifier import ClipClassifier
    from cl_complora.data.tasks import load
    from cl_complora.engine.experience import experience_at
    from cl_complora.finished.evaluation import plans_of

    state = find_state(runs["complora"], after="0")
    loaded = state.loaded
    data = load(plans_of(state), "task-incremental", loaded.pixels)
    model = ClipClassifier(loaded.model, loaded.tokenizer, mean=loaded.mean, std=loaded.std)
    loss = TaskLoss(model, experience_at("sequential", data.tasks, 0), 100)
    model.requires_grad_(False)
    weight = model.clip.visual.proj.requires_grad_()
    first = largest_of(loss, [weight], 0, 1e-5, 50).largest
    images, space = loss.parts[0]
    order = torch.arange(len(images)).flip(0)
    loss.parts = [(type(images)(images.pixels[order], images.labels[order]), space)]
    assert largest_of(loss, [weight], 0, 1e-5, 50).largest == pytest.approx(first, rel=1e-3)


def test_the_rate_that_a_sweep_chose_is_beside_it(tmp_path):
    folder = tmp_path / "embedded" / "lora" / "seed0"
    folder.mkdir(parents=True)
    assert swept_rate(folder, "lora") is None
    found = {"methods": {"lora": {"chosen": {"optimiser.lr": 0.004}}, "er": {"chosen": {}}}}
    (tmp_path / "comparison.json").write_text(json.dumps(found))
    assert swept_rate(folder, "lora")["lr"] == 0.004
    assert swept_rate(folder, "er") is None
    (tmp_path / "comparison.json").write_text("[" * 200_000)
    assert swept_rate(folder, "lora") is None
    (tmp_path / "comparison.json").unlink()
    os.mkfifo(tmp_path / "comparison.json")  # which nobody waits for
    assert swept_rate(folder, "lora") is None


@pytest.mark.parametrize("earlier", ["[" * 200_000, "3", '{"tasks": 3}', "pipe"])
def test_what_an_earlier_call_left_is_read_without_trust(tmp_path, earlier):
    file = tmp_path / loss_curvature.FILE
    os.mkfifo(file) if earlier == "pipe" else file.write_text(earlier)
    assert loss_curvature._kept(file, {"coordinates": "", "created_with": {}, "tasks": []}, print) == []


def test_what_has_no_coordinates_is_refused(tmp_path, tiny_scenario, runs):
    frozen = go(tiny_scenario, tmp_path, "zeroshot")
    with pytest.raises(UserError, match="trains no weights"):
        curvature(find_state(frozen, after="0"))
    with pytest.raises(UserError, match="--task lukewarm: .* has the tasks warm, cold"):
        curvature(find_state(runs["complora"], after="0"), ["lukewarm"])


def test_a_task_whose_state_is_not_kept(runs, tmp_path, tiny_scenario):
    """Of most strategies the deltas say all; InfLoRA's factors start from what it saw of earlier tasks."""
    inflora = go(tiny_scenario, tmp_path, "inflora")
    for folder in (runs["complora"], inflora):
        copy = tmp_path / "without" / folder.parent.name
        shutil.copytree(folder, copy)
        shutil.rmtree(copy / "state", ignore_errors=True)
    settings = {"most_images": 2, "most_steps": 5, "jointly_only": True}
    found = curvature(find_state(tmp_path / "without" / "complora", after="0"), ["cold"], **settings)
    whole = curvature(find_state(runs["complora"], after="0"), ["cold"], **settings)
    assert found["tasks"] == whole["tasks"]
    with pytest.raises(UserError, match="carried on after 'warm', which is not kept"):
        curvature(find_state(tmp_path / "without" / "inflora", after="0"), ["cold"], **settings)


def test_the_command_and_the_report(runs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs["complora"], copy)
    done = CliRunner().invoke(app, ["curvature", str(copy), "--images", "4", "--jointly", "--steps", "8"])
    assert done.exit_code == 0, done.output
    assert "all jointly" in done.output and "trained with optimiser.lr" in done.output
    assert CliRunner().invoke(app, ["report", str(copy)]).exit_code == 0
    assert "How curved the loss is" in (copy / "report.html").read_text(encoding="utf-8")


def test_every_task_counts_where_all_share_their_classes(tokenizer):
    model = ClipClassifier(tiny_clip(), tokenizer, SPACE)
    parts = [experience(images, SPACE).parts[0] for images in (4, 5)]
    loss = TaskLoss(model, ClipExperience(parts, 1), 10)
    pixels, labels = (torch.cat([getattr(part.train, one) for part in parts]) for one in ("pixels", "labels"))
    assert loss.images == 9
    assert float(loss()) == pytest.approx(float(F.cross_entropy(model(pixels, SPACE), labels)), rel=1e-5)
