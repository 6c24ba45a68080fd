"""What the settings of low-rank rivals refuse, at the line of the key that is wrong."""

from __future__ import annotations

import pytest

from cl_complora.config import load_strategy
from cl_complora.errors import UserError

TEACHER = "whose teacher is the model before the task and would be disturbed as well"


@pytest.mark.parametrize(
    "name, changed, told",
    [
        ("inflora", ["adapter.start.energy_end=0.5"], "energy_end=0.5: must be at least energy (0.95)"),
        ("sdlora", ["adapter.between.restart=false"], "false works with per: matrix"),
        ("sdlora", ["adapter.subspace={select: complement}"], "directions works with subspace.select: none"),
        ("sdlora", ["adapter.merge={kind: norm, norm: 1.0}"], "directions does not go with merge"),
        ("lora", ["adapter.merge={kind: image-tower}", "adapter.towers=[text]"], "image-tower keeps nothing"),
        (
            "finetune",
            ["adapter.merge={kind: image-tower}", "adapter.whole=[tokens]"],
            "image-tower keeps nothing",
        ),
        ("dac", ["adapter.merge={kind: image-tower}"], "image-tower does not go with experts"),
        ("codyra", ["adapter.start={kind: components}"], "gates works with start.kind: kaiming"),
        ("codyra", ["adapter.between.levels=1"], "adapter.between.levels"),
        ("keeplora", ["adapter.subspace={select: complement}"], "gradient works with subspace.select: none"),
        ("keeplora", ["adapter.start.side=output"], "adapter.start.side"),
        ("lora-cliplora", ["adapter.dropout=0.0"], "separate has no effect with dropout: 0"),
        ("lora-cliplora", ["schedule.name=constant"], "schedule.end: has no effect with name: constant"),
        ("finetune", ["adapter.between={kind: gates}"], "has no effect with kind: full"),
        ("zscl", ["regularisers.0.texts_of=both"], "regularisers.0.texts_of"),
        ("dora", ["optimiser.weight_decay=0.01"], "must be 0 with adapter.row_scale: true"),
        ("dora", ["adapter.subspace={select: complement}"], "true works with subspace.select: none"),
        ("dora", ["adapter.between={kind: gates}"], "true does not go with between"),
        ("olora", ["adapter.row_scale=true"], "orthogonal does not go with adapter.row_scale: true"),
        ("lora-pro", ["optimiser={name: adamw, lr: 1e-3}"], "must be sgd with momentum: 0"),
        ("lora-pro", ["adapter.start={kind: components}"], "needs factors of which both are trained"),
        ("lora-pro", ["adapter.row_scale=true"], "does not go with row_scale"),
        ("finetune", ["training.weight_noise=0.05"], "works with adapter kind lowrank, not full"),
        (
            "flat-lora",
            ["regularisers=[{kind: diversity}, {kind: lwf, strength: 1}]"],
            f"lwf, {TEACHER}",
        ),
        ("flat-lora", ["regularisers=[{kind: similarities}]"], f"similarities, {TEACHER}"),
        ("flat-lora", ["regularisers=[{kind: consistency}]"], f"consistency, {TEACHER}"),
        ("clipself", ["training.weight_noise=0.05"], f"does not go with the regulariser crops, {TEACHER}"),
        ("densevlm", ["training.weight_noise=0.05"], f"does not go with the regulariser regions, {TEACHER}"),
        ("eva", ["adapter.subspace={select: complement}"], "variance works with subspace.select: none"),
        (
            "eva",
            ["adapter.start.most=1", "adapter.subspace={select: complement, form: projector}"],
            "variance needs coordinates of its own",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(name, changed, told):
    with pytest.raises(UserError) as refused:
        load_strategy(name, changed)
    assert told in str(refused.value)


def test_gates_go_with_the_complement():
    located = load_strategy("codyra", ["adapter.subspace={select: complement, keep: {energy: 0.5}}"])
    assert located.value.adapter.between.kind == "gates"


def test_noise_goes_with_teachers_that_it_does_not_reach():
    for part in ("reference", "diversity", "spectrum", "text-to-image"):
        assert load_strategy("flat-lora", [f"regularisers=[{{kind: {part}}}]"]).value.regularisers


@pytest.mark.parametrize("part", ["ewc", "l2-init"])
def test_noise_does_not_go_with_what_reads_the_weights(part):
    with pytest.raises(UserError, match=f"regulariser {part}, which reads the weights while the noise is on"):
        load_strategy("flat-lora", [f"regularisers=[{{kind: {part}, strength: 1.0}}]"])


def test_a_scaling_of_zero_is_refused():
    with pytest.raises(UserError, match="adapter.depth_scale"):
        load_strategy("pissa", ["adapter.depth_scale=0"])
