"""Pictures of more than eight bits a channel: which they are, and all of their bits.

Pillow has no mode for colours of 16 bits: it keeps the high byte of each. The low ones are got by decoding
once more as if the bytes stood in the other order.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import SAMPLEFORMAT, TiffImageFile

from .value_range import SIXTEEN, ValueRange

# Lines of a picture at a time: numbers need up to 24 times as many bytes as the 8 bits that they become.
BAND = 64
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_COLOURS = ("RGB;16", "RGBA;16", "RGBX;16")


def is_deep(image: Image.Image) -> bool:
    """Whether an opened picture (not yet loaded) stores more than eight bits a channel, of unknown use."""
    if image.mode == "F" or image.mode.startswith("I"):
        return not _is_scaled(image)
    raw = _raw_mode(image)
    return raw.startswith((*_COLOURS, "LA;16")) or _is_raw_ppm(image)


def _tile(image: Image.Image):
    tiles = getattr(image, "tile", None)
    return tiles[0] if tiles else None


def _raw_mode(image: Image.Image) -> str:
    tile = _tile(image)
    if tile is None:
        return ""
    args = tile[3]
    raw = args if isinstance(args, str) else args[0] if args else ""
    return raw if isinstance(raw, str) else ""


def _is_scaled(image: Image.Image) -> bool:
    """A PGM that says what its largest value is, and JPEG 2000; Pillow makes that one 65535."""
    tile = _tile(image)
    if image.format == "JPEG2000":
        return True
    return image.format == "PPM" and tile is not None and tile[0].startswith("ppm") and image.mode == "I"


def _is_raw_ppm(image: Image.Image) -> bool:
    """A PPM of two bytes a colour, of which it does not say how many bits are used."""
    tile = _tile(image)
    two_bytes = ("RGB", int(SIXTEEN.high))
    return image.format == "PPM" and tile is not None and tile[0] == "ppm" and tile[3] == two_bytes


def bands(image: Image.Image, content: bytes) -> Iterator[np.ndarray]:
    """What a deep picture stores, some lines at a time.

    Args:
        image: opened and not yet loaded.
        content: of its file.

    Yields:
        ``lines × width × channels`` of integers or floats; a last channel of two or four is alpha.
    """
    raw = _raw_mode(image)
    if _is_raw_ppm(image):
        values = np.frombuffer(content, ">u2", image.width * image.height * 3, _tile(image)[2])
        yield from np.array_split(values.reshape(image.height, image.width, 3), -(-image.height // BAND))
    elif raw.startswith("LA;16"):
        # As if it were of four channels: high and low byte of the grey, and of the alpha.
        image.tile = [_tile(image)._replace(args="RGBA")]
        for part in _parts(image):
            yield part[:, :, ::2].astype(np.uint16) << 8 | part[:, :, 1::2]
    elif raw.startswith(_COLOURS):
        with Image.open(io.BytesIO(content), formats=(image.format,)) as low:
            low.tile = [_swapped(tile) for tile in low.tile]
            for high, rest in zip(_parts(image), _parts(low), strict=True):
                yield high.astype(np.uint16) << 8 | rest
    else:
        unsigned = (
            image.mode == "I"
            and isinstance(image, TiffImageFile)
            and image.tag_v2.get(SAMPLEFORMAT, (1,))[0] == 1
        )
        for part in _parts(image):
            yield (part.view(np.uint32) if unsigned else part)[:, :, None]


def _swapped(tile):
    """A tile whose bytes are read in the other order."""
    raw = tile.args if isinstance(tile.args, str) else tile.args[0]
    other = raw[:-1] + _OTHER_ORDER[raw[-1]]
    return tile._replace(args=other if isinstance(tile.args, str) else (other, *tile.args[1:]))


def _parts(image: Image.Image) -> Iterator[np.ndarray]:
    image.load()
    for top in range(0, image.height, BAND):
        yield np.asarray(image.crop((0, top, image.width, min(image.height, top + BAND))))


def eight_bits(image: Image.Image, content: bytes, values: ValueRange) -> Image.Image:
    """A deep picture as L, LA, RGB or RGBA.

    Args:
        image, content: as for :func:`bands`.
        values: what becomes 0 … 255.
    """
    key = image.info.get("transparency")
    colours, opacity = [], []
    for band in bands(image, content):
        alpha = band.shape[2] in (2, 4)
        colours.append(values.eight_bits(band[:, :, :-1] if alpha else band))
        if alpha:
            opacity.append(band[:, :, -1])
        elif isinstance(key, int | tuple):
            opacity.append((band != np.asarray(key)).any(2) * np.uint16(SIXTEEN.high))
    whole = np.concatenate(colours)
    if opacity:
        alpha = np.concatenate(opacity)
        # Whoever writes 12 bits a colour writes 12 or 16 of alpha.
        own = values if values.low == 0 and alpha.max() <= values.high else SIXTEEN
        whole = np.concatenate([whole, own.eight_bits(alpha)[:, :, None]], 2)
    return Image.fromarray(whole[:, :, 0] if whole.shape[2] == 1 else whole)


def extent(image: Image.Image, content: bytes) -> tuple[float, float, bool]:
    """(smallest, largest, whether integers) of a deep picture's finite values, alpha left out."""
    low, high, whole = np.inf, -np.inf, True
    for band in bands(image, content):
        colours = band[:, :, :-1] if band.shape[2] in (2, 4) else band
        whole = colours.dtype.kind in "iu"
        finite = colours if whole else colours[np.isfinite(colours)]
        if finite.size:
            low, high = min(low, finite.min().item()), max(high, finite.max().item())
    return low, high, whole
