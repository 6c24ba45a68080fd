"""NuSA-CL, InfLoRA and KeepLoRA: the directions that they leave free, against what their authors' programs
compute, and formulas beside them that must not pass."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from builders.golden import FORMS, agrees, golden, tensor
from cl_complora.clip.model import load_clip
from cl_complora.config import load_scenario, load_strategy
from cl_complora.config.factors import GradientStart, InputsStart
from cl_complora.engine.build import build_adapter
from cl_complora.engine.constraints import Constraint, Subspaces
from cl_complora.engine.updates.input_directions import grown
from cl_complora.engine.updates.starts import gradient_start, inputs_start
from cl_complora.engine.updates.starts.gradient_start import (
    GradientStarting,
    from_gradient,
    principal_directions,
    root,
)
from cl_complora.engine.updates.starts.initialisation import CoreStarting
from cl_complora.engine.updates.starts.inputs_start import InputsStarting, leading, with_inputs
from cl_complora.errors import UserError
from cl_complora.lowrank import LowRankBlock
from cl_complora.subspace import Keep


def slot(weight: torch.Tensor, name: str = "w", tower: str = "vision"):
    """What is read of a slot here."""
    return SimpleNamespace(name=name, weight=weight, tower=tower)


def nusa_block(case: dict, select: str = "bottom", scaling: float | None = None):
    constraint = Constraint(select=select, keep=Keep("energy", case["rho"]))
    where = slot(tensor(case["weight"]))
    spaces = Subspaces([where], constraint, case["rank"], 0)
    spaces.refresh(0)
    ((output, input),) = spaces.sides(0)
    scaling = case["scaling"] if scaling is None else scaling
    start = CoreStarting().of(where, case["rank"], scaling, input)
    shape = where.weight.shape
    return spaces.split(where).k, LowRankBlock(
        *shape, case["rank"], scaling, output, input, start=start
    ).double()


def check_nusa(file: dict, case: dict, **changed) -> None:
    k, block = nusa_block(case, **changed)
    x, target, weight = (tensor(case[key]) for key in ("x", "target", "weight"))
    assert (k, block.rank) == (case["principal"], case["effective"])
    agrees(file, block.input_basis @ block.input_basis.mT, case["input_projector"], "input")
    agrees(file, block.output_basis @ block.output_basis.mT, case["output_projector"], "output")
    b, a = block.factors()
    loss = F.mse_loss(x @ (weight + b @ a).mT, target)
    agrees(file, loss, case["loss_before"], "loss")
    (gradient,) = torch.autograd.grad(loss, block.B)
    agrees(file, gradient.norm(), case["grad_M_norm"], "gradient")
    with torch.no_grad():
        block.B.copy_(-gradient)
        b, a = block.factors()
    agrees(file, b @ a, case["sgd_update_per_unit_rate"], "update")
    squares = torch.linalg.svdvals(weight).square()
    agrees(file, squares[k:].sum() / squares.sum(), case["share_of_energy_writable"], "writable")


@pytest.mark.parametrize("form", FORMS)
def test_nusa(form):
    file = golden("nusa", form)
    for case in file["cases"].values():
        check_nusa(file, case)


@pytest.mark.parametrize(
    "case, changed",
    [
        ("null_larger_than_rank", {"select": "top"}),
        ("null_smaller_than_rank", {"scaling": 2 / 3**0.5}),  # over the root of the smaller core
        ("null_smaller_than_rank", {"scaling": 1.0}),
    ],
)
def test_another_nusa_is_noticed(case, changed):
    file = golden("nusa")
    with pytest.raises((AssertionError, RuntimeError)):
        check_nusa(file, file["cases"][case], **changed)


def test_a_core_that_takes_its_room_from_what_is_principal_is_noticed(monkeypatch):
    """As it was: k cut so that a full-rank core fits."""
    monkeypatch.setattr(Subspaces, "_room", lambda self, slot: min(self.rank, min(slot.weight.shape) - 1))
    file = golden("nusa")
    with pytest.raises(AssertionError):
        check_nusa(file, file["cases"]["null_smaller_than_rank"])


def test_nusa_leaves_95_percent_of_the_embedded_model_alone():
    strategy = load_strategy("nusa").value
    adapter = build_adapter(strategy.adapter, 0)
    adapter.prepare(load_clip(load_scenario("embedded").value.model).model)
    adapter.subspaces.refresh(0)
    written = total = 0.0
    for where, sides in zip(adapter.slots, adapter.subspaces.sides(0), strict=True):
        output, input = (side.basis for side in sides)
        writable = float((output.mT @ where.weight.detach() @ input).square().sum())
        energy = float(where.weight.detach().square().sum())
        assert writable <= 0.0501 * energy, where.name
        written, total = written + writable, total + energy
    assert 0.005 * total < written <= 0.05 * total


def check_inflora(file: dict, case: dict, settings: InputsStart) -> None:
    plugin, basis = InputsStarting(settings), None
    plugin.tasks = case["sessions"]
    for index, task in enumerate(case["tasks"]):
        a = leading(tensor(task["covariance_before"]), basis, case["rank"], settings.rule) / 3**0.5
        expected = tensor(task["A"])
        agrees(file, a.mT @ a, expected.mT @ expected, f"A of task {index}")
        assert plugin.threshold(index) == pytest.approx(task["threshold"])
        basis = with_inputs(basis, tensor(task["covariance_after"]), plugin.threshold(index), settings.rule)
        assert basis.shape[1] == task["protected_rank"], index
        agrees(file, basis.double() @ basis.double().mT, task["protected_projector"], f"space {index}")


def inflora_settings(case: dict, **changed) -> InputsStart:
    return InputsStart(
        **{"kind": "inputs", "rule": "code", "energy": case["lamb"], "energy_end": case["lame"], **changed}
    )


@pytest.mark.parametrize("form", FORMS)
def test_inflora(form):
    file = golden("inflora", form)
    for case in file["cases"].values():
        check_inflora(file, case, inflora_settings(case))


@pytest.mark.parametrize("changed", [{"rule": "paper"}, {"energy_end": None}, {"energy": 0.9}])
def test_other_settings_of_inflora_are_noticed(changed):
    file = golden("inflora")
    case = file["cases"]["growing_threshold"]
    with pytest.raises(AssertionError):
        check_inflora(file, case, inflora_settings(case, **changed))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda basis, matrix, energy, fewer, least: grown(basis, matrix, energy),
        lambda basis, matrix, energy, fewer, least: grown(None, matrix, energy, fewer=fewer, least=least),
        lambda basis, matrix, energy, fewer, least: grown(
            basis, root(matrix), energy, fewer=fewer, least=least
        ),
    ],
    ids=["no direction fewer in the first task", "forgets the earlier tasks", "energy of the inputs"],
)
def test_another_inflora_is_noticed(monkeypatch, wrong):
    monkeypatch.setattr(
        inputs_start,
        "grown",
        lambda basis, matrix, energy, fewer=0, least=0: wrong(basis, matrix, energy, fewer, least),
    )
    file = golden("inflora")
    case = file["cases"]["growing_threshold"]
    with pytest.raises(AssertionError):
        check_inflora(file, case, inflora_settings(case))


def test_inflora_says_where_no_direction_is_left():
    plugin = InputsStarting(InputsStart(kind="inputs", energy=0.95))
    some, none = slot(torch.eye(4), "some"), slot(torch.eye(4), "none")
    plugin.used = {"some": torch.eye(4)[:, :3], "none": torch.eye(4)}
    plugin._seen = {name: torch.diag(torch.arange(4.0)) for name in plugin.used}
    assert plugin.of(some, 2, 1.0, None).a.shape == (1, 4)
    assert not plugin.of(none, 2, 1.0, None).a.any()
    assert ["leave 1 of 4" in plugin.notes[0], "leave 0 of 4" in plugin.notes[1]] == [True, True]
    with pytest.raises(UserError, match="task 'flags': .* lower adapter.start.energy"):
        plugin.look_ahead([none], None, SimpleNamespace(name="flags"))


def check_keeplora(file: dict, side: str = "published", **changed) -> None:
    given, out = file["inputs"], file["outputs"]
    weight, gradient = tensor(given["weight"]["vit_q"]), tensor(given["gradient_in_proj_q"])
    kept = principal_directions(weight, 0.85, side)
    assert kept.shape[1] == out["k"]["vit_q"]
    agrees(file, kept @ kept.mT, out["projector_q"], "kept")
    b, a = gradient_start.from_gradient(gradient, kept, file["rank"])
    agrees(file, (b @ a).mT, out["q_AB"], "start")

    plugin = GradientStarting(GradientStart(kind="gradient", side=side, **changed))
    plugin.kept, plugin._gradients = {"w": kept}, {"w": gradient}
    start = plugin.of(slot(weight), file["rank"], file["scaling"], None)
    assert start.b is not None
    agrees(file, (start.b @ start.a).mT, out["q_AB"], "taken off again")
    block = LowRankBlock(*weight.shape, file["rank"], file["scaling"], start=start).double()
    x, target = tensor(given["x"]), tensor(given["target"])
    optimiser = torch.optim.AdamW([p for p in block.parameters()], lr=1e-3, weight_decay=0.01)
    for step, expected in enumerate(out["losses"]):
        b, a = block.factors()
        assert (b.shape[1], a.shape[0]) == (file["rank"], file["rank"])
        loss = F.mse_loss(x @ (weight + b @ a).mT, target)
        agrees(file, loss, expected, f"loss of step {step}")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    b, a = block.factors()
    agrees(file, weight + b @ a, out["merged_q"], "merged")

    summed = tensor(given["features"]).sum(0)
    kept = gradient_start.grown(kept, root(summed.mT @ summed), plugin.settings.kept)
    assert kept.shape[1] == out["rank_after_features"]
    agrees(file, kept.double() @ kept.double().mT, out["projector_q_after_features"], "grown")
    b, a = gradient_start.from_gradient(tensor(given["next_gradient_q"]), kept, file["rank"])
    agrees(file, (b @ a).mT, out["next_q_AB"], "next start")


@pytest.mark.parametrize("form", FORMS)
def test_keeplora(form):
    check_keeplora(golden("keeplora", form))


@pytest.mark.parametrize(
    "changed",
    [{"side": "input"}, {"values": "zero"}, {"kept": 0.85}],
    ids=["side", "start of B", "threshold"],
)
def test_other_settings_of_keeplora_are_noticed(changed):
    with pytest.raises(AssertionError):
        check_keeplora(golden("keeplora"), **changed)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda gradient, basis, rank: from_gradient(gradient.mT, basis, rank),
        lambda gradient, basis, rank: from_gradient(-gradient, basis, rank),
        lambda gradient, basis, rank: from_gradient(gradient, basis[:, :0], rank),
        lambda gradient, basis, rank: tuple(reversed([f.mT for f in from_gradient(gradient, basis, rank)])),
    ],
    ids=["transposed", "sign", "nothing kept", "sides"],
)
def test_another_keeplora_is_noticed(monkeypatch, wrong):
    monkeypatch.setattr(gradient_start, "from_gradient", wrong)
    with pytest.raises(AssertionError):
        check_keeplora(golden("keeplora"))


def test_only_the_repaired_keeplora_keeps_what_a_weight_reads():
    weight = tensor(golden("keeplora")["inputs"]["weight"]["vit_q"])
    gradient = tensor(golden("keeplora")["inputs"]["gradient_in_proj_q"])
    true = principal_directions(weight, 0.85, "input")
    inside = {}
    for side in ("published", "input"):
        b, a = from_gradient(gradient, principal_directions(weight, 0.85, side), 2)
        inside[side] = float(((b @ a) @ true).norm() / (b @ a).norm())
    assert inside["input"] < 1e-12 and inside["published"] > 0.3


def test_the_published_keeplora_refuses_what_is_not_square():
    starting = GradientStarting(GradientStart(kind="gradient"))
    with pytest.raises(ValueError, match="fc is 8 × 4. side: input works with all"):
        starting.check([slot(torch.zeros(8, 4), "fc")])
    GradientStarting(GradientStart(kind="gradient", side="input")).check([slot(torch.zeros(8, 4), "fc")])
