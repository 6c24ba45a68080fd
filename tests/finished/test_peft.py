"""A finished run as a PEFT adapter: what it adds, what PEFT makes of it, and what PEFT cannot hold."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from builders.commands import cli
from cl_complora.config import load_scenario, load_strategy
from cl_complora.errors import UserError
from cl_complora.finished.export import export
from cl_complora.finished.peft import adapter_of
from cl_complora.finished.states import open_run
from cl_complora.run.stream import run


def trained(tiny_scenario, tiny_strategy, out, *settings):
    return run(load_scenario(str(tiny_scenario)), load_strategy(str(tiny_strategy), settings), out=out).folder


def test_the_adapter_multiplied_out_is_what_the_tasks_added(tiny_run, tmp_path):
    """Read as PEFT's documentation has it: B A · lora_alpha / r, ranks by pattern, one pair a module."""
    files = export(open_run(tiny_run.folder), tmp_path / "low.safetensors", peft=True)
    assert [f.relative_to(tmp_path).as_posix() for f in files[-2:]] == [
        "low-peft/adapter_model.safetensors",
        "low-peft/adapter_config.json",
    ]
    config, tensors = json.loads(files[-1].read_text()), load_file(files[-2])
    assert "low-peft" in (tmp_path / "low.md").read_text()
    before, after = open_run(tiny_run.folder, "0").loaded.model, open_run(tiny_run.folder).loaded.model
    modules, seen = dict(before.named_modules()), set()
    for path in [path for path in modules if re.fullmatch(config["target_modules"], path)]:
        a, b = (tensors.pop(f"base_model.model.{path}.lora_{half}.weight") for half in "AB")
        rank = next(
            (r for k, r in config["rank_pattern"].items() if re.match(rf"(.*\.)?({k})$", path)), config["r"]
        )
        assert len(a) == b.shape[1] == rank and config["lora_alpha"] == config["r"]
        assert config["alpha_pattern"] == config["rank_pattern"] and not config["use_rslora"]
        fused = isinstance(modules[path], nn.MultiheadAttention)
        assert rank == (8 if fused else 4)  # two tasks of rank 2; q and v
        name = f"{path}.in_proj_weight" if fused else f"{path}.weight"
        seen.add(name)
        moved = after.get_parameter(name) - before.get_parameter(name)
        assert moved.any() and torch.allclose(b @ a, moved, atol=1e-6)
        if fused:
            width = a.shape[1]
            assert not b[width : 2 * width].any()  # k
            assert not any(
                tensors.pop(f"base_model.model.{path}.base_layer.out_proj.lora_{h}.weight").any()
                for h in "AB"
            )
    still = {
        name for name, value in before.named_parameters() if torch.equal(value, after.get_parameter(name))
    }
    assert not tensors and seen == {name for name, _ in before.named_parameters()} - still


PEFT_RUNS = {
    "factors": (),
    "all": ("adapter.matrices=[q,k,v,o,fc,proj]", "adapter.whole=[tokens,norms]"),
    "text": ("adapter.towers=[text]", "adapter.matrices=[k,o]"),
    "many": ("adapter.rank=9", "adapter.matrices=[q,k,v]", "adapter.towers=[text]"),
    "tokens": ("adapter={kind: full, whole: [tokens]}",),
}


@pytest.mark.parametrize("settings", PEFT_RUNS.values(), ids=PEFT_RUNS)
def test_peft_gives_the_merged_logits(settings, tiny_scenario, tiny_strategy, tmp_path):
    peft = pytest.importorskip("peft")
    folder = trained(tiny_scenario, tiny_strategy, tmp_path / "runs", *settings)
    state, base = open_run(folder), open_run(folder, "0").loaded.model
    adapter_of(state).write(tmp_path / "adapter")
    generator = torch.Generator().manual_seed(0)
    inputs = (
        torch.randn(4, 3, 32, 32, generator=generator),
        state.loaded.tokenizer(["so red", "blue", "a photo"]),
    )

    def logits(model: nn.Module) -> torch.Tensor:
        with torch.no_grad():
            image, text, scale = model(*inputs)
        return scale * image @ text.T

    merged, untouched = logits(state.loaded.model), logits(base)
    adapted = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert torch.allclose(logits(adapted), merged, atol=1e-4) and not torch.allclose(
        merged, untouched, atol=1e-3
    )
    with adapted.disable_adapter():
        assert torch.allclose(logits(adapted), untouched, atol=1e-4)
    assert torch.allclose(logits(adapted.merge_and_unload()), merged, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("adapter={kind: full}",), "the update of positional_embedding, text_projection, "),
        (("adapter.whole=[biases]",), " and 13 more is no low-rank one"),
    ],
)
def test_what_peft_cannot_hold_is_refused(
    settings, told, tiny_scenario, tiny_strategy, tmp_path, monkeypatch, capsys
):
    folder = trained(tiny_scenario, tiny_strategy, tmp_path / "runs", *settings)
    code, out, err = cli(monkeypatch, capsys, "export", folder, "--peft", "-o", tmp_path / "x.safetensors")
    assert code == 2 and told in err and err.count("\n") == 1 and not out, err
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_what_peft_would_wrap_to_no_effect_is_refused(tiny_run):
    """A layer whose weight the model reads without calling it, as BEiT does with qkv, and an attention of its
    own."""
    state = open_run(tiny_run.folder)
    block = state.loaded.model.visual.transformer.resblocks[0]
    layers = dict(block.mlp.named_children())
    block.mlp.forward = lambda x: layers["c_proj"](
        layers["gelu"](nn.functional.linear(x, layers["c_fc"].weight))
    )
    with pytest.raises(
        UserError, match=r"would leave visual.transformer.resblocks.0.mlp.c_fc unchanged: it wraps"
    ):
        adapter_of(state)

    state = open_run(tiny_run.folder)
    block = state.loaded.model.transformer.resblocks[1]
    foreign = nn.Module()
    foreign.in_proj_weight, foreign.out_proj = block.attn.in_proj_weight, block.attn.out_proj
    block.attn = foreign
    with pytest.raises(UserError, match="would leave transformer.resblocks.1.attn.in_proj_weight unchanged"):
        adapter_of(state)
