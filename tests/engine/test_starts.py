"""Where factors start, what becomes of an update when it is merged, and what is trained whole beside the
factors."""

from __future__ import annotations

import copy

import pytest
import torch

from builders.steps import SPACE, Step, experience
from cl_complora.clip.classifier import ClipClassifier
from cl_complora.config.adaptation import ImageTowerAlone, Interpolation, NormMatch
from cl_complora.config.factors import InputsStart, VarianceStart
from cl_complora.delta import TaskDelta
from cl_complora.engine.adapter import FullPlugin
from cl_complora.engine.constraints import Constraint
from cl_complora.engine.full_parameters import KINDS, parameter_kinds, tower_of
from cl_complora.engine.updates.complora import CompLoRAPlugin
from cl_complora.engine.updates.input_directions import input_covariances, input_moments
from cl_complora.engine.updates.merging import Interpolate, MatchNorm, MergeImageTower
from cl_complora.engine.updates.starts.initialisation import ComponentsStarting, CoreStarting
from cl_complora.engine.updates.starts.inputs_start import InputsStarting
from cl_complora.engine.updates.starts.variance_start import VarianceStarting
from cl_complora.subspace import Keep

FREE = Constraint(select="none")


def shake(model) -> None:
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn_like(p))


def test_milora_starts_as_the_smallest_components_and_with_no_update(model):
    plugin = CompLoRAPlugin(
        rank=3, matrices=["q", "fc"], constraint=FREE, scaling=2.0, start=ComponentsStarting()
    )
    images = torch.randn(2, 3, 32, 32)
    before = model(images, SPACE)
    plugin.attach(model)
    assert torch.allclose(model(images, SPACE), before, atol=1e-4)
    for slot in plugin.slots:
        block = plugin.blocks[slot.name]
        u, s, vh = torch.linalg.svd(slot.weight.detach().double(), full_matrices=False)
        smallest = (u[:, -3:] * s[-3:]) @ vh[-3:]
        assert torch.allclose(2.0 * (block.B @ block.A).double(), smallest, atol=1e-5)
        assert torch.allclose(block.B.norm(dim=0), block.A.norm(dim=1), rtol=1e-3, atol=1e-6)
    shake(model)
    started = {slot.name: slot.weight.detach().clone() for slot in plugin.slots}
    factors = {slot.name: plugin.blocks[slot.name] for slot in plugin.slots}
    trained = model(images, SPACE)
    plugin.merge(model)
    assert torch.allclose(model(images, SPACE), trained, atol=1e-4)
    for slot in plugin.slots:  # MiLoRA's own form: (W − smallest components) + s·B A
        u, s, vh = torch.linalg.svd(started[slot.name].double(), full_matrices=False)
        rest = started[slot.name].double() - (u[:, -3:] * s[-3:]) @ vh[-3:]
        block = factors[slot.name]
        assert torch.allclose(slot.weight.double(), rest + 2.0 * (block.B @ block.A).double(), atol=1e-5)


def test_nusa_trains_a_square_core_between_the_last_singular_directions(model):
    constraint = Constraint(select="bottom", keep=Keep("energy", 0.5))
    plugin = CompLoRAPlugin(rank=4, matrices=["q", "fc"], constraint=constraint, start=CoreStarting())
    plugin.attach(model)
    for slot in plugin.slots:
        block = plugin.blocks[slot.name]
        split = plugin.subspaces.split(slot)
        free = min(4, len(split.sigma) - split.k)
        assert block.B.shape == (free, free) and block.rank == free
        assert [name for name, _ in block.named_parameters()] == ["B"]
        with torch.no_grad():
            block.B.normal_()
        b, a = block.factors()
        u, v = split.u[:, -free:], split.v[:, -free:]
        assert torch.allclose(b @ a, u @ block.B @ v.mT, atol=1e-5)
        assert split.k > 0 and float((u.mT @ split.u_k).abs().max()) < 1e-4


def test_matrices_that_have_fewer_directions_left_than_the_rank_are_told(model):
    constraint = Constraint(keep=Keep("energy", 0.5), updates=True)
    plugin = CompLoRAPlugin(rank=8, matrices=["fc"], constraint=constraint)
    told = []
    for _ in range(6):
        plugin.attach(model)
        told.append(plugin.notes())
        widths = [min(block.A.shape[1], len(block.B)) for block in plugin.blocks.values()]
        crowded = [width for width in widths if width < 8]
        assert bool(crowded) == bool(told[-1])
        if crowded:
            (line,) = told[-1]
            assert f" {len(crowded)} of {len(plugin.slots)} matrices" in line and f" {min(crowded)}: " in line
            assert ("of an earlier update" in line) == (min(crowded) == 1)
        with torch.no_grad():
            for block in plugin.blocks.values():
                block.B.normal_(0, 1e-3)
        plugin.merge(model)
    assert not told[0] and told[-1]


@pytest.mark.parametrize("matrix, rank, others", [("fc", 4, True), ("fc", 10**6, True), ("q", 10**6, False)])
def test_the_last_directions_are_those_of_the_merged_weights(model, matrix, rank, others):
    constraint = Constraint(select="bottom", keep=Keep("energy", 0.5))
    plugin = CompLoRAPlugin(rank=rank, matrices=[matrix], constraint=constraint, start=CoreStarting())
    plugin.attach(model)
    slots, before = plugin.slots, plugin.subspaces.decompositions
    with torch.no_grad():
        for block in plugin.blocks.values():
            block.B.normal_(0, 1e-2)
    plugin.merge(model)
    plugin.attach(model)
    # Some directions of the complement are others after a merge; the complement as a whole is the same.
    assert plugin.subspaces.decompositions - before == (len(slots) if others else 0)
    for slot in slots:
        basis = plugin.blocks[slot.name].input_basis
        last = torch.linalg.svd(slot.weight.detach().double()).Vh[-basis.shape[1] :].mT.float()
        assert float(torch.linalg.matrix_norm(basis.mT @ last, 2)) == pytest.approx(1, abs=1e-4)
        assert float(torch.linalg.svdvals(basis.mT @ last).min()) > 0.999
        if matrix == "fc":  # on the longer side those that the weights do not reach
            reached = plugin.blocks[slot.name].output_basis.mT @ slot.weight.detach()
            assert float(reached.abs().max()) < 1e-4


def test_inflora_does_not_act_on_what_earlier_tasks_used(model):
    plugin = CompLoRAPlugin(
        rank=2,
        matrices=["k", "v"],
        constraint=FREE,
        start=InputsStarting(InputsStart(kind="inputs", energy=0.9)),
    )
    step = Step(model, None, experience(9))
    covariances = {}
    for task in range(2):
        plugin.before_train_dataset_adaptation(step)
        assert not plugin.start._seen, "what was looked at for the factors stays in memory"
        seen = input_covariances(plugin.slots, model, experience(9), 256)
        for slot in plugin.slots:
            block = plugin.blocks[slot.name]
            assert [name for name, _ in block.named_parameters()] == ["B"]
            if task == 0:  # the leading directions of the inputs, over √3
                values, vectors = torch.linalg.eigh(seen[slot.name])
                lead = vectors[:, -2:].float()
                assert torch.allclose(3 * block.A.mT @ block.A, lead @ lead.mT, atol=1e-4)
            else:
                assert float((block.A @ plugin.start.used[slot.name]).abs().max()) < 1e-6
        shake(model)
        plugin.after_training_exp(step)
        if task == 0:
            covariances = input_covariances(plugin.slots, model, experience(9), 256)
    for slot in plugin.slots:
        # What the first task's inputs see of the second update is at most what was left free of their energy.
        b, a = plugin.deltas[1].factors[slot.key]
        seen = torch.trace(a.double() @ covariances[slot.name] @ a.double().mT) / a.double().square().sum()
        assert float(seen) <= (1 - 0.9) * float(covariances[slot.name].trace()) * 1.001


def test_in_a_subspace_a_starts_in_what_it_leaves_of_the_inputs(model):
    plugin = CompLoRAPlugin(
        rank=2, matrices=["v", "fc"], start=VarianceStarting(VarianceStart(kind="variance", most=1))
    )
    plugin.before_train_dataset_adaptation(Step(model, None, experience(9)))
    assert not plugin.start._moments, "what was looked at for the factors stays in memory"
    moments = input_moments(plugin.slots, model, experience(9), 256, padding=False)
    for slot in plugin.slots:
        block = plugin.blocks[slot.name]
        free = block.input_basis.double()
        square, total, count = moments[slot.name]
        covariance = square / count - torch.outer(total, total) / count**2
        whole = torch.linalg.eigh(covariance).eigenvectors[:, -2:]
        left = torch.linalg.eigh(free @ free.mT @ covariance @ free @ free.mT).eigenvectors[:, -2:]
        a = block.A.detach().double() @ free.mT  # as the weight sees it
        assert not block.B.any() and block.A.requires_grad
        assert torch.allclose(a @ a.mT, torch.eye(2, dtype=a.dtype), atol=1e-5)
        assert torch.allclose((a @ left).square().sum(), torch.tensor(2.0).double(), atol=1e-4)
        assert float((a @ whole).square().sum()) < 1.9  # not what EVA starts in


def test_images_of_one_task_are_not_copied_since_they_may_lie_on_disk():
    where = experience(4)
    (part,) = where.parts
    assert where.pixels.data_ptr() == part.train.pixels.data_ptr()
    where.parts = [part, part]
    assert torch.equal(where.pixels, torch.cat([part.train.pixels] * 2))


def test_input_covariances_are_those_of_the_inputs(model):
    plugin = CompLoRAPlugin(rank=1, matrices=["fc"], towers=["vision"], constraint=FREE)
    plugin.prepare(model)
    where = experience(4)
    found = input_covariances(plugin.slots, model, where, 256)
    slot, seen = plugin.slots[0], []
    handle = slot.host.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        model.image_features(where.parts[0].train.pixels)
    handle.remove()
    x = torch.cat(seen).flatten(0, 1).double()
    assert torch.allclose(found[slot.name], x.mT @ x, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["lowrank", "full"])
@pytest.mark.parametrize("towards", ["previous", "pretrained"])
def test_interpolation_lands_between_the_two_weights(model, kind, towards):
    rule = Interpolate(Interpolation(kind="interpolate", weight=0.25, towards=towards))
    adapter = (
        CompLoRAPlugin(rank=2, matrices=["q", "proj"], whole=["tokens"], merging=rule)
        if kind == "lowrank"
        else FullPlugin(merging=rule)
    )
    adapter.prepare(model)
    start = None
    for task in range(4):
        adapter.attach(model)
        before = {k: w.detach().clone() for k, w in adapter.effective_weights().items()}
        start = start or before
        shake(model)
        trained = {k: w.detach().clone() for k, w in adapter.effective_weights().items()}
        delta = adapter.merge(model)
        # Of rank 2 each: all that were trained so far have a part in what is taken back.
        ranks = 2 * (task + 1) if towards == "pretrained" else 2
        assert all(b.shape[1] <= ranks for b, _ in delta.factors.values())
        anchor = before if towards == "previous" else start
        for key, w in adapter.effective_weights().items():
            assert torch.allclose(w, 0.25 * trained[key] + 0.75 * anchor[key], atol=1e-5), key


@pytest.mark.parametrize("kind", ["lowrank", "full"])
def test_norm_matching_keeps_the_direction_and_sets_the_length(model, kind):
    rule = MatchNorm(NormMatch(kind="norm", norm=3.0))
    adapter = CompLoRAPlugin(rank=2, merging=rule) if kind == "lowrank" else FullPlugin(merging=rule)
    adapter.attach(model)
    before = {k: w.detach().clone() for k, w in adapter.effective_weights().items()}
    shake(model)
    learned = {k: (w - before[k]).detach().clone() for k, w in adapter.effective_weights().items()}
    delta = adapter.merge(model)
    assert delta.norm() == pytest.approx(3.0, rel=1e-4)
    total = sum(float(change.square().sum()) for change in learned.values()) ** 0.5
    for key, w in adapter.effective_weights().items():
        assert torch.allclose(w - before[key], learned[key] * (3.0 / total), atol=1e-4)


@pytest.mark.parametrize("kind", ["lowrank", "rows", "full"])
def test_of_an_update_the_image_tower_s_part_alone_is_kept(model, kind):
    rule = MergeImageTower(ImageTowerAlone(kind="image-tower"))
    adapter = (
        FullPlugin(merging=rule)
        if kind == "full"
        else CompLoRAPlugin(rank=2, whole=["tokens"], merging=rule, row_scale=kind == "rows")
    )
    pretrained = {k: p.detach().clone() for k, p in model.clip.named_parameters()}
    for task in range(2):
        adapter.before_train_dataset_adaptation(Step(model, None, experience(4)))
        shake(model)
        trained = {k: w.detach().clone() for k, w in adapter.effective_weights().items()}
        merged = adapter.merge(model)
        assert {tower_of(parameter) for parameter, _, _ in merged.updates()} == {"vision"}
        assert all(record["delta_norm"] > 0 for record in adapter.geometry[task].values())
        kept = adapter.effective_weights()
        assert any(tower_of(k) == "text" and not torch.equal(kept[k], w) for k, w in trained.items())
        assert all(
            torch.allclose(kept[k], w, atol=1e-5) for k, w in trained.items() if tower_of(k) == "vision"
        )
        for name, p in model.clip.named_parameters():
            assert tower_of(name) == "vision" or torch.equal(p, pretrained[name]), name


def test_what_learns_captions_is_merged_whole(model):
    rule = MergeImageTower(ImageTowerAlone(kind="image-tower"))
    where = experience(4)
    delta = TaskDelta(dense={"visual.proj": torch.ones(2), "text_projection": torch.ones(2)})
    rule.look_ahead(where)
    assert list(rule(delta, []).dense) == ["visual.proj"]
    where.captioned = [True]
    rule.look_ahead(where)
    assert rule(delta, []) is delta


def test_a_resumed_run_decomposes_again_where_nothing_of_a_task_was_kept(model):
    """Of a class task all is put back here, of the tasks of captions after it nothing: restored after two."""
    start = copy.deepcopy(model)

    def plugin() -> CompLoRAPlugin:
        rule = MergeImageTower(ImageTowerAlone(kind="image-tower"))
        return CompLoRAPlugin(rank=2, towers=["text"], constraint=Constraint(updates=True), merging=rule)

    def train(adapter: CompLoRAPlugin, on: ClipClassifier, tasks: range) -> list[dict]:
        states = []
        for task in tasks:
            where = experience(4)
            where.captioned = [task > 0]
            adapter.before_train_dataset_adaptation(Step(on, None, where))
            torch.manual_seed(task)
            shake(on)
            assert bool(adapter.merge(on)) == (task > 0)
            states.append(adapter.state())
        return states

    whole, cut = plugin(), plugin()
    states = train(whole, model, range(3))
    cut.restore(start, whole.deltas[:2], states[:2])
    assert train(cut, start, range(2, 3)) == states[2:]
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), start.state_dict().values(), strict=True)
    )


def test_an_update_of_zero_has_no_direction_to_stretch():
    rule = MatchNorm(NormMatch(kind="norm", norm=3.0))
    assert rule(TaskDelta(dense={"w": torch.zeros(2, 2)}), []).norm() == 0.0


def test_every_parameter_but_the_logit_scale_is_of_one_kind(model):
    kinds = parameter_kinds(model.clip)
    assert set(kinds) == {name for name, _ in model.clip.named_parameters()} - {"logit_scale"}
    assert set(kinds.values()) == set(KINDS)
    assert [name for name, kind in kinds.items() if kind == "tokens"] == ["token_embedding.weight"]
    assert kinds["ln_final.weight"] == "norms" and kinds["visual.class_embedding"] == "positions"
    assert kinds["transformer.resblocks.0.attn.in_proj_weight"] == "weights"
    assert kinds["transformer.resblocks.0.attn.in_proj_bias"] == "biases"


def test_tokens_of_no_prompt_stay_exactly_as_they_are(model):
    adapter = CompLoRAPlugin(rank=2, matrices=["q"], whole=["tokens"])
    adapter.attach(model)
    assert list(adapter.whole_kinds(model).values()) == ["tokens"]
    before = model.clip.token_embedding.weight.detach().clone()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01, weight_decay=0)
    for _ in range(3):
        loss = model(torch.randn(3, 3, 32, 32), SPACE).logsumexp(1).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    delta = adapter.merge(model)
    used = set(model.text.tokens(SPACE).unique().tolist())
    index, change = delta.rows["token_embedding.weight"]
    assert set(index.tolist()) <= used and float(change.abs().max()) > 0
    others = [i for i in range(len(before)) if i not in used]
    assert torch.equal(model.clip.token_embedding.weight[others], before[others])
