"""The embedded model's vocabulary: the part of CLIP's own byte-pair merges that the world's words need, in
rank order.

    python -m cl_complora.world.making.vocabulary        (writes assets/bpe.txt.gz)

The file has the format that open_clip's ``SimpleTokenizer`` reads, so words are cut as CLIP cuts them
wherever the merges suffice, and spelled in smaller pieces where they do not.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable

from .. import ASSETS
from ..canvas import COLOURS
from ..captions import FRAMES
from ..concepts import CONCEPTS, plural
from ..domains import DOMAINS
from ..patterns import PATTERNS, TEXTURES
from .loose_captions import PHRASES

FREQUENT = 400
"""The most frequent merges of English are kept whatever the world's words are."""

_GRAMMAR = """a an the and of on in with at to this is there we see left right top bottom upper lower center above
front background small medium large two three four five some its one photo picture image drawing handwritten
greek letter digit number flag pattern texture surface aerial view satellite chalk sketch blueprint neon sign
silhouette object from world"""


def words() -> list[str]:
    """Every word that captions, class names and prompts of the world use."""
    names = [c.name for c in CONCEPTS] + [plural(c.name) for c in CONCEPTS if c.kind in ("object", "shape")]
    shown = [text for domain in DOMAINS.values() for text in (*domain.class_names, *domain.prompts)]
    texts = [*names, *FRAMES, *COLOURS, *PATTERNS, *TEXTURES.values(), *shown, *PHRASES, _GRAMMAR]
    return sorted({word for text in texts for word in text.replace("{}", " ").split()})


def build(vocabulary: Iterable[str]) -> bytes:
    """Content of a merges file with what the words need and the most frequent merges."""
    from open_clip.tokenizer import SimpleTokenizer, default_bpe

    full = SimpleTokenizer()
    with gzip.open(default_bpe()) as file:
        merges = file.read().decode("utf-8").split("\n")[1 : 49152 - 256 - 2 + 1]
    kept = set(range(FREQUENT))
    for word in vocabulary:
        for piece in full.pat.findall(word.lower()):
            kept |= _merges_used("".join(full.byte_encoder[b] for b in piece.encode("utf-8")), full.bpe_ranks)
    lines = [
        "#version: the part of CLIP's merges that the embedded world uses",
        *(merges[i] for i in sorted(kept)),
    ]
    return gzip.compress("\n".join(lines).encode("utf-8"), mtime=0)


def _merges_used(piece: str, ranks: dict[tuple[str, str], int]) -> set[int]:
    symbols, used = (*piece[:-1], piece[-1] + "</w>"), set()
    while len(symbols) > 1:
        pair = min(zip(symbols[:-1], symbols[1:], strict=True), key=lambda p: ranks.get(p, len(ranks)))
        if pair not in ranks:
            break
        used.add(ranks[pair])
        merged, at = [], 0
        while at < len(symbols):
            if symbols[at : at + 2] == pair:
                merged.append(symbols[at] + symbols[at + 1])
                at += 2
            else:
                merged.append(symbols[at])
                at += 1
        symbols = tuple(merged)
    return used


if __name__ == "__main__":
    ASSETS.mkdir(exist_ok=True)
    (ASSETS / "bpe.txt.gz").write_bytes(build(words()))
