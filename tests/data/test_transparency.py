"""Transparent pictures are put on a background, opaque ones keep their bits, blank ones are named."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cl_complora.cli import app
from cl_complora.config import load_scenario
from cl_complora.config.sources import FolderSource
from cl_complora.data.images import cache
from cl_complora.data.images.pixels import Pixels
from cl_complora.data.kinds import open_source
from cl_complora.errors import UserError

SIDE = 16
PIXELS = Pixels((SIDE, SIDE))


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CL_COMPLORA_CACHE", str(tmp_path / "cache"))


def half() -> np.ndarray:
    """The upper half is opaque green, the lower transparent over rubbish."""
    values = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 4)).astype(np.uint8)
    values[: SIDE // 2] = 0, 200, 0, 255
    values[SIDE // 2 :, :, 3] = 0
    return values


def decoded(image: Image.Image, kind: str = "PNG", **options) -> torch.Tensor:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return PIXELS.decode(file.getvalue(), "x")


def test_what_lies_under_transparent_pixels_does_not_show():
    palette = Image.new("P", (SIDE, SIDE), 1)
    palette.putpalette([0, 200, 0, 9, 9, 9])
    palette.paste(0, (0, 0, SIDE, SIDE // 2))
    colour = Image.fromarray(half()[:, :, :3])
    colour.paste((1, 2, 3), (0, SIDE // 2, SIDE, SIDE))
    for image, kind, options in (
        (Image.fromarray(half()), "PNG", {}),
        (Image.fromarray(half()), "WEBP", {"lossless": True}),
        (Image.fromarray(half()), "TIFF", {}),
        (palette, "PNG", {"transparency": 1}),
        (palette, "PNG", {"transparency": bytes([255, 0])}),
        (palette, "GIF", {"transparency": 1}),
        (colour, "PNG", {"transparency": (1, 2, 3)}),
    ):
        found = decoded(image, kind, **options)
        assert found[:, : SIDE // 2].flatten(1).unique(dim=1).flatten().tolist() == [0, 200, 0], (
            kind,
            options,
        )
        assert found[:, SIDE // 2 :].unique().tolist() == [255], (kind, options)
    grey = Image.fromarray(half()).convert("LA")
    assert decoded(grey)[:, SIDE // 2 :].unique().tolist() == [255]
    deep = Image.fromarray(np.pad(np.full((8, SIDE), 0x4000, np.uint16), ((0, 8), (0, 0)), constant_values=7))
    found = decoded(deep, transparency=7)
    assert found[:, :8].unique().tolist() == [0x40] and found[:, 8:].unique().tolist() == [255]


def test_half_transparent_ink_is_mixed():
    ink = np.zeros((SIDE, SIDE, 4), np.uint8)
    ink[:, :, 3] = np.arange(SIDE) * 17
    assert decoded(Image.fromarray(ink))[0, 0].tolist() == [255 - 17 * step for step in range(SIDE)]


def test_opaque_pictures_and_wholly_transparent_ones_keep_their_bits():
    values = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 4)).astype(np.uint8)
    expected = torch.from_numpy(values[:, :, :3].copy()).permute(2, 0, 1)
    for alpha in (255, 0):
        values[:, :, 3] = alpha
        assert torch.equal(decoded(Image.fromarray(values)), expected)


def test_jpegs_stay_as_they_were():
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8))
    for mode in ("RGB", "L", "CMYK"):
        file = io.BytesIO()
        image.convert(mode).save(file, "JPEG")
        before = np.asarray(Image.open(file).convert("RGB"))
        assert torch.equal(
            PIXELS.decode(file.getvalue(), "x"), torch.from_numpy(before.copy()).permute(2, 0, 1)
        )


def ink(root: str, colour: int, opaque: bool = False) -> None:
    for number in range(4):
        values = np.full((SIDE, SIDE, 4), colour, np.uint8)
        values[:, :, 3] = 255 if opaque else np.random.default_rng(number).integers(0, 256, (SIDE, SIDE))
        values[0] = (number, 9, 9, 255) if opaque else values[0]
        file = Path(root, "ab"[number % 2], f"{number}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(file)


def checked(background: str | None = None) -> list[str]:
    more = f", background: {background}" if background else ""
    Path("s.yaml").write_text(
        f"name: s\nshots: 1\ntasks:\n- {{name: t, source: {{kind: folder, root: set{more}}}}}\n"
    )
    result = CliRunner().invoke(app, ["data", "check", "s.yaml"])
    assert result.exit_code == 0, result.output
    return [line for line in result.output.splitlines() if line.startswith("note: 't'")]


def test_it_is_told_with_the_ground_and_what_becomes_blank():
    ink("set", 0)
    (line,) = checked()
    assert "4 pictures of 4 looked at are transparent in places and put on white" in line
    on, blank = checked("black")
    assert "put on black" in on
    assert "warning: 4 pictures of 4 looked at are of one colour on black: a/" in blank
    ink("set", 0, opaque=True)
    assert checked() == []
    (line,) = checked('"#102030"')
    assert "background: is not used" in line


def test_a_ground_of_the_source_s_own_and_the_cache_knows_it():
    ink("set", 0)
    corners = []
    for ground in ("white", "#102030", [16, 32, 48], "rgb(16, 32, 48)"):
        source = open_source(
            FolderSource(kind="folder", root="set", test_fraction=1.0, background=ground), Path(".")
        )
        items = source.items("test")
        images = cache.load_cached(source, items, PIXELS)
        assert torch.equal(images, source.load(items, PIXELS))
        corners.append(images.amax((0, 2, 3)).tolist())
    assert corners[0] == [255, 255, 255] and corners[1] == corners[2] == corners[3] == [16, 32, 48]


@pytest.mark.parametrize(
    "value", ["whiteish", "[1, 2]", "[0, 0, 256]", "[0, 0, true]", '"#12345678"', "5", ""]
)
def test_a_colour_that_is_none_is_refused(value):
    Path("s.yaml").write_text(
        f"name: s\ntasks:\n- name: t\n  source:\n    kind: folder\n    root: .\n    background: {value}\n"
    )
    with pytest.raises(UserError) as told:
        load_scenario("s.yaml")
    (message,) = told.value.messages
    assert message.startswith("s.yaml:7: tasks[0].source.background: must be the name of a colour (white)")
