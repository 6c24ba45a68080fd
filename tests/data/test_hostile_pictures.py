"""Pictures cut off, mutated and made to burst. ``CL_COMPLORA_FAULTS=long`` tries many more (``make
test-faults``)."""

from __future__ import annotations

import io
import random
import struct
import sys
import zlib
from collections.abc import Iterator

import pytest
import torch
from PIL import Image

from builders.costs import costs_of, measured, report
from builders.hostile import PIXELS, mutated
from builders.places import LONG
from builders.sources import seeds
from cl_complora.data.images.pixels import MAX_PIXELS, MAX_SCANS

pytestmark = pytest.mark.usefixtures("never_hangs")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, extra: bytes = b"", pixels: bytes | None = None, bits: int = 8, kind: int = 2
) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    pixels = zlib.compress(bytes(100)) if pixels is None else pixels
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    """So many zero bytes, compressed a thousandfold."""
    times, rest = divmod(count, 2**20)
    whole, last = zlib.compressobj(9, wbits=-15), zlib.compressobj(9, wbits=-15)
    block = whole.compress(bytes(2**20)) + whole.flush(zlib.Z_FULL_FLUSH)  # what may be repeated
    checksum = struct.pack(">I", count % 65521 << 16 | 1)
    return b"\x78\xda" + block * times + last.compress(bytes(rest)) + last.flush() + checksum


def tiff(**tags: int) -> bytes:
    """A grey TIFF of 64 × 64 pixels whose tags (``t256``: width …) are replaced; None leaves one out."""
    known = {256: 64, 257: 64, 258: 8, 259: 1, 262: 1, 273: 400, 277: 1, 278: 64, 279: 4096}
    known |= {int(name[1:]): value for name, value in tags.items()}
    entries = [
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(known.items()) if value is not None
    ]
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(5000)


def gif(screen: tuple[int, int], frame: tuple[int, int]) -> bytes:
    start = b"GIF89a" + struct.pack("<HHBBB", *screen, 0, 0, 0)
    return start + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\2\2\x44\x01\0;"


def picture_bombs() -> Iterator[tuple[str, bytes]]:
    """Small files that claim to be large, or become it."""
    pixels = zlib.compress(bytes(8 * 25))
    yield "png-claims", png(2**31 - 1, 2**31 - 1)
    yield "png-wide", png(MAX_PIXELS, 1)
    yield "png-beyond", png(MAX_PIXELS + 1, 1)
    yield "png-no-width", png(0, 5)
    yield "png-thin", png(1, 89_000, pixels=zeros(89_000 * 4))
    for kind, start in ((b"iCCP", b"x\0\0"), (b"zTXt", b"x\0\0"), (b"iTXt", b"x\0\1\0\0\0")):
        yield f"png-{kind.decode()}", png(8, 8, chunk(kind, start + zeros(2 * 10**8)), pixels)
    yield "png-texts", png(8, 8, chunk(b"tEXt", b"x\0" + bytes(1000).replace(b"\0", b"a")) * 70_000, pixels)
    yield "png-chunks", png(8, 8, chunk(b"abCd", b"") * 200_000, pixels)
    yield "png-empty", png(9000, 9000)
    yield "gif-screen", gif((65535, 65535), (1, 1))
    yield "gif-frame", gif((10, 10), (65535, 65535))
    yield "gif-nothing", gif((0, 0), (0, 0))
    yield "tiff-far", tiff(t273=0xFFFFFF00)
    yield "tiff-long", tiff(t279=0xFFFFFFFF, t256=9000, t257=9000)
    for compression in (1, 5, 7, 8, 32773, 34925, 50000):
        tiles = {"t273": None, "t278": None, "t279": None, "t324": 400, "t325": 100, "t259": compression}
        yield f"tiff-tile-{compression}", tiff(**tiles, t322=30_000, t323=30_000)
        yield f"tiff-tiles-{compression}", tiff(**tiles, t322=2**31, t323=2**31)
        yield f"tiff-rows-{compression}", tiff(t256=9000, t257=9000, t278=0xFFFFFFFF, t259=compression)
    yield "tiff-samples", tiff(t277=65535)
    yield "bigtiff-far", b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**63 - 10) + bytes(100)
    yield "bigtiff-many", b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**62) + bytes(100)
    buffer = io.BytesIO()
    Image.new("L", (9400, 9400)).save(buffer, "JPEG", progressive=True)
    whole = buffer.getvalue()
    yield "jpeg-scans", whole[:-2] + whole[whole.rindex(b"\xff\xda") : -2] * (MAX_SCANS + 20) + whole[-2:]


def largest_pictures() -> Iterator[tuple[str, bytes]]:
    """The costliest that are read: almost as many pixels as are allowed, in every mode."""
    for kind, mode in (
        ("TIFF", "I"), ("WEBP", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGBA"), ("TIFF", "CMYK"),
        ("TIFF", "I;16"), ("PNG", "1"), ("BMP", "RGB"), ("GIF", "P"),
    ):  # fmt: skip
        buffer = io.BytesIO()
        options = {"JPEG": {"progressive": True}, "TIFF": {"compression": "tiff_deflate"}}.get(kind, {})
        Image.new(mode, (9450, 9450), 255 if mode in "I;16" else None).save(buffer, kind, **options)
        yield f"largest-{kind}-{mode}", buffer.getvalue()


def decode_all(mutations: int, largest: bool) -> Iterator[dict]:
    known = seeds()
    for name, content in known.items():
        one = measured(name, lambda c=content, n=name: decoded(c, n))
        assert one["lines"] == ["fine"], one
        yield one
        for part in range(0, len(content), max(1, len(content) // 25)):
            yield measured(f"{name} cut at {part}", lambda c=content[:part], n=name: decoded(c, n))
    for name, content in picture_bombs():
        yield measured(name, lambda c=content, n=name: decoded(c, n))
    for name, content in largest_pictures() if largest else ():
        yield measured(name, lambda c=content, n=name: decoded(c, n))
    rng, names = random.Random(0), list(known)
    for number in range(mutations):
        name = names[number % len(names)]
        content = mutated(rng, known[name])
        yield measured(f"{name} {number}", lambda c=content, n=name: decoded(c, n))


def decoded(content: bytes, name: str) -> torch.Tensor:
    found = PIXELS.decode(content, name)
    assert found.shape == (3, 32, 32) and found.dtype == torch.uint8
    return found


def test_pictures_cut_off_mutated_and_made_to_burst():
    """It neither dies nor writes on the terminal."""
    found = costs_of(__file__, *((60_000, 1) if LONG else (500, 0)))
    for one in found:
        assert one["lines"] == ["fine"] or "cannot be read as an image: " in one["lines"][0], one
        assert len(one["lines"]) == 1 and one["lines"][0].isprintable()
        assert one["bytes"] < 1_500_000_000 and one["s"] < 20, one
    by_name = {one["name"]: one["lines"][0] for one in found}
    for name in dict(picture_bombs()):
        assert by_name[name] != "fine" or name in ("png-chunks", "tiff-long"), (name, by_name[name])
    assert "too many scans" in by_name["jpeg-scans"] and "too long and thin" not in by_name["png-wide"]
    assert "tiles of 900,000,000 pixels" in by_name["tiff-tile-5"]


if __name__ == "__main__":
    report(decode_all(int(sys.argv[1]), sys.argv[2] == "1"))
