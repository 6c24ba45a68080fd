"""CoDyRA's gates, SD-LoRA's directions and CLIP-LoRA's steps against what their authors' programs compute,
and formulas beside them that must not pass."""

from __future__ import annotations

import math
from types import SimpleNamespace

import open_clip
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from builders.golden import FORMS, agrees, golden, tensor
from cl_complora.clip.slots import open_slots, select_slots
from cl_complora.config.factors import Directions, Gates
from cl_complora.config.penalties import TextToImage
from cl_complora.config.training import Schedule
from cl_complora.data.labels import LabelSpace
from cl_complora.engine.penalties.text_to_image import TextToImagePlugin
from cl_complora.engine.training.schedule import rate
from cl_complora.engine.updates import between, directions
from cl_complora.engine.updates.between import Gate, GatesPlugin, shrunk, threshold
from cl_complora.engine.updates.directions import DirectionsPlugin, ScaledDirections
from cl_complora.lowrank import AdaptedLinear, LowRankBlock, Start

TOWERS = ("image", "text")


def codyra_block(state: dict, tower: str) -> tuple[AdaptedLinear, LowRankBlock]:
    """One linear layer of the authors' toy with its factors and gates."""
    weight = tensor(state[f"{tower}.weight"])
    layer = nn.Linear(weight.shape[1], weight.shape[0]).double()
    layer.weight.data, layer.bias.data = weight, tensor(state[f"{tower}.bias"])
    a = tensor(state[f"{tower}.lora_A"])
    block = LowRankBlock(
        *weight.shape, len(a), start=Start(a=a), between=Gate(tensor(state[f"{tower}.gate"])[0])
    ).double()
    host = AdaptedLinear(layer.requires_grad_(False))
    host.adapters.attach("w", slice(0, weight.shape[0]), block)
    return host, block


def check_codyra(file: dict) -> None:
    """Two tasks: losses, thresholds and gates of every step, and what is merged."""
    how, given, out = file["settings"], file["inputs"], file["outputs"]
    gates = Gates(
        kind="gates", threshold=how["max_kappa"], levels=how["lambda_num"], dense=how["dense_iters"]
    )
    loss_of_texts = TextToImagePlugin(TextToImage(kind="text-to-image"), None, 0)
    state, steps = given["start"], how["iterations"]
    for task in range(2):
        expected = out[f"task{task + 1}"]
        hosts, blocks = zip(*(codyra_block(state, tower) for tower in TOWERS), strict=True)
        gate_plugin = GatesPlugin(gates, 0)
        gate_plugin._gates = [block.between for block in blocks]
        trained = [p for block in blocks for p in block.parameters()]
        optimiser = torch.optim.AdamW(trained, lr=how["lr"], betas=(0.9, 0.9999), weight_decay=how["wd"])
        texts = tensor(given["texts"][task])
        for step in range(steps):
            batch = given["batches"][task][step % len(given["batches"][task])]
            optimiser.param_groups[0]["lr"] = how["lr"] * rate(Schedule(warmup=0.0), step, steps)
            features = [
                F.normalize(host(x), dim=1)
                for host, x in zip(hosts, (tensor(batch["images"]), texts), strict=True)
            ]
            logits, labels = how["scale"] * features[0] @ features[1].mT, torch.tensor(batch["labels"])
            space = LabelSpace.from_templates([f"{task} {i}" for i in range(len(texts))], ["{}"])
            now = SimpleNamespace(spaces=[space], mb_x=labels, mb_output=logits, mb_y=labels, counts=True)
            now.dataloader = Batches(step + 1, steps)
            losses = F.cross_entropy(logits, labels), loss_of_texts.penalty(now)
            for name, loss in zip(("ce", "ce_text"), losses, strict=True):
                agrees(file, loss, expected[name][step], f"{name} of step {step}")
            optimiser.zero_grad()
            sum(losses).backward()
            optimiser.step()
            gate_plugin.after_update(now)
            if "threshold" in expected and step > how["dense_iters"] * steps:
                assert between.threshold(gates, step, steps) == pytest.approx(expected["threshold"][step])
            for place, block in enumerate(blocks):
                agrees(file, block.between.g, expected["gates"][step][place][0], f"gates of step {step}")
        for tower, block in zip(TOWERS, blocks, strict=True):
            agrees(file, block.A, expected["end"][f"{tower}.lora_A"], "A")
            agrees(file, block.B, expected["end"][f"{tower}.lora_B"], "B")
        loss_of_texts.remember(SimpleNamespace(train_space=space))
        if task == 0:
            state = out["after_increment"]
            for tower, host, block in zip(TOWERS, hosts, blocks, strict=True):
                b, a = block.factors()
                agrees(file, host.weight + b @ a, state[f"{tower}.weight"], "merged")


class Batches:
    """What is read of the batches of a step."""

    def __init__(self, done: int, steps: int) -> None:
        self.done, self.steps = done, steps

    def __len__(self) -> int:
        return self.steps


@pytest.mark.parametrize("form", FORMS)
def test_codyra(form):
    check_codyra(golden("codyra", form))


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("shrunk", lambda g, kappa: g.sign() * (g.abs() - kappa).clamp_min(0)),
        ("shrunk", lambda g, kappa: torch.where(g.abs() < kappa, 0.0, g)),
        ("shrunk", lambda g, kappa: shrunk(g, -kappa)),
        ("threshold", lambda settings, step, steps: threshold(settings, step + 1, steps)),
        ("threshold", lambda settings, step, steps: threshold(settings, step, steps) / 2),
    ],
    ids=["the step of an L1 penalty", "no shrinking", "sign", "a step early", "scale"],
)
def test_other_gates_are_noticed(monkeypatch, name, wrong):
    monkeypatch.setattr(between, name, wrong)
    with pytest.raises(AssertionError):
        check_codyra(golden("codyra"))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda plugin, s: F.cross_entropy(s.mb_output.mT, s.mb_output.mT.argmax(1)),
        lambda plugin, s: true_penalty(plugin, s) * (len(plugin.seen) + len(s.spaces[0])) / len(s.spaces[0]),
        lambda plugin, s: true_penalty(plugin, s) / len(s.mb_y),
    ],
    ids=["one image a text", "earlier texts left out", "over images"],
)
def test_another_loss_of_texts_is_noticed(monkeypatch, wrong):
    monkeypatch.setattr(TextToImagePlugin, "penalty", wrong)
    with pytest.raises(AssertionError):
        check_codyra(golden("codyra"))


true_penalty = TextToImagePlugin.penalty


def test_gates_that_let_everything_through_are_missing_gates(monkeypatch):
    monkeypatch.setattr(Gate, "forward", lambda self, b, a: (b, a))
    with pytest.raises((AssertionError, RuntimeError)):
        check_codyra(golden("codyra"))


def test_thresholds_reach_the_largest_where_there_are_steps_for_it():
    gates = Gates(kind="gates", threshold=0.005, levels=50)
    found = [threshold(gates, step, 500) for step in range(500)]
    assert found[:251] == [0.0] * 251 and found[251] == pytest.approx(0.005 / 49)
    assert found[499] == pytest.approx(0.005) and sorted(found) == found
    assert max(threshold(gates, step, 20) for step in range(20)) <= 0.005  # too short for all of them


def sd_lora(file: dict, alpha: list[float] | None = None):
    """The third task of the authors' toy: the fused layer with q and v adapted, and what is trained there."""
    given = file["inputs"]
    plugin, width = DirectionsPlugin(Directions(kind="directions")), len(given["qkv_weight"]) // 3
    layer = nn.Linear(width, 3 * width).double().requires_grad_(False)
    layer.weight.data, layer.bias.data = tensor(given["qkv_weight"]), tensor(given["qkv_bias"])
    rows = {"q": slice(0, width), "v": slice(2 * width, 3 * width)}
    slots = {m: SimpleNamespace(name=m) for m in rows}

    def block(matrix: str, factors: dict) -> LowRankBlock:
        a, b = tensor(factors[f"A{matrix}"]), tensor(factors[f"B{matrix}"])
        new = LowRankBlock(width, width, len(a), start=Start(a=a), between=plugin.of(slots[matrix], len(a)))
        new = new.double()
        new.B.data = b
        return new

    for task, factors in enumerate(given["past"]):
        plugin.begin(list(slots.values()), task)
        for matrix in rows:
            # Other lengths than those of the third task: what is merged now is taken off again there.
            done = block(matrix, factors)
            done.between.alpha.data = tensor([0.3 + 0.2 * i for i in range(task + 1)])
            b, a = done.factors()
            layer.weight.data[rows[matrix]] += b @ a
            plugin.learned(slots[matrix], done)
    plugin.begin(list(slots.values()), len(given["past"]))
    host, blocks = AdaptedLinear(layer), {m: block(m, given["current"]) for m in rows}
    shared = next(iter(blocks.values())).between.alpha
    shared.data = tensor(alpha or [*given["alpha_prev"], given["alpha_current"]])
    for matrix, new in blocks.items():
        assert new.between.alpha is shared
        host.adapters.attach(matrix, rows[matrix], new)
    return host, blocks, shared, rows


def check_sd_lora(file: dict) -> None:
    host, blocks, alpha, rows = sd_lora(file)
    given, out = file["inputs"], file["outputs"]
    y = host(tensor(given["x"]))
    agrees(file, y, out["forward"], "forward")
    for matrix, new in blocks.items():
        b, a = new.factors()
        before = tensor(given["qkv_weight"])[rows[matrix]]
        agrees(file, host.weight[rows[matrix]] + b @ a - before, out[f"delta_W_{matrix}"], "update")
    wanted = {f"{f}{m}": getattr(new, f) for m, new in blocks.items() for f in "AB"}
    found = torch.autograd.grad((tensor(given["G"]) * y).sum(), [alpha, *wanted.values()])
    expected = [*out["grads"]["alpha_prev"], *out["grads"]["alpha_current"]]
    for name, gradient in zip(["alpha", *wanted], found, strict=True):
        agrees(file, gradient, expected if name == "alpha" else out["grads"][name], name)


@pytest.mark.parametrize("form", FORMS)
def test_sd_lora(form):
    check_sd_lora(golden("sd_lora", form))


def _alpha_fixed(self, b, a):
    free, self.alpha = self.alpha, nn.Parameter(self.alpha.detach()[:0])
    try:
        fixed = torch.cat([free.detach()[:-1], free[-1:]])
        change = (fixed[:-1] - self.lengths).repeat_interleave(self.a.shape[0] // len(self.lengths))
        return torch.cat([self.b * change, b * fixed[-1]], 1), torch.cat([self.a, a])
    finally:
        self.alpha = free


def _new_one_unscaled(self, b, a):
    return true_directions(self, b / self.alpha[-1], a)


def _old_ones_twice(self, b, a):
    lengths, self.lengths = self.lengths, torch.zeros_like(self.lengths)
    try:
        return true_directions(self, b, a)
    finally:
        self.lengths = lengths


def _new_one_of_length_one(self, b, a):
    return true_directions(self, b / (b.norm() * a.norm()), a)


true_directions = ScaledDirections.forward


@pytest.mark.parametrize("wrong", [_alpha_fixed, _new_one_unscaled, _old_ones_twice, _new_one_of_length_one])
def test_other_directions_are_noticed(monkeypatch, wrong):
    first = ScaledDirections.forward
    monkeypatch.setattr(
        ScaledDirections,
        "forward",
        lambda self, b, a: (
            first(self, b, a) if self.lengths is None or len(self.lengths) < 2 else wrong(self, b, a)
        ),
    )
    with pytest.raises(AssertionError):
        check_sd_lora(golden("sd_lora"))


def test_directions_that_keep_their_length_are_noticed(monkeypatch):
    class Unscaled(directions.Held):
        def __init__(self, b, a, lengths):
            super().__init__(b * 2, a, lengths)

    monkeypatch.setattr(directions, "Held", Unscaled)
    with pytest.raises(AssertionError):
        check_sd_lora(golden("sd_lora"))


def test_sd_lora_jumps_at_a_boundary_as_published_and_goes_on_where_repaired():
    held = {"per": "matrix", "restart": False}
    for settings, jumps in (({}, True), (held, False)):
        plugin = DirectionsPlugin(Directions(kind="directions", **settings))
        where, weight = SimpleNamespace(name="w"), torch.zeros(4, 5)
        for task in range(3):
            plugin.begin([where], task)
            block = LowRankBlock(4, 5, 2, between=plugin.of(where, 2))
            b, a = block.factors()
            assert (float((b @ a).abs().max().detach()) > 1e-3) == (jumps and task > 0)
            with torch.no_grad():
                block.B.normal_()
                block.between.alpha.uniform_(0.5, 1.5)
                b, a = block.factors()
                weight += b @ a
                plugin.learned(where, block)
        total = sum(
            length * plugin.held["w"].b[:, 2 * i : 2 * i + 2] @ plugin.held["w"].a[2 * i : 2 * i + 2]
            for i, length in enumerate(plugin.held["w"].lengths)
        )
        again = DirectionsPlugin(plugin.settings)
        again.load(plugin.tensors())
        assert all(torch.equal(getattr(again.held["w"], k), v) for k, v in vars(plugin.held["w"]).items())
        # What was merged is what is held, and the next task's update starts from that.
        assert torch.allclose(weight, total, atol=1e-5) and plugin.held["w"].b.shape == (4, 6)


def check_cliplora(file: dict, schedule: Schedule) -> None:
    """Six steps of the authors' recipe without dropout, through our slots, factors and schedule."""
    given, out = file["inputs"], file["outputs"]
    config = file["config"]
    model = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"]).double()
    weights = {name: tensor(value) for name, value in given["weights"].items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and all(name.endswith("bias") or "logit" in name for name in missing)
    with torch.no_grad():
        for name in missing:
            model.get_parameter(name).zero_()
    slots = select_slots(open_slots(model), ["q", "k", "v"])
    model.requires_grad_(False).train()
    blocks = {}
    for slot in slots:
        name = f"{slot.name.removesuffix(slot.matrix)}{slot.matrix}_proj.w_lora_"
        a = tensor(given["factors"][name + "A"])
        block = LowRankBlock(*slot.weight.shape, 2, 2**-0.5, start=Start(a=a)).double()
        slot.adapters.attach(slot.matrix, slot.rows, block)
        blocks[name] = block
    trained = [p for block in blocks.values() for p in block.parameters()]
    optimiser = torch.optim.AdamW(trained, lr=2e-4, weight_decay=0.01)
    images, labels = tensor(given["images"]), torch.tensor(given["labels"])
    for step, expected in enumerate(out["losses"]):
        optimiser.param_groups[0]["lr"] = 2e-4 * rate(schedule, step, len(out["losses"]))
        first, last = given["batches"][step % 2]
        features = model.encode_image(images[first:last]), model.encode_text(torch.tensor(file["tokens"]))
        features = [F.normalize(f, dim=1) for f in features]
        loss = F.cross_entropy(file["logit_scale"] * features[0] @ features[1].mT, labels[first:last])
        agrees(file, loss, expected, f"loss of step {step}")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for name, block in blocks.items():
        agrees(file, block.A, out["factors_after_step_5"][name + "A"], name + "A")
        agrees(file, block.B, out["factors_after_step_5"][name + "B"], name + "B")


AS_PUBLISHED = Schedule(warmup=0.0, end=1e-6 / 2e-4)


@pytest.mark.parametrize("form", FORMS)
def test_clip_lora(form):
    check_cliplora(golden("cliplora_step", form), AS_PUBLISHED)


@pytest.mark.parametrize(
    "changed",
    [
        {"schedule": Schedule(warmup=0.0)},
        {"schedule": Schedule(warmup=0.2, end=0.005)},
        {"schedule": Schedule(name="constant", warmup=0.0)},
    ],
    ids=["cosine to zero", "warm-up", "constant"],
)
def test_another_recipe_of_clip_lora_is_noticed(changed):
    with pytest.raises(AssertionError):
        check_cliplora(golden("cliplora_step"), **({"schedule": AS_PUBLISHED} | changed))


def test_masks_of_dropout_are_one_for_all_or_apart():
    """Blocks with equal factors on one weight: the same mask gives the same, masks apart do not."""
    for own_mask in (False, True):
        host = AdaptedLinear(nn.Linear(40, 6)).train()
        a, b = torch.randn(2, 40), torch.randn(2, 2)
        for row in range(3):
            block = LowRankBlock(2, 40, 2, dropout=0.5, own_mask=own_mask, start=Start(a=a))
            block.B.data = b
            host.adapters.attach(str(row), slice(2 * row, 2 * row + 2), block)
        x = torch.randn(7, 40)
        parts = (host(x) - F.linear(x, host.weight, host.bias)).split(2, dim=1)
        same = [torch.allclose(parts[0], part, atol=1e-4) for part in parts[1:]]
        assert same == [not own_mask] * 2
        host.eval()
        dry = (host(x) - F.linear(x, host.weight, host.bias)).split(2, dim=1)
        assert all(torch.allclose(dry[0], part, atol=1e-4) for part in dry)
    assert math.isclose(rate(AS_PUBLISHED, 500, 500), 0.005)
