"""What the settings of the low-rank gallery refuse, at the line of the wrong key, and what they allow."""

from __future__ import annotations

import pytest

from cl_complora.config import load_strategy
from cl_complora.errors import UserError

COMPLEMENT = "adapter.subspace={select: complement, keep: {energy: 0.5}}"
BUDGET = "adapter.between={kind: budget}"
PRUNING = "adapter.pruning={every: 5}"


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
    ],
)
def test_what_does_not_fit_together_is_refused(name, changed, told):
    with pytest.raises(UserError) as refused:
        load_strategy(name, changed)
    assert told in str(refused.value)


@pytest.mark.parametrize("name", ["lora-ga", "adalora", "xgblora", "prilora", "dac", "dac-repaired"])
def test_the_complement_is_allowed(name):
    assert load_strategy(name, [COMPLEMENT]).value.adapter.subspace.select == "complement"


def test_terms_of_answers_go_with_any_update():
    terms = [{"kind": kind} for kind in ("consistency", "diversity", "spectrum")]
    for name in ("complora", "finetune", "tokens"):
        assert len(load_strategy(name, [f"regularisers={terms}"]).value.regularisers) == 3
