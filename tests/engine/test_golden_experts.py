"""DAC's pool of experts and its losses against what its authors' program computes, and formulas beside them
that must not pass."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from builders.golden import FORMS, agrees, golden, tensor
from cl_complora.config.factors import Experts
from cl_complora.config.losses import Batch
from cl_complora.config.penalties import Apart
from cl_complora.engine.training import contrastive
from cl_complora.engine.training.training_loss import Answered, training_loss
from cl_complora.engine.updates import experts
from cl_complora.engine.updates.experts import ApartPlugin, ExpertsPlugin, Pool, first_tokens, marked, most
from cl_complora.lowrank import AdaptedLinear, LowRankBlock, Start


def pool_of(file: dict, task: int = 0) -> tuple[ExpertsPlugin, SimpleNamespace, AdaptedLinear, LowRankBlock]:
    """One matrix whose tokens come first, with the file's factors and router."""
    given = file["inputs"]
    plugin = ExpertsPlugin(Experts(kind="experts", active=given["top_k"], merged=given["merge_k"]), 0)
    host = AdaptedLinear(nn.Linear(8, 10)).double().requires_grad_(False)
    host.weight.data, host.bias.data = tensor(given["W"]), tensor(given["bias"])
    slot = SimpleNamespace(name="w", tower="", matrix="other", host=host, weight=host.weight)
    plugin.begin([slot], task)
    start, s = Start(a=tensor(given["A"])), given["alpha"] / given["r"]
    block = LowRankBlock(10, 8, given["r"], s, start=start, between=plugin.of(slot, given["r"])).double()
    block.B.data = tensor(given["B"])
    block.between.weight, block.between.bias = tensor(given["router_weight"]), tensor(given["router_bias"])
    plugin.begun({"w": block})
    host.adapters.attach("other", slice(0, 10), block)
    return plugin, slot, host, block


def check_dac(file: dict, monkeypatch) -> None:
    given, out = file["inputs"], file["outputs"]
    plugin, slot, host, block = pool_of(file)
    with monkeypatch.context() as patched:
        patched.setattr(plugin, "_batch_first", lambda slot: False)
        for batch in "12":
            x = tensor(given[f"x{batch}"])
            before = block.between.counts.clone()
            plugin.before_forward(None)
            y = host(x)
            plugin.after_forward(None)
            agrees(file, block.between.counts - before, out[f"batch_counts_{batch}"], "marks")
            assert block.between.picked.tolist() == out[f"selected_{batch}"]
            agrees(file, y, out[f"forward_{batch}"], f"output {batch}")
            if batch == "1" and "G" in given:
                (tensor(given["G"]) * y).sum().backward()
                agrees(file, block.A.grad, out["grad_A_1"], "gradient of A")
                agrees(file, block.B.grad, out["grad_B_1"], "gradient of B")
    assert [name for name, _ in block.named_parameters()] == ["A", "B"]  # the router is not trained
    agrees(file, block.between.counts, out["accumulated_counts"], "marks of both")
    plugin.learned(slot, block)
    assert block.between.picked.tolist() == out["merged_experts"]
    agrees(file, block.update(), out["delta_W_merged"], "update")
    check_losses(file)


def check_losses(file: dict) -> None:
    losses = file["losses"]
    for past, expected in (
        ("all", "orthogonality_as_published_all_12_past_columns"),
        ("merged", "orthogonality_merged_4_only_own"),
    ):
        plugin, slot, _, block = pool_of(file)
        block.B.data, block.between.counts = tensor(losses["past_B"]), tensor(losses["past_counts"])
        plugin.learned(slot, block)
        plugin.begin([slot], 1)
        block.B.data = tensor(file["inputs"]["B"])
        block.between.counts, block.between.picked = tensor(file["outputs"]["accumulated_counts"]), None
        adapter = SimpleNamespace(between=plugin, blocks={"w": block})
        settings = Apart(kind="apart", strength=losses["weight_in_total_loss"], past=past)
        found = experts.ApartPlugin(settings, adapter, 0).penalty(None)
        agrees(file, found / losses["weight_in_total_loss"], losses[expected], past)
        assert torch.autograd.grad(found, block.B)[0].any()
    clip = losses["clip_loss"]
    # Texts by images there; images by classes here, of which every image's own is taken.
    labels, logits = torch.tensor(clip["labels"]), tensor(clip["logits_per_text"]).mT
    pairs = contrastive_of_pairs(logits, labels)
    agrees(file, pairs, clip["value"], "contrastive loss")


def contrastive_of_pairs(pairs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The file's text of every image, though images of one class have the same text elsewhere."""

    class Columns(torch.Tensor):
        def __getitem__(self, index):
            return pairs

    return contrastive.contrastive(pairs.as_subclass(Columns), labels)


@pytest.mark.parametrize("form", FORMS)
def test_dac(form, monkeypatch):
    check_dac(golden("dac", form), monkeypatch)


def _last_tokens(x, batch_first):
    return x[:, 0]


def _keeps_all(self, b, a):
    return b, a


def _one_direction(logits, labels):
    pairs = logits[:, labels]
    same = (labels[:, None] == labels).to(pairs)
    return F.cross_entropy(pairs, same / same.sum(1, keepdim=True))


def _own_alone(logits, labels):
    pairs, own = logits[:, labels], torch.arange(len(labels))
    return (F.cross_entropy(pairs, own) + F.cross_entropy(pairs.mT, own)) / 2


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("updates.experts.first_tokens", _last_tokens),
        ("updates.experts.marked", lambda scores, active: marked(scores, active - 1)),
        ("updates.experts.marked", lambda scores, active: marked(-scores, active)),
        ("updates.experts.most", lambda counts, number: most(-counts, number)),
        ("updates.experts.Pool.forward", _keeps_all),
        ("updates.experts.Pool.pick", lambda self, first: None),
        (
            "updates.experts.ApartPlugin.penalty",
            lambda self, strategy: ApartPlugin_penalty(self, strategy) ** 2,
        ),
        ("training.contrastive.contrastive", _one_direction),
        ("training.contrastive.contrastive", _own_alone),
    ],
)
def test_another_dac_is_noticed(monkeypatch, name, wrong):
    monkeypatch.setattr(f"cl_complora.engine.{name}", wrong)
    with pytest.raises((AssertionError, RuntimeError, TypeError)):
        check_dac(golden("dac"), monkeypatch)


ApartPlugin_penalty = ApartPlugin.penalty


def test_the_first_task_has_no_past_to_be_apart_from():
    plugin = ExpertsPlugin(Experts(kind="experts", active=2, merged=1), 0)
    adapter = SimpleNamespace(between=plugin, blocks={})
    assert ApartPlugin(Apart(kind="apart"), adapter, 0).penalty(None) is None


def test_first_tokens_of_sequences_grids_and_vectors():
    x = torch.arange(2 * 3 * 4).reshape(2, 3, 4)
    assert torch.equal(first_tokens(x, True), x[:, 0]) and torch.equal(first_tokens(x, False), x[0])
    assert torch.equal(first_tokens(x.reshape(2, 1, 3, 4), True), x[:, 0])
    assert torch.equal(first_tokens(x[:, 1], True), x[:, 1])


def test_a_process_goes_on_with_marks_and_what_was_picked(monkeypatch):
    file = golden("dac")
    plugin, _, host, block = pool_of(file)
    plugin.before_forward(None)
    host(tensor(file["inputs"]["x1"]).transpose(0, 1))
    plugin.after_forward(None)
    other, _, _, resumed = pool_of(file)
    other.load_step_state({key: value.clone() for key, value in plugin.step_state().items()})
    assert torch.equal(resumed.between.counts, block.between.counts)
    assert torch.equal(resumed.update(), block.update())
    assert isinstance(resumed.between, Pool)


def test_loss_of_a_batch_with_label_spaces_of_its_own():
    torch.manual_seed(0)
    output, labels = torch.randn(5, 3), torch.tensor([0, 1, 1, 2, 0])
    three, two = torch.ones(3), torch.ones(2)
    whole = Answered(output, labels, torch.zeros(5, dtype=torch.long), [three], torch.tensor(1.0))
    pairs = output[:, labels]
    targets = torch.tensor([[float(a == b) for a in labels] for b in labels])
    targets = targets / targets.sum(1, keepdim=True)
    expected = (F.cross_entropy(pairs, targets) + F.cross_entropy(pairs.mT, targets)) / 2
    assert torch.allclose(training_loss(Batch(kind="batch"), whole), expected)
    # The first two images have a space of two classes, the others one of three.
    output[:2, 2] = torch.finfo(torch.float32).min
    apart = replace(whole, of=torch.tensor([0, 0, 1, 1, 1]), counts=[two, three])
    parts = [
        contrastive.contrastive(output[:2, :2], labels[:2]),
        contrastive.contrastive(output[2:], labels[2:]),
    ]
    assert torch.allclose(training_loss(Batch(kind="batch"), apart), 0.4 * parts[0] + 0.6 * parts[1])
