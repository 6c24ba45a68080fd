"""Image files to pixels: CLIP's deterministic resize and centre crop, kept as uint8, and augmentation on
tensors."""

from __future__ import annotations

import errno
import io
import logging
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile

from ...errors import UserError
from ...files import read_bytes, stand_in
from ..telling import Passing
from .deep import eight_bits, is_deep
from .picture_files import reads_heif
from .transparency import WHITE, on_ground
from .value_range import BYTES, SIXTEEN, ValueRange

if TYPE_CHECKING:  # pictures are looked at, for a plan, where nothing computes with them
    import torch
    from torch import Tensor

# A picture of more pixels is refused, as Pillow warns from here on: it is a decompression bomb, or at least
# no few-shot image. With the bytes and the tiles below this bounds what a picture can cost to a gigabyte and
# a
# half.
MAX_PIXELS = 89_478_485
MAX_BYTES = 2**28
MAX_TILE = 4096 * 4096
# A progressive JPEG is drawn once for every scan, of which a megabyte can hold many thousands. Only so many
# of the largest picture are drawn, or more of a smaller one: what follows a picture (a phone's film) may look
# like
# scans, too.
MAX_SCANS = 100
# What Pillow may take a file for. It knows forty more, one of which (EPS) hands the file to another program
# to run.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# Read where this installation of Pillow can, and pillow-heif is there for the last.
MORE_FORMATS = ("DIB", "PCX", "TGA", "JPEG2000", "AVIF", "QOI", "HEIF")

_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@cache
def formats() -> tuple[str, ...]:
    """The formats that pictures are read in: those of photographs, by name, and no other of Pillow's."""
    if reads_heif():
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return (*FORMATS, *(name for name in MORE_FORMATS if name in Image.OPEN))


@dataclass(frozen=True)
class Conversion:
    """How what a set of pictures stores becomes RGB of eight bits; pictures that store just that stay as they
    are.

    Attributes:
        background: what transparent pictures are put on.
        values: of pictures of more than eight bits, asked for when there is one; None for pictures that
            belong to no set, each of which is taken to use 8 bits or 16.
    """

    background: tuple[int, int, int] = WHITE
    values: Callable[[], ValueRange] | None = None

    def rgb(self, image: Image.Image, content: bytes) -> Image.Image:
        """An opened picture as RGB, turned as its EXIF data say."""
        shallow = self.shallow(image, content)
        turn = _turn(image)
        return on_ground(shallow if turn is None else shallow.transpose(turn), self.background)

    def shallow(self, image: Image.Image, content: bytes) -> Image.Image:
        """An opened picture, loaded, with eight bits a channel and what transparency it has."""
        grey = image.mode == "F" or image.mode.startswith("I")
        values = SIXTEEN  # as the file says, where it says so
        if is_deep(image):
            if self.values is not None:
                values = self.values()
            elif image.mode == "F":
                raise ValueError("floating-point pixels, whose range is not known")
            elif grey and image.getextrema()[1] <= BYTES.high:
                values = BYTES
            # Of colours that use 16 bits Pillow keeps the right eight.
            if grey or values != SIXTEEN or "transparency" in image.info:
                return eight_bits(image, content, values)
        elif grey:
            return eight_bits(image, content, values)
        image.load()
        return image


@dataclass(frozen=True)
class Pixels:
    """The part of a model's preprocessing that comes before normalisation, bit for bit as open_clip does it.

    Attributes:
        size: (height, width) of the model's input.
        resize: ``shortest`` (CLIP: short side to size, then centre crop), ``longest`` (pad) or ``squash``.
        interpolation: ``bicubic`` or ``bilinear``.
        fill: grey level of the padding.
        conversion: to RGB, a matter of the pictures and not of the model.
    """

    size: tuple[int, int]
    resize: Literal["shortest", "longest", "squash"] = "shortest"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    fill: int = 0
    conversion: Conversion = field(default=Conversion(), repr=False)

    def read(self, path: Path) -> Tensor:
        """``3 × H × W`` uint8 of an image file (EXIF rotation applied, any mode to RGB).

        Raises:
            UserError: naming the file and what is wrong with it; :class:`Passing` where it is not the file.
        """
        try:
            content = read_bytes(path, MAX_BYTES)
        except OSError as error:
            kind = UserError if error.errno == errno.EFBIG else Passing
            raise _unreadable(str(path), error.strerror or str(error), kind) from None
        return self.decode(content, str(path))

    def decode(self, content: bytes, name: str) -> Tensor:
        """As :meth:`read`, of a file's content; ``name`` stands for it in messages."""
        try:
            with open_picture(content) as image:
                return self.fit(self.conversion.rgb(image, content))
        except UnidentifiedImageError:
            other = stand_in(content[:512]) or f"empty, damaged or none of {', '.join(formats())}"
            raise _unreadable(name, f"it is {other}") from None
        except MemoryError:
            raise _unreadable(name, "there is not enough memory for it", Passing) from None
        except Exception as error:  # decoders raise whatever a hostile file leads them to
            # What Pillow says of a file has no number; what the system says of itself has one.
            kind = Passing if getattr(error, "errno", None) is not None else UserError
            raise _unreadable(name, " ".join(str(error).split()) or type(error).__name__, kind) from None

    def drawn(self, image: np.ndarray) -> Tensor:
        """A picture that was drawn, ``h × w × 3`` uint8; of another size it is resized like any file."""
        import torch

        if image.shape[:2] == self.size:
            return torch.from_numpy(image.copy()).permute(2, 0, 1)
        return self.fit(Image.fromarray(image))

    def fit(self, image: Image.Image) -> Tensor:
        """Resize and crop an RGB image to ``3 × H × W`` uint8."""
        import torch

        height, width = self.size
        method = Image.Resampling.BILINEAR if self.interpolation == "bilinear" else Image.Resampling.BICUBIC
        if self.resize == "shortest" and height != width:
            method = Image.Resampling.BICUBIC  # the only one that open_clip uses here
        scaled = self._scaled(image.width, image.height)
        if math.prod(scaled) > MAX_PIXELS:
            raise ValueError(f"{image.width} × {image.height} pixels are too long and thin to be scaled")
        if scaled != image.size:
            image = image.resize(scaled, method)
        if image.size != (width, height):
            image = _centre(image, width, height, self.fill)
        return (
            torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
            .view(height, width, 3)
            .permute(2, 0, 1)
        )

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


def _unreadable(name: str, why: str, kind: type[UserError] = UserError) -> UserError:
    return kind(f"{name}: cannot be read as an image: {why}")


@contextmanager
def open_picture(content: bytes) -> Iterator[Image.Image]:
    """A picture, not yet decoded, that will not cost too much to decode.

    Raises:
        ValueError: for one that would.
        Exception: whatever Pillow makes of a file that is none.
    """
    with quiet(content), Image.open(io.BytesIO(content), formats=formats()) as image:
        _check_cost(image, content)
        yield image


@contextmanager
def quiet(content: bytes) -> Iterator[None]:
    """:func:`hushed`, and nothing that libtiff writes on the terminal."""
    silence = _no_stderr() if content[:2] in (b"II", b"MM") else nullcontext()
    with hushed(), silence:
        yield


@contextmanager
def hushed() -> Iterator[None]:
    """Pillow logs nothing and does not warn of broken metadata; whatever matters is raised.

    Both are the whole process's: of the threads that are in here the first sets them, the last sets them
    back. A change of level makes every logger forget what it knows, so that whoever reads many pictures
    enters this once around them all.
    """
    with _hushing:
        if not _hush.threads:
            _hush.begin()
        _hush.threads += 1
    try:
        yield
    finally:
        with _hushing:
            _hush.threads -= 1
            if not _hush.threads:
                _hush.end()


class _Hush:
    """What is silenced, and by how many threads."""

    def __init__(self) -> None:
        self.threads = 0

    def begin(self) -> None:
        logger = logging.getLogger("PIL")
        self._level = logger.level
        if self._level < logging.CRITICAL:
            logger.setLevel(logging.CRITICAL)
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)

    def end(self) -> None:
        self._warnings.__exit__(None, None, None)
        if self._level < logging.CRITICAL:
            logging.getLogger("PIL").setLevel(self._level)


_hush, _hushing = _Hush(), threading.Lock()
_redirecting = threading.RLock()


@contextmanager
def _no_stderr() -> Iterator[None]:
    with _redirecting:  # one thread at a time: another would keep the redirected one as the real one
        try:
            kept = os.dup(2)
        except OSError:  # there is none
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _check_cost(image: Image.Image, content: bytes) -> None:
    """Refuse what would take too much memory or time to decode."""
    pixels = image.width * image.height
    if pixels == 0:
        raise ValueError("it has no pixels")
    if pixels > MAX_PIXELS:
        raise ValueError(f"{image.width} × {image.height} pixels; at most {MAX_PIXELS:,} are read")
    if image.format in ("JPEG", "MPO") and content.count(b"\xff\xda") * pixels > MAX_SCANS * MAX_PIXELS:
        raise ValueError(f"{image.width} × {image.height} pixels in too many scans")
    if isinstance(image, TiffImageFile):
        tile = image.tag_v2.get(TILEWIDTH, 0) * image.tag_v2.get(TILELENGTH, 0)
        if tile > MAX_TILE:
            raise ValueError(f"tiles of {tile:,} pixels; at most {MAX_TILE:,} are read")


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What its EXIF data say; those that are broken say nothing."""
    try:
        return _TURNED.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # as in decoding
        return None


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
        crop: smallest and largest share of the area, of crops whose sides are in any ratio from 3:4 to 4:3; a
            side longer than the frame's is cut to it, so that large shares become smaller by up to 13 %.
            (1, 1) leaves the frame alone.
        flip: mirror half of the images.
        generator: CPU generator, so that the draws are the same on every device.

    Returns:
        ``N × 3 × H × W`` uint8.
    """
    import torch
    from torch.nn import functional as F

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
    moved = F.grid_sample(
        images.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return moved.round_().clamp_(0, 255).to(torch.uint8)
