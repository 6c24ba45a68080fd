"""Image files to pixels: CLIP's deterministic resize and centre crop, kept as uint8, and augmentation on tensors."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError

# A picture of more pixels is refused: it is a decompression bomb or at least no few-shot image.
MAX_PIXELS = 200_000_000


@dataclass(frozen=True)
class Pixels:
    """The part of a model's preprocessing that comes before normalisation, bit for bit as open_clip does it.

    Attributes:
        size: (height, width) of the model's input.
        resize: ``shortest`` (CLIP: short side to size, then centre crop), ``longest`` (pad) or ``squash``.
        interpolation: ``bicubic`` or ``bilinear``.
        fill: grey level of the padding.
    """

    size: tuple[int, int]
    resize: Literal["shortest", "longest", "squash"] = "shortest"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    fill: int = 0

    def read(self, path: Path) -> Tensor:
        """``3 × H × W`` uint8 of an image file (EXIF rotation applied, any mode to RGB).

        Raises:
            UserError: naming the file and what is wrong with it.
        """
        return self.decode(path, str(path))

    def decode(self, file: Path | IO[bytes], name: str) -> Tensor:
        """As :meth:`read`, also of a file in memory, which ``name`` stands for in messages."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(file) as image:
                    if image.width * image.height > MAX_PIXELS:
                        raise ValueError(f"{image.width} × {image.height} pixels; at most {MAX_PIXELS} are read")
                    return self.fit(_rgb(ImageOps.exif_transpose(image)))
        except UnidentifiedImageError:
            raise UserError(f"{name}: cannot be read as an image: it is empty or of no known format") from None
        except Exception as error:  # decoders raise whatever a hostile file leads them to
            raise UserError(f"{name}: cannot be read as an image: {' '.join(str(error).split())}") from None

    def fit(self, image: Image.Image) -> Tensor:
        """Resize and crop an RGB image to ``3 × H × W`` uint8."""
        height, width = self.size
        method = Image.Resampling.BILINEAR if self.interpolation == "bilinear" else Image.Resampling.BICUBIC
        if self.resize == "shortest" and height != width:
            method = Image.Resampling.BICUBIC  # the only one that open_clip uses here
        scaled = self._scaled(image.width, image.height)
        if scaled != image.size:
            image = image.resize(scaled, method)
        if image.size != (width, height):
            image = _centre(image, width, height, self.fill)
        return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(height, width, 3).permute(2, 0, 1)

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of an image after resizing, rounded as open_clip and torchvision round."""
        target_height, target_width = self.size
        if self.resize == "squash":
            return target_width, target_height
        if self.resize == "shortest" and target_height == target_width:
            short = min(width, height)
            return int(target_width * width / short), int(target_width * height / short)
        ratios = (height / target_height, width / target_width)
        ratio = min(ratios) if self.resize == "shortest" else max(ratios)
        return max(1, round(width / ratio)), max(1, round(height / ratio))


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB; of more than eight bits a channel the eight high ones, where Pillow would clip to white."""
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        image = Image.fromarray((values >> 8 if values.max() > 255 else values).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def _centre(image: Image.Image, width: int, height: int, fill: int) -> Image.Image:
    canvas = Image.new("RGB", (width, height), (fill, fill, fill))
    canvas.paste(image, (_offset(image.width, width), _offset(image.height, height)))
    return canvas


def _offset(length: int, room: int) -> int:
    # Half a pixel goes to the right or below in padding, and to even numbers in cropping.
    return (room - length) // 2 if length < room else -round((length - room) / 2)


def augment(images: Tensor, crop: tuple[float, float], flip: bool, generator: torch.Generator) -> Tensor:
    """Random crop to a share of the area (then back to full size) and mirror, for a whole batch at once.

    Args:
        images: ``N × 3 × H × W`` uint8.
        crop: smallest and largest share of the area; (1, 1) leaves the frame alone.
        flip: mirror half of the images.
        generator: CPU generator, so that the draws are the same on every device.

    Returns:
        ``N × 3 × H × W`` uint8.
    """
    n = len(images)
    if crop == (1.0, 1.0) and not flip:
        return images
    area = torch.empty(n).uniform_(*crop, generator=generator)
    aspect = torch.empty(n).uniform_(math.log(3 / 4), math.log(4 / 3), generator=generator).exp()
    scale = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()], 1).clamp_max(1.0)
    if crop == (1.0, 1.0):
        scale = torch.ones_like(scale)
    offset = (torch.rand(n, 2, generator=generator) * 2 - 1) * (1 - scale)
    mirror = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0) if flip else torch.ones(n)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = scale[:, 0] * mirror, scale[:, 1]
    theta[:, :, 2] = offset
    grid = F.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return moved.round_().clamp_(0, 255).to(torch.uint8)
