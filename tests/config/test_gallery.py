"""What the settings of the low-rank gallery refuse, at the line of the wrong key, and what they allow."""

from __future__ import annotations

import pytest

from cl_complora.config import load_strategy
from cl_complora.config.catalog import shipped
from cl_complora.errors import UserError

COMPLEMENT = "adapter.subspace={select: complement, keep: {energy: 0.5}}"
BUDGET = "adapter.between={kind: budget}"
PRUNING = "adapter.pruning={every: 5}"
FREE = "optimiser={name: schedule-free, lr: 1e-3}"
ZEROED = "which sets entries to zero that an average over steps would bring back"


@pytest.mark.parametrize(
    "name, changed, told",
    [
        ("lora-ga", [f"{COMPLEMENT[:-1]}, form: projector}}"], "coordinates of its own, not subspace.form"),
        ("lora-ga", ["adapter.start.leading=both"], "adapter.start.leading"),
        (
            "lora-ga",
            ["adapter.between={kind: gates}"],
            "gates works with start.kind: kaiming, not gr",
        ),
        ("image-lora", ["adapter.matrices=[v, o]"], "heads works with matrices: q, k and v"),
        ("image-lora", [COMPLEMENT], "heads works with subspace.sides: in, not both"),
        ("image-lora", ["adapter.start.b=0.1"], "must be 0 with between.kind: heads"),
        ("image-lora", ["adapter.between.share=0"], "adapter.between.share"),
        ("lora", ["adapter.start={kind: normal, b: 0.1}"], "without between.kind: budget"),
        ("adalora", ["adapter.start.b=0"], "must be greater than 0 with between.kind: budget"),
        ("adalora", ["adapter.start={kind: kaiming}"], "budget works with start.kind: normal, not kaiming"),
        ("adalora", ["adapter.between.final=0.95"], "must be less than 1 − warmup (0.9), got 0.95"),
        (
            "keeplora",
            ["regularisers=[{kind: orthonormal}]"],
            "does not go with start.kind: gradient",
        ),
        ("finetune", ["regularisers=[{kind: orthonormal}]"], "orthonormal works with adapter kind lowrank"),
        ("xgblora", ["training.average_every=2"], "whose factors begin anew within a task"),
        ("xgblora", ["optimiser={name: prodigy}"], "prodigy does not go with adapter.between.kind: boosters"),
        ("xgblora", [FREE], "schedule-free does not go with adapter.between.kind: boosters, whose factors"),
        ("codyra", [FREE], f"schedule-free does not go with adapter.between.kind: gates, {ZEROED}"),
        (
            "codyra",
            ["training.average_every=2"],
            "average_every=2: does not go with adapter.between.kind: gates",
        ),
        ("adalora", [FREE], f"schedule-free does not go with adapter.between.kind: budget, {ZEROED}"),
        ("adalora", ["training.average_every=2"], f"does not go with adapter.between.kind: budget, {ZEROED}"),
        ("prilora", [FREE], f"schedule-free does not go with adapter.pruning, {ZEROED}"),
        ("prilora", ["training.average_every=2"], f"does not go with adapter.pruning, {ZEROED}"),
        ("xgblora", ["adapter.row_scale=true"], "true does not go with between"),
        ("prilora", ["adapter.start={kind: variance}"], "does not go with start.kind: variance"),
        ("prilora", ["adapter.subspace={select: bottom}"], "does not go with subspace.select: bottom"),
        ("prilora", [f"{COMPLEMENT[:-1]}, form: projector}}"], "entries of A that are inputs of its own"),
        ("prilora", ["training.chunk=8"], "does not go with adapter.pruning, which looks at the inputs"),
        ("keeplora", [PRUNING], "does not go with start.kind: gradient, whose A is fixed"),
        ("finetune", [PRUNING], "has no effect with kind: full"),
        ("ba-lora", [COMPLEMENT], "components works with subspace.select: none"),
        ("ba-lora", ["regularisers.2.largest=0"], "regularisers.2.largest"),
        ("dac", ["adapter.rank=6"], "at most adapter.rank, which is how many experts there are (6), got 8"),
        (
            "dac",
            ["adapter.rank_last=5"],
            "between.active: must be at most adapter.rank_last, which is how many experts a tower's last"
            " block has (5), got 8",
        ),
        (
            "dac",
            ["adapter.rank=3", "adapter.rank_last=24", "adapter.between.active=2"],
            "between.merged: must be at most adapter.rank, which is how many experts a tower's first"
            " block has (3), got 4",
        ),
        ("dac", ["training.checkpointing=true"], "does not go with adapter.between"),
        ("dac", ["training.label_smoothing=0.1"], "has no effect with loss: batch"),
        ("lora", ["regularisers=[{kind: apart}]"], "apart works with adapter.between.kind: experts alone"),
        ("lora-pro", ["adapter.between={kind: boosters}"], "does not go with between"),
        ("lora-pro", ["optimiser.clip_norm=5.0"], "must be null with adapter.full_gradient, got 5: direct"),
        ("lora-pro", ["optimiser={name: sgd, momentum: 0.0, lr: 1e-4}"], "optimiser.clip_norm: must be null"),
    ],
)
def test_what_does_not_fit_together_is_refused(name, changed, told):
    with pytest.raises(UserError) as refused:
        load_strategy(name, changed)
    assert told in str(refused.value)


COMPONENTS = "start as singular components of the whole weight, which a subspace does not hold"
OWN_SUBSPACE = "A has a subspace of its own, outside the "
NOT_IN_THE_COMPLEMENT = {
    "ba-lora": COMPONENTS,
    "dora": "rescaled rows change what a weight does on the directions that it should leave alone",
    "eva": "ranks are shared out by the variance of whole inputs, of which a subspace reads a part",
    "image-lora": "works with subspace.sides: in, not both",
    "inflora": OWN_SUBSPACE,
    "keeplora": OWN_SUBSPACE,
    "keeplora++": OWN_SUBSPACE,
    "keeplora-repaired": OWN_SUBSPACE,
    "milora": COMPONENTS,
    "pissa": COMPONENTS,
    "sdlora": "what earlier tasks learned lies outside the complement of the weights that hold it",
}


@pytest.mark.parametrize(
    "name", [name for name in shipped("strategy") if load_strategy(name).value.adapter.kind == "lowrank"]
)
def test_the_complement_is_allowed_or_refused_with_the_reason(name):
    try:
        value = load_strategy(name, [COMPLEMENT]).value
    except UserError as refused:
        assert NOT_IN_THE_COMPLEMENT[name] in str(refused) and ".yaml:" in str(refused)
    else:
        assert value.adapter.subspace.select == "complement" and name not in NOT_IN_THE_COMPLEMENT


def test_terms_of_answers_go_with_any_update():
    terms = [{"kind": kind} for kind in ("consistency", "diversity", "spectrum")]
    for name in ("complora", "finetune", "tokens"):
        assert len(load_strategy(name, [f"regularisers={terms}"]).value.regularisers) == 3
