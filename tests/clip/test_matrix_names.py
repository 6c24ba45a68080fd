"""Names of matrices, read as tower, layer and kind."""

from __future__ import annotations

import pytest
from torch import nn

from cl_complora.clip import matrix_names
from cl_complora.clip.matrix_names import place_of
from cl_complora.clip.slots import open_slots


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("visual.transformer.resblocks.3.attn.in_proj_weight[0:64]", ("vision", "3", "q")),
        ("visual.transformer.resblocks.3.attn.in_proj_weight[128:192]", ("vision", "3", "v")),
        ("visual.transformer.resblocks.3.attn.in_proj_weight", ("vision", "3", "qkv")),
        ("visual.transformer.resblocks.3.attn.q", ("vision", "3", "q")),
        ("visual.transformer.resblocks.11.attn.out_proj.weight", ("vision", "11", "o")),
        ("transformer.resblocks.0.attn.out_proj.o", ("text", "0", "o")),
        ("transformer.resblocks.0.mlp.c_fc.weight[0:256]", ("text", "0", "fc")),
        ("text.transformer.resblocks.0.mlp.c_proj.proj", ("text", "0", "proj")),
        ("visual.trunk.stages.2.blocks.14.mlp.fc1.weight", ("vision", "2.14", "fc")),
        ("visual.trunk.blocks.5.attn.qkv.weight[384:768]", ("vision", "5", "k")),
        ("visual.trunk.blocks.5.attn.proj.weight", ("vision", "5", "o")),
        ("visual.trunk.stages.1.downsample.1.weight", ("vision", "1", "downsample.1")),
        ("token_embedding.weight", ("text", "–", "token_embedding")),
        ("visual.head.proj.other", ("vision", "–", "proj")),
        ("visual.layer3.0.conv1.weight", ("vision", "3.0", "conv1")),
        ("visual.proj", ("vision", "–", "proj")),
        ("text_projection", ("text", "–", "text_projection")),
        ("", ("text", "–", "")),
    ],
)
def test_names_of_matrices_are_read_as_places(name, place):
    found = place_of(name)
    assert (found.tower, found.layer, found.kind) == place


class Block(nn.Module):
    """A block whose MLP has a name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.ModuleDict({"widen": nn.Linear(4, 8), "c_proj": nn.Linear(8, 4)})


def test_slots_and_names_know_the_same_matrices(monkeypatch):
    monkeypatch.setattr(matrix_names, "_MLP_IN", {*matrix_names._MLP_IN, "widen"})
    slots = open_slots(nn.ModuleDict({"blocks": nn.ModuleList([Block(), Block()])}))
    assert [slot.matrix for slot in slots] == ["fc", "proj"] * 2
    assert [place_of(slot.key).kind for slot in slots] == ["fc", "proj"] * 2
