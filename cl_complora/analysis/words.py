"""Which token embeddings a task moved, by name: the words that it rewrote."""

from __future__ import annotations

from typing import Any

from ..delta import TaskDelta

EMBEDDINGS = "token_embedding.weight"
# More are no list that anyone reads; the number of all that moved is told beside them.
MOST = 12


def words_moved(delta: TaskDelta, tokenizer: Any) -> dict[str, Any]:
    """The rows of the token embeddings that moved furthest.

    Args:
        delta: what a task added.
        tokenizer: of the model; tokens that it cannot write out are called by their numbers.

    Returns:
        ``{"moved": number of rows that moved, "furthest": [{"word": …, "norm": ‖ΔW‖ of its row}, …]}``, the
        furthest first; empty where token embeddings did not move.
    """
    # Embeddings have no factors, whose products need not be taken for this.
    stored = {name: (None, update) for name, update in delta.dense.items()} | delta.rows
    for parameter, (rows, update) in stored.items():
        if not parameter.endswith(EMBEDDINGS):
            continue
        norms = update.double().norm(dim=1)
        tokens = range(len(norms)) if rows is None else rows.tolist()
        far = sorted(zip(norms.tolist(), tokens, strict=True), key=lambda pair: (-pair[0], pair[1]))
        moved = [(norm, token) for norm, token in far if norm > 0]
        furthest = [{"word": _written(token, tokenizer), "norm": norm} for norm, token in moved[:MOST]]
        return {"moved": len(moved), "furthest": furthest} if moved else {}
    return {}


def _written(token: int, tokenizer: Any) -> str:
    """The token as text, without the mark at the end of a word."""
    known = getattr(tokenizer, "tokenizer", tokenizer)  # open_clip wraps those of Hugging Face
    try:
        text = known.decode([token])
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        text = ""
    return " ".join(str(text).split()) or f"token {token}"
