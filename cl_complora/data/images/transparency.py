"""Pictures with transparent pixels, put on a ground of one colour."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageColor

WHITE = (255, 255, 255)


def rgb_of(setting: str | Sequence[int]) -> tuple[int, int, int]:
    """``white``, ``#ffffff`` or ``[255, 255, 255]`` (checked by the schema) as three bytes."""
    found = ImageColor.getrgb(setting) if isinstance(setting, str) else setting
    return found[0], found[1], found[2]


def opacity(image: Image.Image) -> tuple[int, int]:
    """(smallest, largest) alpha of a loaded picture, from 0 to 255; (255, 255) where it has none."""
    return layered(image).getchannel("A").getextrema() if image.has_transparency_data else (255, 255)


def layered(image: Image.Image) -> Image.Image:
    """A picture with transparency, of any mode, as RGBA."""
    return image if image.mode == "RGBA" else image.convert("RGBA")


def on_ground(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """A loaded picture of eight bits as RGB; what lies under transparent pixels does not show.

    A picture that is opaque, and one that is transparent throughout (of which nothing would be left), keep
    their colours, to the bit.
    """
    if image.has_transparency_data:
        whole = layered(image)
        least, most = whole.getchannel("A").getextrema()
        if least < 255 and most > 0:
            ground = Image.new("RGBA", whole.size, (*background, 255))
            return Image.alpha_composite(ground, whole).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
