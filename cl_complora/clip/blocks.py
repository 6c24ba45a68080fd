"""How towers compute, and towers as lists of blocks: what a block gives is taken, replaced, or computed
again.

Within the contexts a block's ``forward`` is replaced on the instance; afterwards it is what it was before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import SplitAttention

# Towers of at least this width leave out what they do not read of their last block. (Below it there is little
# to save, and the figures measured with the embedded model keep their digits.)
WIDE = 384


@dataclass(frozen=True)
class Computing:
    """How the towers compute while gradients are taken; the result is the same but for rounding.

    Attributes:
        chunk: images or prompts at a time, each chunk computed again for the gradient; None for all at once.
        checkpointing: whether blocks are computed again for the gradient instead of being remembered.
        compiled: whether ``torch.compile`` makes the programs.
    """

    chunk: int | None = None
    checkpointing: bool = False
    compiled: bool = False


def blocks_of(tower: nn.Module) -> tuple[str, list[nn.Module]]:
    """Name and members of a tower's list of blocks; nothing for a tower without one such list (of stages,
    say)."""
    lists = [
        (name, list(module))
        for name, module in tower.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential)
        and name.rpartition(".")[2] in ("resblocks", "blocks")
    ]
    if len(lists) != 1 or any(isinstance(block, nn.ModuleList) for block in lists[0][1]):
        return "", []
    return lists[0]


@contextmanager
def outputs_of(blocks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Within, everything that the blocks give is put into the list, in the order in which they are called."""
    outputs: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda module, given, out: outputs.append(out)) for block in blocks]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _computing(forwards: Mapping[nn.Module, Callable]) -> Iterator[None]:
    """Within, each of the blocks computes what is said here; afterwards what it did before."""
    before = {block: vars(block).get("forward") for block in forwards}
    for block, forward in forwards.items():
        block.forward = forward
    try:
        yield
    finally:
        for block, forward in before.items():
            if forward is None:
                del block.forward
            else:
                block.forward = forward


def starting_after(blocks: Sequence[nn.Module], known: Tensor) -> AbstractContextManager[None]:
    """Within, these first blocks of a tower are not computed; the last of them gives ``known``."""
    passed = {block: lambda x, *args, **kwargs: x for block in blocks[:-1]}
    return _computing(passed | {blocks[-1]: lambda *args, **kwargs: known})


def computed_again(blocks: Sequence[nn.Module]) -> AbstractContextManager[None]:
    """Within, what the blocks compute is not remembered for the gradient but computed again there."""
    return _computing({block: partial(_checkpointed, block.forward) for block in blocks})


def _checkpointed(forward: Callable, *args: object, **kwargs: object) -> Tensor:
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def gives_one_token(block: nn.Module) -> bool:
    """Whether :func:`one_token` knows what the block computes, and leaves out enough to be worth it.

    That is open_clip's plain pre-norm block with an opened attention, at least :data:`WIDE` wide. One that
    drops something at random is computed whole: with fewer tokens it would draw something else.
    """
    attention = getattr(block, "attn", None)
    return (
        type(block).forward is ResidualAttentionBlock.forward
        and "forward" not in vars(block)
        and not hasattr(block, "ln_1_kv")
        and isinstance(attention, SplitAttention)
        and attention.batch_first
        and attention.returns_tuple
        and attention.embed_dim >= WIDE
        and not any(draws(module) for module in block.modules())
    )


def draws(module: nn.Module) -> bool:
    """Whether it drops something at random as it is now: layers of dropout, attention, low-rank blocks."""
    shares = (getattr(module, name, 0.0) for name in ("p", "prob", "drop_prob", "dropout", "output_dropout"))
    return module.training and any(isinstance(share, float) and share > 0 for share in shares)


def one_token(block: nn.Module, places: Tensor | int) -> AbstractContextManager[None]:
    """Within, the last block of a tower gives one token of every row, the only one that the tower reads.

    Keys and values of all tokens are needed for it, but no query, projection or MLP of the others, which is
    three quarters of the block.

    Args:
        block: for which :func:`gives_one_token` holds; ``N × L × D`` in, ``N × 1 × D`` out.
        places: ``(N,)`` the token of every row, or one for all.
    """

    def chosen(tokens: Tensor) -> Tensor:
        if isinstance(places, int):
            return tokens[:, places : places + 1]
        return tokens.gather(1, places[:, None, None].expand(-1, 1, tokens.shape[2]))

    def forward(x: Tensor, k_x: None = None, v_x: None = None, attn_mask: Tensor | None = None) -> Tensor:
        normed = block.ln_1(x)
        mask = None if attn_mask is None else attn_mask.to(x.dtype)[places].reshape(-1, 1, x.shape[1])
        mask = mask if mask is None or len(mask) == len(x) else mask[0]
        seen = block.attn(chosen(normed), normed, normed, need_weights=False, attn_mask=mask)[0]
        y = chosen(x) + block.ls_1(seen)
        return y + block.ls_2(block.mlp(block.ln_2(y)))

    return _computing({block: forward})
