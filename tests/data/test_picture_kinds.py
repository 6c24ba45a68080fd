"""Every kind of picture has its colours, whatever its suffix; what is no picture is told and starts no
program."""

from __future__ import annotations

import io
import os
import subprocess

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image

from builders.hostile import PIXELS, told
from builders.sources import seeds
from cl_complora.data.images.pixels import FORMATS, Pixels

pytestmark = pytest.mark.usefixtures("never_hangs")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff", ".gif", ""])
def test_the_suffix_tells_nothing(tmp_path, suffix):
    for name, content in seeds().items():
        (tmp_path / f"x{suffix}").write_bytes(content)
        assert torch.equal(PIXELS.read(tmp_path / f"x{suffix}"), PIXELS.decode(content, name))


def as_stored(image: Image.Image, kind: str, **options) -> torch.Tensor:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Pixels((16, 16)).decode(buffer.getvalue(), "x")


def test_every_mode_has_its_colours():
    """Palettes with transparency, one bit, sixteen bits, four inks, an animation's first picture."""
    red = Image.new("RGB", (16, 16), (250, 10, 10))
    expected = torch.tensor([250, 10, 10])[:, None, None].expand(3, 16, 16)
    for mode, kind, options in (
        ("P", "PNG", {"transparency": 0}), ("P", "GIF", {"transparency": 0}), ("RGBA", "PNG", {}),
        ("RGB", "TIFF", {}), ("RGB", "BMP", {}),
        ("CMYK", "TIFF", {}), ("CMYK", "JPEG", {"quality": 100}), ("YCbCr", "JPEG", {"quality": 100}),
        ("RGB", "WEBP", {"lossless": True}),
        ("RGB", "GIF", {"save_all": True, "append_images": [Image.new("RGB", (16, 16), (0, 0, 255))]}),
        ("RGB", "PNG", {"save_all": True, "append_images": [Image.new("RGB", (16, 16), (0, 0, 255))]}),
    ):  # fmt: skip
        found = as_stored(red.quantize() if mode == "P" else red.convert(mode), kind, **options)
        assert (found.int() - expected).abs().max() <= 4, (mode, kind)
    assert as_stored(Image.new("1", (16, 16), 1), "PNG").unique().tolist() == [255]
    grey = Image.fromarray(np.full((16, 16), 0x80FF, np.uint16))
    assert as_stored(grey, "PNG").unique().tolist() == [0x80] == as_stored(grey, "TIFF").unique().tolist()


def test_broken_exif_turns_nothing_and_spoils_nothing():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    straight = as_stored(image, "JPEG", quality=95)
    turned = Image.Exif()
    turned[0x0112] = 6
    right = turned.tobytes()
    assert not torch.equal(as_stored(image, "JPEG", quality=95, exif=right), straight)
    for broken in (
        b"",
        b"Exif\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        right[:20],
        right.replace(b"\x01\x12", b"\x01\x13"),
    ):
        assert torch.equal(as_stored(image, "JPEG", quality=95, exif=broken), straight)
    for value in (0, 9, 65535):
        turned[0x0112] = value
        assert torch.equal(as_stored(image, "JPEG", quality=95, exif=turned), straight)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"<!DOCTYPE html><html>", b"#!/bin/sh\ntouch pwned\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
        b"(pwned) (w) file closefile\nshowpage\n",
        b"\xc5\xd0\xd3\xc6" + bytes(40),
        b"%PDF-1.4\n", b"8BPS\0\1" + bytes(30), b"\xd7\xcd\xc6\x9a" + bytes(60),
        b"\0\0\1\0\1\0" + bytes(30), b"icns" + bytes(30), b"PK\3\4" + bytes(40),
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), b"SIMPLE  =                    T", b"II*\0",
        b"GIF89a", b"BM", b"P6", b"RIFF\0\0\0\0WEBPVP8 ",
    ],
)  # fmt: skip
def test_what_is_no_picture_starts_no_program(content, monkeypatch, tmp_path):
    """Pillow would hand PostScript to Ghostscript, whatever the file's suffix."""

    def started(*arguments, **options):
        raise AssertionError(f"a program was started: {arguments}")

    for name in ("Popen", "run", "call", "check_call", "check_output"):
        monkeypatch.setattr(subprocess, name, started)
    monkeypatch.setattr(os, "system", started)
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    (tmp_path / "x.jpg").write_bytes(content)
    (line,) = told(PIXELS.read, tmp_path / "x.jpg")
    assert line.startswith(f"{tmp_path}/x.jpg: cannot be read as an image: ")
    assert "EPS" not in FORMATS


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 9\n", "it is a git-lfs pointer"),
        (b"<!DOCTYPE html><html>404</html>", "it is a web page (HTML)"),
        (b"", "it is empty"),
    ],
)
def test_what_stands_in_for_a_picture_is_named(tmp_path, content, what):
    (tmp_path / "x.jpg").write_bytes(content)
    assert what in told(PIXELS.read, tmp_path / "x.jpg")[0]
