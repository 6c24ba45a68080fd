"""XGBLoRA, AdaLoRA and PRILoRA, whose ranks change with depth or within a task, against known figures and
formulas beside them that must not pass."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from builders.golden import FORMS, agrees, golden, tensor
from builders.steps import step_of
from cl_complora.config.factors import Boosters, Budget
from cl_complora.config.penalties import Orthonormal
from cl_complora.engine.updates import budget
from cl_complora.engine.updates.boosters import Boosted, BoostersPlugin
from cl_complora.engine.updates.budget import BudgetPlugin, budget_at, from_orthonormal, smoothed
from cl_complora.lowrank import LowRankBlock

importance = BudgetPlugin.importance


def two_layers(
    plugin, weights: dict[str, torch.Tensor], rank: int, s: float = 1.0
) -> dict[str, LowRankBlock]:
    """Blocks of y = q(tanh(p(x))), one in each of two layers."""
    slots = [
        SimpleNamespace(name=name, tower="", layer=place, weight=weight)
        for place, (name, weight) in enumerate(weights.items())
    ]
    plugin.begin(slots, 0)
    blocks = {
        slot.name: LowRankBlock(*slot.weight.shape, rank, s, between=plugin.of(slot, rank)).double()
        for slot in slots
    }
    return blocks


def check_xgblora(file: dict, monkeypatch, adam: bool = False) -> None:
    given, out = file["inputs"], file["outputs"]
    weights = {"p": tensor(given["W_p"]), "q": tensor(given["W_q"])}
    x, target, steps = tensor(given["x"]), tensor(given["target"]), given["steps_per_booster"]
    plugin = BoostersPlugin(Boosters(kind="boosters", steps=steps), 0)

    def first(name: str, block: LowRankBlock) -> torch.Tensor:
        return tensor(given["boosters"][plugin._booster]["A_init"].get(name, block.A.tolist()))

    def chosen() -> set:
        return {("", "pq".index(name)) for name in given["boosters"][plugin._booster]["layers"]}

    monkeypatch.setattr(plugin, "first", first)
    monkeypatch.setattr(plugin, "chosen", chosen)
    blocks = two_layers(plugin, weights, 1)
    plugin.begun(blocks)
    for name, block in blocks.items():
        block.A.data = first(name, block)
    parameters = [p for block in blocks.values() for p in block.parameters()]
    optimiser = torch.optim.SGD(parameters, lr=given["lr"])
    total = steps * len(out["boosters"])
    for step in range(total):
        expected = out["boosters"][step // steps]
        now = {name: weight + blocks[name].update() for name, weight in weights.items()}
        loss = F.mse_loss(torch.tanh(x @ now["p"].mT) @ now["q"].mT, target)
        agrees(file, loss, expected["losses"][step % steps], f"loss of step {step}")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % steps == steps - 1:
            for name in weights:
                agrees(file, weights[name] + blocks[name].update(), expected[f"W_{name}"], f"W of {name}")
        plugin.after_update(step_of(total, step + 1, optimiser))
    assert torch.linalg.matrix_rank(blocks["p"].update()) == out["rank_of_total_update_p"]


@pytest.mark.parametrize("form", FORMS)
def test_xgblora(form, monkeypatch):
    check_xgblora(golden("xgblora", form), monkeypatch)


def _forgets(self, b, a):
    return b, a


def _all_trained(self, b, a):
    return (b, a) if self.held is None else (torch.cat([self.held[0], b], 1), torch.cat([self.held[1], a]))


def _subtracts(self, b, a):
    held = self.held and (-self.held[0], self.held[1])
    return _all_trained(SimpleNamespace(held=held), b, a) if self.active else held or (b.detach(), a.detach())


@pytest.mark.parametrize("wrong", [_forgets, _all_trained, _subtracts])
def test_other_boosters_are_noticed(monkeypatch, wrong):
    monkeypatch.setattr(Boosted, "forward", wrong)
    with pytest.raises(AssertionError):
        check_xgblora(golden("xgblora"), monkeypatch)


def test_a_booster_begins_with_nothing_but_the_sum_of_those_before_it():
    plugin = BoostersPlugin(Boosters(kind="boosters", steps=2, share=0.5), 3)
    blocks = two_layers(plugin, {name: torch.randn(4, 5) for name in "pq"}, 1)
    plugin.begun(blocks)
    assert sum(block.between.active for block in blocks.values()) == 1
    optimiser = torch.optim.AdamW([p for b in blocks.values() for p in b.parameters()], 0.1, weight_decay=0.5)
    starts = []
    for step in range(1, 9):
        idle = next(block for block in blocks.values() if not block.between.active)
        before = {name: block.update().detach() for name, block in blocks.items()}
        drawn = idle.A.detach().clone()
        optimiser.zero_grad()
        sum((block.update() - 1).square().sum() for block in blocks.values()).backward()
        optimiser.step()
        changed = [not torch.equal(block.update(), before[name]) for name, block in blocks.items()]
        assert changed == [block.between.active for block in blocks.values()]
        assert torch.equal(idle.A, drawn)  # weight decay leaves it alone as well
        reached = {name: block.update().detach() for name, block in blocks.items()}
        plugin.after_update(step_of(8, step, optimiser))
        assert all(torch.allclose(block.update(), reached[n], atol=1e-12) for n, block in blocks.items())
        if step % 2 == 0 and step < 8:
            assert not optimiser.state and not any(block.B.any() for block in blocks.values())
            starts.append(torch.cat([block.A.detach() for block in blocks.values()]))
    assert len(starts) == 3 and not torch.equal(starts[0], starts[1])

    # A process that goes on within the task begins with what was held.
    state = {key: value.clone() for key, value in plugin.step_state().items()}
    after = BoostersPlugin(Boosters(kind="boosters", steps=2, share=0.5), 3)
    others = two_layers(after, {name: torch.randn(4, 5) for name in "pq"}, 1)
    after.begun(others)
    after.load_step_state(state)
    for name, block in others.items():
        block.load_state_dict(blocks[name].state_dict())
        assert torch.equal(block.update(), blocks[name].update())
        assert block.between.active == blocks[name].between.active


def check_adalora(file: dict) -> None:
    given, out = file["inputs"], file["outputs"]
    start = {key: tensor(value) for key, value in given["parameters"].items()}
    weights = {name: start[f"{name}.weight"] for name in "pq"}
    rank, steps = given["r"], given["total_step"]
    shares = {"warmup": given["init_warmup"] / steps, "final": given["final_warmup"] / steps}
    settings = Budget(
        kind="budget",
        kept=given["target_rank"] / rank,
        every=given["mask_interval"],
        betas=[given["beta1"], given["beta2"]],
        **shares,
    )
    planned = [list(budget.budget_at(settings, 2 * rank, step, steps)[:2]) for step in range(1, steps + 1)]
    assert planned == out["schedule_step_1_to_12"]

    plugin = BudgetPlugin(settings)
    blocks = two_layers(plugin, weights, rank, given["alpha"] / (rank + 1e-5))
    biases = {name: start[f"{name}.bias"].requires_grad_() for name in "pq"}
    for name, block in blocks.items():
        block.A.data, block.B.data = start[f"{name}.lora_A"], start[f"{name}.lora_B"]
        block.between.g.data = start[f"{name}.lora_E"].squeeze(1)
    plugin.begun(blocks)
    factors = [factor for block in blocks.values() for factor in (block.A, block.B)]
    adapter = SimpleNamespace(trained_factors=lambda: factors)
    how = Orthonormal(kind="orthonormal", strength=given["orth_weight"])
    penalty = budget.OrthonormalPlugin(how, adapter, 0)
    agrees(file, penalty.penalty(None), out["orth_regu_at_start"], "penalty")

    def forward() -> torch.Tensor:
        p, q = (weights[name] + block.update() for name, block in blocks.items())
        return torch.tanh(tensor(given["x"]) @ p.mT + biases["p"]) @ q.mT + biases["q"]

    agrees(file, forward(), out["forward_at_start"], "output")
    trained = [p for block in blocks.values() for p in block.parameters()] + list(biases.values())
    optimiser = torch.optim.SGD(trained, lr=given["lr"])
    for step, expected in enumerate(out["steps"], 1):
        loss = F.mse_loss(forward(), tensor(given["target"])) + penalty.penalty(None)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        plugin.after_update(step_of(steps, step))
        if expected["threshold"] is not None:
            assert plugin.bar.item() == pytest.approx(expected["threshold"], rel=1e-6), step
        for name, block in blocks.items():
            agrees(file, block.between.g, expected[f"E_{name}"], f"e of {name} after step {step}")
            assert int(block.between.g.count_nonzero()) == expected["nonzero"]["pq".index(name)]
    for name, block in blocks.items():
        agrees(file, block.update(), out[f"delta_W_{name}"], f"update of {name}")
    agrees(file, forward(), out["forward_at_end"], "output at the end")


@pytest.mark.parametrize("form", FORMS)
def test_adalora(form):
    check_adalora(golden("adalora", form))


def _no_cube(settings, ranks, step, steps):
    kept, chosen, looked = budget_at(settings, ranks, step, steps)
    return kept, chosen and step > 8, looked


def _looks_to_the_end(settings, ranks, step, steps):
    return *budget_at(settings, ranks, step, steps)[:2], True


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("budget_at", _no_cube),
        ("budget_at", _looks_to_the_end),
        ("smoothed", lambda mean, var, found, beta1, beta2: smoothed(mean, var, -found, beta1, beta2)),
        (
            "smoothed",
            lambda mean, var, found, beta1, beta2: (found, smoothed(mean, var, found, beta1, beta2)[1]),
        ),
        ("from_orthonormal", lambda rows: from_orthonormal(rows).square()),
        ("from_orthonormal", lambda rows: from_orthonormal(rows.mT)),
        ("BudgetPlugin.importance", lambda self, name: torch.mul(*self.scores[f"e/{name}"])),
        ("BudgetPlugin.importance", lambda self, name: -importance(self, name)),
    ],
)
def test_another_adalora_is_noticed(monkeypatch, name, wrong):
    monkeypatch.setattr(f"cl_complora.engine.updates.budget.{name}", wrong)
    with pytest.raises(AssertionError):
        check_adalora(golden("adalora"))
