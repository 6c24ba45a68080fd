"""More than eight bits a channel: one range for a source, from its pictures or its setting, told and kept."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cl_complora.config import load_scenario
from cl_complora.config.sources import FolderSource
from cl_complora.data.checks.picture_notes import picture_notes
from cl_complora.data.images import cache
from cl_complora.data.images.pixels import Conversion, Pixels
from cl_complora.data.images.value_range import ValueRange
from cl_complora.data.kinds import open_source
from cl_complora.data.planning import plan
from cl_complora.errors import UserError

SIDE = 16
PIXELS = Pixels((SIDE, SIDE))


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CL_COMPLORA_CACHE", str(tmp_path / "cache"))


def grey(number: int, most: int = 255) -> np.ndarray:
    """A picture of eight bits whose largest value is ``most``."""
    return np.random.default_rng(number).integers(0, most + 1, (SIDE, SIDE)).astype(np.uint16)


def png(values: np.ndarray, interlaced: bool = False) -> bytes:
    """16 bits a channel, of one to four channels, which Pillow cannot write."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + line.tobytes() for line in values.astype(">u2"))
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff(values: np.ndarray, order: str, packed: bool) -> bytes:
    """RGB of 16 bits, which Pillow cannot write."""
    height, width, _ = values.shape
    data = values.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if packed else data
    data += b"\0" * (len(data) % 2)
    bits = 8 + len(data)
    entries = ((256, width), (257, height), (258, bits), (259, 8 if packed else 1), (262, 2), (273, 8))
    entries += ((277, 3), (278, height), (279, len(data)))
    table = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in entries if tag != 258)
    three = struct.pack(f"{order}HHII", 258, 3, 3, bits)
    table = table[:24] + three + table[24:]
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, bits + 6)
    return head + data + struct.pack(f"{order}HHHH", 16, 16, 16, len(entries)) + table + bytes(4)


def in_bits(bits: int) -> Pixels:
    return replace(PIXELS, conversion=Conversion(values=lambda: ValueRange.of_bits(bits)))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_every_container_gives_the_same_eight_bits(bits):
    flat = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint16)
    deep = flat << (bits - 8)
    expected = torch.from_numpy(flat.astype(np.uint8)).permute(2, 0, 1)
    opaque = [np.full((SIDE, SIDE, 1), top, np.uint16) for top in (65535, 2**bits - 1)]
    colours = [png(deep), *(png(np.dstack([deep, alpha])) for alpha in opaque)]
    colours += [tiff(deep, order, packed) for order in "<>" for packed in (False, True)]
    if bits < 16:
        colours.append(b"P6 16 16 65535\n" + deep.astype(">u2").tobytes())
    for content in colours:
        assert torch.equal(in_bits(bits).decode(content, "x"), expected)
    one = deep[:, :, :1]
    greys = [png(one), *(png(np.dstack([one, alpha])) for alpha in opaque)]
    for mode in (np.uint16, np.int32, np.float32):
        file = io.BytesIO()
        Image.fromarray(one[:, :, 0].astype(mode)).save(file, "TIFF")
        greys.append(file.getvalue())
    greys.append(b"P5 16 16 65535\n" + one.astype(">u2").tobytes())
    for content in greys:
        assert torch.equal(in_bits(bits).decode(content, "x"), expected[:1].expand(3, -1, -1))


def write(root: str, change, kind: str = "png", most: int = 255) -> None:
    for number in range(8):
        file = Path(root, "ab"[number % 2], f"{number}.{kind}")
        file.parent.mkdir(parents=True, exist_ok=True)
        # All but one are dark: a scale of each picture's own would show.
        values = change(grey(number, 40 if number else most))
        Image.fromarray(values).save(file)
        if values.dtype == np.uint32:  # of which Pillow writes that they are signed
            signed, unsigned = (struct.pack("<HHIH", 339, 3, 1, kind) for kind in (2, 1))
            assert signed in file.read_bytes()
            file.write_bytes(file.read_bytes().replace(signed, unsigned))


def loaded(root: str, **settings) -> torch.Tensor:
    source = open_source(FolderSource(kind="folder", root=root, test_fraction=1.0, **settings), Path("."))
    return source.load(source.items("test"), PIXELS)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda v: v << 2, "png"), (lambda v: v << 4, "tiff"), (lambda v: v << 6, "png"),
        (lambda v: v << 8, "png"), (lambda v: v, "png"),
        (lambda v: v.astype(np.int32) << 16, "tiff"), (lambda v: v.astype(np.uint32) << 24, "tiff"),
        (lambda v: v.astype(np.float32) / 255, "tiff"), (lambda v: v.astype(np.float32), "tiff"),
        (lambda v: v.astype(np.int32) - 128 + (v == 255), "tiff"),
    ],
)  # fmt: skip
def test_the_range_is_that_of_the_set(change, kind):
    """10, 12, 14, 16, 8 bits, integers of 24 and 32, fractions of 1, fractions to 255, signed ones."""
    write("flat", lambda values: values.astype(np.uint8))
    write("deep", change, kind)
    assert (loaded("deep").int() - loaded("flat").int()).abs().max() <= 1
    if kind == "png":
        assert torch.equal(loaded("deep"), loaded("flat"))


def scenario(**settings: object) -> None:
    more = "".join(f", {key}: {value}" for key, value in settings.items())
    Path("s.yaml").write_text(
        f"name: s\nshots: 1\ntasks:\n- {{name: t, source: {{kind: folder, root: set{more}}}}}\n"
    )


def lines(seed: int = 0, **settings: object) -> list[str]:
    scenario(**settings)
    return picture_notes(plan(load_scenario("s.yaml"), seed))


def test_it_is_told_in_one_line_and_is_the_same_for_every_draw():
    write("set", lambda values: values << 4)
    (line,) = lines()
    assert line.startswith("'t': stored values from 0 to 4095 (12 bits)") and "4 training pictures" in line
    assert lines(seed=1) == [line]
    first, second = (plan(load_scenario("s.yaml"), seed).tasks[0] for seed in (0, 1))
    assert first.source.values() == second.source.values() == ValueRange(0, 4095)
    (line,) = lines(range="[0, 1023]")
    assert "0 to 1023 (10 bits)" in line and "as range: says" in line and "clipped" in line
    (line,) = lines(range=12)
    assert "0 to 4095 (12 bits)" in line and "clipped" not in line


def test_a_setting_is_followed_and_told_where_it_is_not_used():
    write("set", lambda values: values << 4)
    write("flat", lambda values: values.astype(np.uint8))
    assert torch.equal(loaded("set", range=12), loaded("flat"))
    assert torch.equal(loaded("set", range=16), loaded("flat") >> 4)
    assert torch.equal(loaded("set", range=[0, 4095]), loaded("flat"))
    assert torch.equal(loaded("flat", range=12), loaded("flat"))
    write("set", lambda values: values.astype(np.uint8))
    (line,) = lines(range=12)
    assert "range: is not used" in line
    assert lines() == []


def test_mixed_depths_and_a_deep_picture_that_no_sample_meets():
    write("set", lambda values: values.astype(np.uint8))
    Image.fromarray(grey(3) << 4).save("set/a/deep.png")
    told = lines()
    assert len(told) <= 1
    source = open_source(FolderSource(kind="folder", root="set", test_fraction=1.0), Path("."))
    deep = [item for item in source.items("test") if item.key == "a/deep.png"]
    assert torch.equal(source.load(deep, PIXELS)[0, 0], torch.from_numpy(grey(3).astype(np.uint8)))


def test_a_deep_picture_under_the_name_of_a_jpeg_is_found():
    write("set", lambda values: values << 4)
    for file in Path("set").rglob("*.png"):
        file.rename(file.with_suffix(".jpg"))
    (line,) = lines()
    assert "(12 bits)" in line


def test_the_cache_knows_the_range():
    write("set", lambda values: values << 4)
    images = []
    for settings in ({}, {"range": 12}, {"range": 16}, {"range": [0, 2047]}):
        source = open_source(
            FolderSource(kind="folder", root="set", test_fraction=1.0, **settings), Path(".")
        )
        items = source.items("test")
        images.append(cache.load_cached(source, items, PIXELS))
        assert torch.equal(images[-1], source.load(items, PIXELS))
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])


def test_broken_and_endless_values_do_no_harm():
    write("set", lambda values: values.astype(np.float32) / 255, "tiff")
    values = (grey(1) / 255).astype(np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    Image.fromarray(values).save("set/a/odd.tiff")
    Path("set/b/cut.tiff").write_bytes(Path("set/a/odd.tiff").read_bytes()[:40])
    source = open_source(FolderSource(kind="folder", root="set", test_fraction=1.0), Path("."))
    items = [item for item in source.items("test") if "cut" not in item.key]
    assert source.values() == ValueRange(0.0, 1.0, False)
    found = source.load([item for item in items if "odd" in item.key], PIXELS)
    assert found[0, 0, 0, :3].tolist() == [0, 255, 0]


@pytest.mark.parametrize("value", ["[5, 5]", "[9, 1]", "0", "33", "true", "twelve", "[1, 2, 3]", "[a, b]"])
def test_a_range_that_is_none_is_refused(value):
    Path("set/a").mkdir(parents=True)
    scenario(range=value)
    with pytest.raises(UserError) as told:
        load_scenario("s.yaml")
    (message,) = told.value.messages
    assert "range: must be [low, high] with low < high, or a number of bits" in message
