"""Hostile input of every kind: YAML, pictures, manifests, archives, class names. One line each, no more,
nothing else.

``CL_COMPLORA_FAULTS=long`` tries many more (``make test-faults``).
"""

from __future__ import annotations

import ast
import contextlib
import copy
import csv
import io
import json
import os
import random
import resource
import socket
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from builders.commands import cli
from builders.places import LONG, PACKAGE
from cl_complora.config import load_scenario, load_strategy
from cl_complora.config.catalog import shipped
from cl_complora.config.sources import CoopSource, FolderSource, ManifestSource, ShardsSource
from cl_complora.data.discover import describe
from cl_complora.data.kinds import open_source
from cl_complora.data.labels import LabelSpace
from cl_complora.data.pixels import FORMATS, MAX_PIXELS, MAX_SCANS, Pixels
from cl_complora.data.planning import plan
from cl_complora.data.registry import check as check_registered
from cl_complora.data.tar import Damaged, members
from cl_complora.errors import UserError
from cl_complora.files import open_file, read_text
from cl_complora.finished.predict import pictures

PIXELS = Pixels((32, 32))


def many(short: int, long: int) -> settings:
    examples = long if LONG else short
    return settings(deadline=None, max_examples=examples, suppress_health_check=[HealthCheck.too_slow])


pytestmark = pytest.mark.usefixtures("never_hangs")


def told(action, *arguments) -> tuple[str, ...]:
    """The lines of a refusal, each fit for a terminal."""
    with pytest.raises(UserError) as caught:
        action(*arguments)
    assert all(line.isprintable() and 0 < len(line) < 7000 for line in caught.value.messages)
    return caught.value.messages


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(p): (p.lstat().st_size, p.lstat().st_mtime_ns)
        for p in sorted(folder.rglob("*"))
        if not p.is_dir()
    }


# A process of its own, with less memory
# ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def costs(tmp_path_factory) -> dict[str, list[dict]]:
    """What every input of :func:`expensive` came to, by part.

    Run in a process of its own, where neither memory nor time can be taken from others.
    """
    how_many = (60_000, 1, 1_000_000) if LONG else (1500, 0, 50_000)
    words = map(str, (tmp_path_factory.mktemp("expensive"), *how_many))
    command = [sys.executable, __file__, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000 if LONG else 200)
    assert done.returncode == 0 and not done.stderr, done.stderr[-2000:]
    found: dict[str, list[dict]] = {}
    for line in done.stdout.splitlines():
        one = json.loads(line)
        found.setdefault(one.pop("part"), []).append(one)
    for part, ones in found.items():
        most, slowest = (max(ones, key=lambda one: one[key]) for key in ("bytes", "s"))
        print(f"{part}: {len(ones)} inputs; at most {most['bytes'] / 1e6:.0f} MB ({most['name']}), ", end="")
        print(f"{slowest['s']:.1f} s ({slowest['name']})")
    return found


def expensive(folder: str, mutations: str, largest: str, rows: str) -> Iterator[dict]:
    """Everything that could take much memory or time, with two gigabytes more than what it takes to start."""
    resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + 2_000_000_000,) * 2)
    for part, ones in {
        "yaml": read_bombs(Path(folder) / "bomb.yaml"),
        "rows": read_a_million(Path(folder), int(rows)),
        "pictures": decode_all(int(mutations), bool(int(largest))),
    }.items():
        yield from ({"part": part} | one for one in ones)


def memory(key: str) -> int:
    """``VmSize``, ``VmRSS`` or ``VmHWM`` in bytes."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(text.partition(f"{key}:")[2].split()[0])


def measured(name: str, action) -> dict:
    """What became of one input, and what it cost."""
    Path("/proc/self/clear_refs").write_text("5")
    before, began = memory("VmRSS"), time.process_time()
    try:
        action()
        lines = ["fine"]
    except UserError as error:
        lines = list(error.messages)
    return {"name": name, "lines": lines, "s": time.process_time() - began, "bytes": memory("VmHWM") - before}


# YAML
# ----------------------------------------------------------------------------------------------------------------


def yaml_bombs() -> Iterator[tuple[str, bytes]]:
    """Small files that would become large, and large ones."""
    names = "abcdefghij"
    pairs = list(zip(names, names[1:], strict=False))
    lists = [
        "a: &a [x,x,x,x,x,x,x,x,x]",
        *(f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]" for old, new in pairs),
    ]
    sections = [
        "a: &a {x: 1}",
        *(f"{n}: &{n} {{{','.join(f'{k}: *{o}' for k in 'klmnopqrs')}}}" for o, n in pairs),
    ]
    merges = ["a: &a {x: 1}", *(f"{new}: &{new} {{<<: [{','.join([f'*{old}'] * 9)}]}}" for old, new in pairs)]
    yield from {
        "lists": "\n".join(lists),
        "sections": "\n".join(sections),
        "merges": "\n".join(merges),
    }.items()
    yield "long-alias", "a: &a '" + "x" * 60_000 + "'\ndescription: [" + "*a," * 9000 + "]"
    yield "wide-alias", "a: &a [" + "x," * 9000 + "]\nb: [" + "*a," * 9000 + "]"
    yield "alias-of-itself", "a: &a {b: *a}\nname: x\n"
    for name, piece in {
        "brackets": "[",
        "braces": "{a: ",
        "mixed": "[{a: ",
        "dashes": "- ",
        "questions": "? ",
        "anchors": "&a ",
        "tags": "!!str ",
        "stars": "*a ",
        "documents": "---\n",
        "ends": "...\n",
        "colons": ": ",
        "keys": "a: ",
        "quotes": "'' ",
        "commas": ",",
        "pipes": "|\n",
        "tabs": "\t",
        "comments": "# x\n",
        "directives": "%YAML 1.1\n",
        "newlines": "\n",
        "returns": "\r",
        "marks": "\ufeff",
    }.items():
        for size in (99_000, 100_000 * len(piece)):
            yield f"{name}-{size}", (piece * (size // len(piece)))[:size]
    yield "indented", "\n".join(" " * depth + "a:" for depth in range(430))
    yield "many-keys", "\n".join(f"k{number}:" for number in range(12_000))
    yield "one-key", "k" * 99_000 + ": 1"
    yield "one-number", "shots: " + "9" * 99_000
    yield "one-float", "shots: 1e" + "9" * 99_000
    yield "one-text", "description: " + "x" * 99_000
    yield "one-quote", 'description: "' + "\\x41" * 24_000 + '"'
    yield "folded", "description: >\n" + "  a\n\n" * 19_000
    yield "huge", "a: 1\n" * 10_000_000


def read_bombs(path: Path) -> Iterator[dict]:
    for name, text in yaml_bombs():
        path.write_text(text, encoding="utf-8")
        for load in (load_scenario, load_strategy):
            yield measured(name, lambda load=load: load(str(path)))


def test_yaml_bombs(costs):
    assert len(costs["yaml"]) == 2 * len(list(yaml_bombs()))
    for one in costs["yaml"]:
        assert one["lines"] != ["fine"] and all("/bomb.yaml:" in line for line in one["lines"]), one
        assert one["s"] < 3 and one["bytes"] < 100_000_000, one


HOSTILE_TEXTS = [
    "", " ", "\n", "\r\n", "\t", "\0", "\x1b[31mred", "\x07", "\x7f", "\u0085", "\u2028",
    "\u202e" + "txt.exe", "\u2066", "\ufeff",
    "<script>alert(1)</script>", "{}", "{0.__class__}", "%s%n", "${HOME}", "$(touch pwned)", "`id`",
    "../../etc/passwd", "/etc/passwd",
    "/dev/zero", "/dev/stdin", "~nobodyatall/x", "~", ".", "..", "/", "**", "*", "con", "x" * 5000,
    "a/" * 3000, "é" * 300, "🙂" * 200, "NaN",
    "null", "true", "1e999", "0x10", "1_000", "!!python/object:os.system", "&a", "*a", "<<", "=", "- x",
    "file:///etc/passwd", "http://localhost/x",
    "os:system", "os.path", "builtins:eval", "Ω" * 65, "a" * 65, "-1", "²", "٣",
]  # fmt: skip
HOSTILE_VALUES = st.one_of(
    st.sampled_from(HOSTILE_TEXTS),
    st.sampled_from(
        [None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, -(10**30), 0.0, -0.0, 1e308, 5e-324, 1.5]
    ),
    st.sampled_from([float("nan"), float("inf"), float("-inf")]),
    # Copied, since what is put in may be changed in its turn.
    st.sampled_from(
        [[], {}, [[]], [{}], {"kind": "lowrank"}, {"kind": []}, {"": None}, ["a"] * 2000, [[[[[[1]]]]]]]
    ).map(copy.deepcopy),
    st.text(max_size=20),
    st.integers(),
    st.floats(),
)
HOSTILE_KEYS = st.one_of(
    st.sampled_from(HOSTILE_TEXTS), st.sampled_from(["kind", "name", "source", "__class__", "<<"])
)
SHIPPED = [(kind, path) for kind in ("scenario", "strategy") for path in shipped(kind).values()]


def change(draw, target: dict | list) -> None:
    """One place somewhere in plain data: another value, another key, one more, one less."""
    for _ in range(draw(st.integers(0, 4))):
        inner = [part for part in (target.values() if isinstance(target, dict) else target) if part]
        inner = [part for part in inner if isinstance(part, dict | list)]
        target = draw(st.sampled_from(inner)) if inner else target
    places = list(target) if isinstance(target, dict) else list(range(len(target)))
    how = draw(st.sampled_from(["value", "value", "value", "more", "less", "key"])) if places else "more"
    place = draw(st.sampled_from(places)) if places else None
    if how == "value":
        target[place] = draw(HOSTILE_VALUES)
    elif how == "less":
        del target[place]
    elif isinstance(target, list):
        target.insert(draw(st.integers(0, len(target))), draw(HOSTILE_VALUES))
    else:
        target[draw(HOSTILE_KEYS)] = target.pop(place) if how == "key" else draw(HOSTILE_VALUES)


def is_fine_or_told(load, path: Path) -> None:
    began = time.process_time()
    try:
        value = load(str(path)).value
    except UserError as error:
        for line in error.messages:
            assert line.startswith(f"{path}:") and line.isprintable() and len(line) < 1300, line
    else:
        assert type(value).model_validate(value.model_dump(exclude_unset=True)) == value
    assert time.process_time() - began < 3


@pytest.fixture(scope="module")
def scrap(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "fuzz.yaml"


@many(60, 5000)
@given(st.sampled_from(SHIPPED), st.data())
def test_shipped_files_with_hostile_values(scrap, shipped_file, data):
    content = yaml.safe_load(shipped_file[1].read_text(encoding="utf-8"))
    for _ in range(data.draw(st.integers(1, 3))):
        change(data.draw, content)
    scrap.write_bytes(
        yaml.safe_dump(content, allow_unicode=data.draw(st.booleans())).encode("utf-8", "surrogatepass")
    )
    for load in (load_scenario, load_strategy):
        is_fine_or_told(load, scrap)


PIECES = [
    b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\r\n", b"\r", b"\0", b"\x1b[2J", b"\x85", b"\xc2\x85",
    b"\xe2\x80\xa8", b"\xe2\x80\xae", b"\xed\xa0\x80",
    b"\xc0\xaf", b"\xf4\x90\x80\x80", b"---\n", b"...\n",
    b"--- !!python/object/apply:os.system ['touch pwned']\n", b"%YAML 9.9\n---\n",
    b"%TAG ! tag:x,1:\n---\n",
    b"!!python/name:os.system ", b"!!python/module:os ", b"!!binary ", b"!!set ", b"!!omap ",
    b"!!timestamp ", b"!<tag:yaml.org,2002:python/object/new:os.system> ",
    b"&a ", b"*a ", b"<<: *a\n", b"<<: {}\n", b"? ", b"- ", b"[", b"]", b"{", b"}", b"'", b'"', b"|\n",
    b">-\n", b"\\", b"\t", b"#", b": ", b"name: again\n",
    b'"\\ud800"', b'"\\U00110000"', b"1e400", b".inf", b".nan", b"9" * 5000, b"x" * 5000, b"~", b"=",
]  # fmt: skip


@many(60, 5000)
@given(st.sampled_from(SHIPPED), st.data())
def test_shipped_files_with_hostile_pieces(scrap, shipped_file, data):
    content = shipped_file[1].read_bytes()
    if data.draw(st.booleans()):
        content = content.replace(b"\n", data.draw(st.sampled_from([b"\r\n", b"\r", b"\n\n"])))
    for _ in range(data.draw(st.integers(1, 4))):
        at, length = data.draw(st.integers(0, len(content))), data.draw(st.sampled_from([0, 0, 1, 7, 50]))
        piece = data.draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=6)))
        content = content[:at] + piece + content[at + length :]
    scrap.write_bytes(content)
    for load in (load_scenario, load_strategy):
        is_fine_or_told(load, scrap)
    assert not (scrap.parent / "pwned").exists() and not Path("pwned").exists()


@pytest.fixture(scope="module")
def every_source(tmp_path_factory) -> Path:
    """A folder with data of every kind, and a scenario that uses them all."""
    root = tmp_path_factory.mktemp("sources")
    rows = []
    for label, name in enumerate(("cat", "dog")):
        for number in range(4):
            file = root / "images" / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (90 * label, 0, 0)).save(file)
            rows.append((f"{name}/{number}.png", label, name, "train" if number < 2 else "test"))
    (root / "list.csv").write_text("path,label,split\n" + "".join(f"{p},{c},{s}\n" for p, _, c, s in rows))
    parts = {part: [[p, label, c] for p, label, c, s in rows if s == part] for part in ("train", "test")}
    (root / "coop.json").write_text(json.dumps(parts))
    (root / "shots.jsonl").write_text(
        "".join(json.dumps({"path": p}) + "\n" for p, _, _, s in rows if s == "train")
    )
    for part in ("train", "test"):
        with tarfile.open(root / f"{part}-0.tar", "w") as archive:
            for path, _, name, split in rows:
                if split == part:
                    archive.add(root / "images" / path, f"{name}{path[4:-4]}.png")
                    add(archive, f"{name}{path[4:-4]}.cls", name.encode())
    (root / "all.yaml").write_text(
        "name: all\nshots: 1\ntasks:\n"
        "  - {name: a, source: {kind: folder, root: images, test_fraction: 0.5}, classes: [dog, cat]}\n"
        "  - {name: b, source: {kind: manifest, file: list.csv, root: images}, class_range: [0, 1]}\n"
        "  - {name: c, source: {kind: coop, file: coop.json, root: images}, sampler: coop}\n"
        "  - {name: d, source: {kind: shards, train: train-*.tar, test: test-*.tar, classes: [cat, dog]}}\n"
        "  - {name: e, source: {kind: manifest, file: list.csv, root: images}, split_file: shots.jsonl}\n"
        "zero_shot:\n  - {name: f, source: {kind: world, domain: general}, images: 5}\n"
        "reference: {source: {kind: folder, root: images}, images: 2}\n"
    )
    assert len(plan(load_scenario(str(root / "all.yaml")), 0).tasks) == 5
    return root


@many(40, 3000)
@given(st.data())
def test_what_a_scenario_opens(every_source, data):
    """Sources, paths, patterns and classes of any kind: told, and nothing outside is written."""
    content = yaml.safe_load((every_source / "all.yaml").read_text())
    for _ in range(data.draw(st.integers(1, 2))):
        entry = data.draw(st.sampled_from(content["tasks"])) if content.get("tasks") else content
        change(data.draw, entry.get("source", entry) if isinstance(entry, dict) else content)
    file = every_source / "fuzz.yaml"
    file.write_bytes(yaml.safe_dump(content).encode("utf-8", "surrogatepass"))
    before, began = tree(every_source), time.process_time()
    try:
        plan(load_scenario(str(file)), 0)
    except UserError as error:
        assert all(line.isprintable() and len(line) < 7000 for line in error.messages)
    assert tree(every_source) == before and time.process_time() - began < 5


# Pictures
# ------------------------------------------------------------------------------------------------------------


@cache
def seeds() -> dict[str, bytes]:
    """A small picture in every format and mode that is read."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    image, found = Image.fromarray(noise), {}
    deep = Image.fromarray(noise[..., 0].astype(np.uint16) * 200)
    turned = Image.Exif()
    turned[0x0112], turned[0x010F] = 6, "maker"

    def save(name: str, picture: Image.Image, kind: str, **options) -> None:
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        found[name] = buffer.getvalue()

    again = {"save_all": True, "append_images": [image.rotate(90)]}
    save("jpeg", image, "JPEG", exif=turned)
    save("progressive", image, "JPEG", progressive=True)
    save("mpo", image, "MPO", **again)
    for mode in ("L", "CMYK"):
        save(f"jpeg-{mode}", image.convert(mode), "JPEG")
    save("png", image, "PNG", exif=turned)
    save("png-16", deep, "PNG")
    save("apng", image, "PNG", **again)
    save("png-palette", image.convert("P"), "PNG", transparency=bytes(range(256)))
    for mode in ("1", "LA", "RGBA"):
        save(f"png-{mode}", image.convert(mode), "PNG")
    save("gif", image, "GIF")
    save("gif-animated", image, "GIF", **again)
    for compression in (None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg", "lzma"):
        save(f"tiff-{compression}", image, "TIFF", compression=compression)
    save("tiff-16", deep, "TIFF", compression="tiff_lzw")
    save("tiff-fax", image.convert("1"), "TIFF", compression="group4")
    save("tiff-cmyk", image.convert("CMYK"), "TIFF")
    save("bigtiff", image, "TIFF", big_tiff=True)
    save("webp", image, "WEBP")
    save("webp-lossless", image, "WEBP", lossless=True)
    save("webp-animated", image, "WEBP", **again)
    for mode in ("1", "P", "RGB"):
        save(f"bmp-{mode}", image.convert(mode), "BMP")
    save("ppm", image, "PPM")
    save("pgm", image.convert("L"), "PPM")
    return found


EXTREMES = [
    struct.pack(kind, value) for kind in "<H >H <I >I".split() for value in (0, 1, 0x7FFF, 0x8000, 0xFFFF)
]
EXTREMES += [
    struct.pack(kind, value) for kind in "<I >I".split() for value in (0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
]


def mutated(rng: random.Random, content: bytes) -> bytes:
    """Bytes flipped, replaced, left out, put in, repeated or cut off; headers more often than the rest."""
    found = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8, 30])):
        if not found:
            break
        at = rng.randrange(min(len(found), 64)) if rng.random() < 0.4 else rng.randrange(len(found))
        how = rng.randrange(8)
        if how == 0:
            found[at] = rng.randrange(256)
        elif how == 1:
            found[at] ^= 1 << rng.randrange(8)
        elif how in (2, 3):
            extreme = rng.choice(EXTREMES)
            found[at : at + len(extreme)] = extreme
        elif how == 4:
            del found[at : at + rng.choice([1, 2, 10, 100])]
        elif how == 5:
            found[at:at] = rng.randbytes(rng.choice([1, 2, 10]))
        elif how == 6:
            other = rng.randrange(len(found))
            found[at:at] = found[other : other + rng.choice([4, 30, 300])]
        elif rng.random() < 0.3:
            del found[at:]
    return bytes(found)


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
    packed = zlib.compressobj(9)
    whole = bytes(2**20)
    return (
        b"".join(packed.compress(whole[: min(2**20, count - at)]) for at in range(0, count, 2**20))
        + packed.flush()
    )


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


def test_pictures_cut_off_mutated_and_made_to_burst(costs):
    """It neither dies nor writes on the terminal."""
    found = costs["pictures"]
    for one in found:
        assert one["lines"] == ["fine"] or "cannot be read as an image: " in one["lines"][0], one
        assert len(one["lines"]) == 1 and one["lines"][0].isprintable()
        assert one["bytes"] < 1_500_000_000 and one["s"] < 20, one
    by_name = {one["name"]: one["lines"][0] for one in found}
    for name in dict(picture_bombs()):
        assert by_name[name] != "fine" or name in ("png-chunks", "tiff-long"), (name, by_name[name])
    assert "too many scans" in by_name["jpeg-scans"] and "too long and thin" not in by_name["png-wide"]
    assert "tiles of 900,000,000 pixels" in by_name["tiff-tile-5"]


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
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(pwned) (w) file closefile\nshowpage\n",
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


# What is no file
# -----------------------------------------------------------------------------------------------------


@pytest.fixture
def odd_files(tmp_path) -> Path:
    """Class folders with four good pictures each, and everything else that can be called x.jpg."""
    root = tmp_path / "odd"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (8, 8)).save(root / name / f"{number}.png")
    cat = root / "cat"
    os.mkfifo(cat / "pipe.jpg")
    (cat / "folder.jpg").mkdir()
    (cat / "loop.jpg").symlink_to("loop.jpg")
    (cat / "one.jpg").symlink_to("two.jpg")
    (cat / "two.jpg").symlink_to("one.jpg")
    (cat / "nowhere.jpg").symlink_to("gone.jpg")
    (cat / "endless.jpg").symlink_to("/dev/zero")
    (cat / "around").symlink_to(root)
    (cat / ".hidden.jpg").write_bytes(b"")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as one:
        here = Path.cwd()
        os.chdir(cat)  # a socket's whole path may have 107 characters
        one.bind("socket.jpg")
        os.chdir(here)
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # not in every container
            os.mknod(cat / "device.jpg", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    return root


def test_class_folders_hold_files_only(odd_files, tmp_path):
    source = open_source(FolderSource(kind="folder", root=str(odd_files)), tmp_path)
    keys = sorted(item.key for split in ("train", "test") for item in source.items(split))
    assert keys == sorted(f"{name}/{number}.png" for name in ("cat", "dog") for number in range(4))
    text, notes = describe([odd_files], tmp_path / "s.yaml")
    assert notes == ["odd: 2 classes, 4 training and 4 test images"]
    assert [path.name for path in pictures([odd_files / "cat"])] == ["0.png", "1.png", "2.png", "3.png"]


ODD = (
    "pipe.jpg",
    "folder.jpg",
    "loop.jpg",
    "one.jpg",
    "nowhere.jpg",
    "endless.jpg",
    "socket.jpg",
    "device.jpg",
)


@pytest.mark.parametrize("name", ODD)
def test_what_is_no_file_is_never_opened(odd_files, tmp_path, name, monkeypatch):
    path = odd_files / "cat" / name
    if not path.exists() and not path.is_symlink():
        pytest.skip("no device can be made here")
    opened, really = [], os.open
    monkeypatch.setattr(os, "open", lambda file, *rest: opened.append(str(file)) or really(file, *rest))
    assert "cannot be read as an image" in told(PIXELS.read, path)[0]
    assert "cannot be read" in told(read_text, path, 100)[0]
    if not path.is_dir():
        assert str(path) in told(pictures, [path])[0]
    (odd_files / "m.jsonl").write_text(json.dumps({"path": f"cat/{name}", "label": "x"}) + "\n")
    source = open_source(ManifestSource(kind="manifest", file="m.jsonl"), odd_files)
    assert f"{path}: " in told(source.items, "train")[0]
    assert str(path) not in opened


@pytest.mark.parametrize("what", ["pipe", "folder", "/dev/zero", "loop"])
@pytest.mark.parametrize(
    "source",
    [
        "{{kind: manifest, file: {0}.csv}}", "{{kind: manifest, file: {0}.jsonl}}",
        "{{kind: coop, file: {0}.json, root: .}}",
        "{{kind: shards, train: '{0}*.tar', test: '{0}*.tar'}}", "{{kind: folder, root: {0}.tar}}",
        "{{kind: dataset, name: dtd, root: {0}.tar}}",
    ],
)  # fmt: skip
def test_lists_and_archives_are_files(tmp_path, what, source):
    for suffix in (".csv", ".jsonl", ".json", ".tar"):
        path = tmp_path / f"odd{suffix}"
        if what == "pipe":
            os.mkfifo(path)
        elif what == "folder":
            path.mkdir()
        else:
            path.symlink_to(path if what == "loop" else what)
    (tmp_path / "s.yaml").write_text(f"name: s\ntasks: [{{name: a, source: {source.format('odd')}}}]\n")
    (line,) = told(lambda: plan(load_scenario(str(tmp_path / "s.yaml")), 0))
    assert line.startswith(f"{tmp_path}/s.yaml:2: tasks[0].source: ")


def test_a_list_of_shots_that_is_a_pipe(every_source):
    os.mkfifo(every_source / "pipe.jsonl")
    scenario = load_scenario(str(every_source / "all.yaml"), ["tasks.4.split_file=pipe.jsonl"])
    assert "pipe.jsonl: cannot be read: is no regular file" in told(plan, scenario, 0)[0]
    (every_source / "pipe.jsonl").unlink()


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, whom no permission stops."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_may_not_be_read_is_told():
    # Not tmp_path nor TMPDIR: only their owner may enter those, and nobody has to reach the files that he may
    # not read.
    with tempfile.TemporaryDirectory(dir="/tmp" if os.geteuid() == 0 else None) as name:
        root = Path(name)
        root.chmod(0o755)
        for label in ("cat", "dog"):
            (root / "data" / label).mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (8, 8)).save(root / "data" / label / f"{number}.png")
        (root / "s.yaml").write_text(
            "name: s\nshots: 1\ntasks: [{name: a, source: {kind: folder, root: data}}]\n"
        )
        (root / "data" / "cat").chmod(0o700 if os.geteuid() == 0 else 0)
        (root / "data" / "dog" / "0.png").chmod(0o600 if os.geteuid() == 0 else 0)
        with as_nobody():
            (line,) = told(lambda: plan(load_scenario(str(root / "s.yaml")), 0))
            (picture,) = told(PIXELS.read, root / "data" / "dog" / "0.png")
        (root / "data" / "cat").chmod(0o755)
        assert line.startswith(
            f"{root}/s.yaml:3: tasks[0].source: {root}/data/cat: cannot be read: Permission denied"
        )
        assert picture.endswith("cannot be read as an image: Permission denied")


def test_names_that_are_not_utf8_are_told(tmp_path):
    for folder, file, what in (
        (b"caf\xe9", b"0.png", "class name 'caf"),
        (b"cafe", b"\xff.png", "name is not UTF-8"),
    ):
        root = tmp_path / f"{file[0]}"
        inside = os.path.join(os.fsencode(root), folder)
        os.makedirs(inside)
        for name in (file, b"1.png", b"2.png"):
            with open(os.path.join(inside, name), "wb") as out:
                out.write(seeds()["png"])
        (tmp_path / "s.yaml").write_text(
            f"name: s\nshots: 1\ntasks: [{{name: a, source: {{kind: folder, root: '{root}'}}}}]"
        )
        (line,) = told(lambda: plan(load_scenario(str(tmp_path / "s.yaml")), 0))
        assert what in line and "\\udc" in line
    assert "not UTF-8" in told(pictures, [Path(os.fsdecode(inside)) / os.fsdecode(b"\xff.png")])[0]


# Lists of pictures
# ---------------------------------------------------------------------------------------------------


def line_of(**values: object) -> bytes:
    return json.dumps(values, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


ROWS = "path,label,split\n"
MANIFESTS = {
    "dots.csv": (f"{ROWS}a.png,x,train\n../../secret.png,x,train\n", ":3: path must lie below the root, got '../"),
    "dots-within.csv": (f"{ROWS}images/../../a.png,x,train\n", ":2: path must lie below the root"),
    "backslashes.csv": (f"{ROWS}..\\..\\secret.png,x,train\n", ":2: path must lie below the root"),
    "absolute.csv": (f"{ROWS}/etc/passwd,x,train\n", ":2: path must lie below the root, got '/etc/passwd'"),
    "no-path.csv": (f"{ROWS}.,x,train\n", ":2: path must lie below the root"),
    "columns.csv": ("file,class\na.png,x\n", ":1: the columns must be path, label and split, path and label missing"),
    "column-twice.csv": ("path,label,path\na.png,x,b.png\n", ":1: the column path stands there twice"),
    "cells.csv": (f"{ROWS}a.png,big, red dog,train\n", ":2: has more cells than columns; a text that holds a comma"),
    "twice.csv": (f"{ROWS}a.png,x,train\nb.png,x,train\na.png,x,test\n", ":4: 'a.png' is named a second time"),
    "twice-in-other-words.csv": (f"{ROWS}d/a.png,x,train\nd//./a.png,x,test\n", ":3: 'd/a.png' is named a second"),
    "zero.csv": (f"{ROWS}a\0.png,x,train\n", ":2: path must be the name of a file, got 'a\\x00.png'"),
    "long-name.csv": (f"{ROWS}{'a' * 5000}.png,x,train\n", ":2: path must be the name of a file"),
    "long-line.csv": (f"{ROWS}{'a' * 200_000}.png,x,train\n", ":2: this line has more than 100,000 characters"),
    "quote.csv": (f'{ROWS}"a.png,x,train\n' + "b.png,x,train\n" * 20_000, "is a quote never closed?"),
    "no-label.csv": (f"{ROWS}a.png,,train\n", ":2: path or label is empty"),
    "split.csv": (f"{ROWS}a.png,x,dev\n", ":2: split must be train, validation or test, got 'dev'"),
    "utf-16.csv": (f"{ROWS}a.png,x,train\n".encode("utf-16"), ":1: cannot be read: must be text in UTF-8"),
    "latin-1.csv": (f"{ROWS}café.png,x,train\n".encode("latin-1"), ":2: cannot be read: must be text in UTF-8, got"),
    "binary.csv": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), ":1: cannot be read: must be text in UTF-8"),
    "empty.csv": ("", ":1: the columns must be"),
    "head.csv": (ROWS, "names no image"),
    "newline.csv": (f'{ROWS}a.png,"x\ny",train\n', "holds a line break"),
    "escape.csv": (f"{ROWS}a.png,\x1b]0;x\x07,train\n", "holds a line break, another control character"),
    "label.csv": (f"{ROWS}a.png,{'x' * 501},train\n", "has 501 characters; at most 500 are taken"),
    "blank.csv": (f"{ROWS}a.png,   ,train\n", "a class name is empty"),
    "deep.jsonl": ("[" * 90_000, ":1: must be a JSON object with path, label and split"),
    "deeper.jsonl": ('{"a":' * 15_000, ":1: must be a JSON object"),
    "long.jsonl": ("[" * 200_000, ":1: this line has more than"),
    "null.jsonl": (line_of(path=None, label=None), ":1: path or label is empty"),
    "types.jsonl": (line_of(path=["a"], label={"b": 1}), ":1: path must be a text, and label a text or a number"),
    "label-true.jsonl": (line_of(path="a", label=True), ":1: path must be a text, and label a text or a number"),
    "split-type.jsonl": (line_of(path="a", label="x", split=["train"]), ":1: split must be train, validation or test"),
    "number.jsonl": ("9" * 5000, ":1: must be a JSON object"),
    "scalars.jsonl": ('3\n"path label"\nnull\n', ":3: must be a JSON object"),
    "half.jsonl": (b'{"path": "a\\ud800.png", "label": "x"}\n', ":1: path must be the name of a file, got 'a\\ud800"),
    "half-label.jsonl": (b'{"path": "a.png", "label": "\\udfff"}\n', "bytes that are not UTF-8"),
    "zero.jsonl": (b'{"path": "a\\u0000.png", "label": "x"}\n', ":1: path must be the name of a file"),
    "separator.jsonl": (line_of(path="a.png", label="x\u2028y"), "holds a line break"),
}  # fmt: skip


@pytest.mark.parametrize("name", MANIFESTS)
def test_hostile_manifests(tmp_path, name):
    content, fragment = MANIFESTS[name]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    before, began = tree(tmp_path), time.process_time()
    lines = told(open_source, ManifestSource(kind="manifest", file=name), tmp_path)
    assert fragment in lines[-1] and all(str(tmp_path) in line for line in lines), lines
    assert tree(tmp_path) == before and time.process_time() - began < 3


def test_every_fault_of_a_manifest_is_told_up_to_twenty(tmp_path):
    (tmp_path / "m.csv").write_text(ROWS + "a.png,x,train\n../b.png,x,train\nc.png,,train\n")
    lines = told(open_source, ManifestSource(kind="manifest", file="m.csv"), tmp_path)
    assert [line.partition("m.csv:")[2][:2] for line in lines] == ["3:", "4:"]
    (tmp_path / "m.csv").write_text(ROWS + "../b.png,x,train\n" * 100_000)
    assert len(told(open_source, ManifestSource(kind="manifest", file="m.csv"), tmp_path)) == 20


def test_what_a_manifest_may_hold(tmp_path):
    """Lines end where lines end: not at every character that Python's splitlines takes for an end."""
    names = [
        "a b.png",
        "ü/日本.png",
        "x\u0085y.png",
        "c,d.png",
        'quo"te.png',
        "{}.png",
        "<b>.png",
        "back.png",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(seeds()["png"])
    content = io.StringIO(newline="")
    csv.writer(content).writerows([("path", "label"), *((name, "{} <i>") for name in names)])
    (tmp_path / "m.csv").write_text(content.getvalue(), encoding="utf-8-sig")
    (tmp_path / "m.jsonl").write_bytes(
        b"\xef\xbb\xbf" + b"\r\n".join(line_of(path=n, label=7).strip() for n in names)
    )
    for file, label in (("m.csv", "{} <i>"), ("m.jsonl", "7")):
        source = open_source(ManifestSource(kind="manifest", file=file), tmp_path)
        assert source.class_names == [label] and [item.key for item in source.items("train")] == names
        assert source.load(source.items("train"), PIXELS).shape == (8, 3, 32, 32)


def test_links_may_not_lead_out_of_the_root(tmp_path):
    outside, root = tmp_path / "outside", tmp_path / "root"
    for folder in (outside, root / "real"):
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(seeds()["png"])
    (root / "link").symlink_to(outside)
    (root / "out.png").symlink_to(outside / "a.png")
    (root / "in.png").symlink_to(root / "real" / "a.png")
    (root / "within").symlink_to("real")
    (tmp_path / "other-name").symlink_to(root)
    for path, leads_out in (
        ("link/a.png", True),
        ("out.png", True),
        ("in.png", False),
        ("within/a.png", False),
    ):
        (root / "m.jsonl").write_bytes(line_of(path=path, label="x"))
        coop = {"train": [[path, 0, "x"]], "val": [], "test": []}
        (root / "coop.json").write_text(json.dumps(coop))
        for config in (
            ManifestSource(kind="manifest", file="m.jsonl", root=str(tmp_path / "other-name")),
            CoopSource(kind="coop", file="coop.json", root="."),
        ):
            source = open_source(config, root)
            if leads_out:
                (line,) = told(source.items, "train")
                assert f"{path}: leads out of the root " in line and f"to {outside}/a.png" in line
            else:
                assert source.load(source.items("train"), PIXELS).shape == (1, 3, 32, 32)


COOP = {
    "list": ("[]", "must hold train, val and test"),
    "entry": ('{"train": [["a", 0]]}', "train[0]: must be [path, label, class name]"),
    "types": ('{"train": [[1, "a", null]]}', "train[0]: must be"),
    "parts": ('{"train": {"a": 1}}', "must hold train"),
    "fraction": ('{"train": [["a", 1.5, "x"]]}', "train[0]: must be"),
    "infinite": ('{"train": [["a", 1e999, "x"]]}', "train[0]: must be"),
    "nan": ('{"train": [["a", NaN, "x"]]}', "train[0]: must be"),
    "true": ('{"train": [["a", true, "x"]]}', "train[0]: must be"),
    "negative": ('{"train": [["a", -1, "x"]]}', "train[0]: must be"),
    "large": ('{"train": [["a", 99999999999999999999, "x"]]}', "train[0]: must be"),
    "huge": (f'{{"train": [["a", {"9" * 5000}, "x"]]}}', "cannot be read as JSON"),
    "gap": ('{"train": [["a", 1, "x"]]}', "labels must be 0, 1, 2"),
    "dots": ('{"val": [["../a", 0, "x"]]}', "validation[0]: path must lie below the root"),
    "absolute": ('{"test": [["/etc/passwd", 0, "x"]]}', "test[0]: path must lie below the root"),
    "zero": ('{"test": [["a\\u0000", 0, "x"]]}', "test[0]: path must be the name of a file"),
    "other-name": ('{"train": [["a", 0, "x"], ["b", 0, "y"]]}', "train[1]: label 0 is called 'y' here and 'x' before"),
    "newline": ('{"train": [["a", 0, "x\\ny"]]}', "holds a line break"),
    "empty-name": ('{"train": [["a", 0, "_"]]}', "a class name is empty"),
    "deep": ("[" * 100_000, "nested too deeply"),
    "nothing": ("{}", "labels must be"),
    "cut": ('{"train": [', "cannot be read as JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", COOP)
def test_hostile_split_files(tmp_path, name):
    content, fragment = COOP[name]
    (tmp_path / "split.json").write_text(content)
    lines = told(open_source, CoopSource(kind="coop", file="split.json", root="."), tmp_path)
    assert fragment in lines[0] and str(tmp_path) in lines[0]


LISTS = {
    "deep": ("[" * 90_000, ":1: must be a JSON object with path"),
    "types": ('{"path": [1]}', ":1: path must be a text"),
    "split": ('{"path": "cat/0.png", "split": {}}', ":1: must be a JSON object"),
    "split-name": (
        '{"path": "cat/0.png", "split": "dev"}',
        ":1: split must be train, validation or test, got 'dev'",
    ),
    "slashes": ('{"path": "' + "/" * 90_000 + '"}', ":1: no training image of this task is called '//"),
    "unknown": (
        '{"path": "../../etc/passwd"}',
        ":1: no training image of this task is called '../../etc/passwd'",
    ),
    "scalar": ("3", ":1: must be a JSON object"),
    "empty": ("", "names no training image of this task"),
    "binary": ("\x00\x01", ":1: must be a JSON object"),
    "many": ('{"path": "x"}\n' * 50_000, ":1: no training image"),
}


@pytest.mark.parametrize("name", LISTS)
def test_hostile_lists_of_shots(every_source, name):
    content, fragment = LISTS[name]
    (every_source / "bad.jsonl").write_text(content)
    began = time.process_time()
    lines = told(plan, load_scenario(str(every_source / "all.yaml"), ["tasks.4.split_file=bad.jsonl"]), 0)
    assert f"bad.jsonl{fragment}" in lines[0] or fragment in lines[0]
    assert len(lines) <= 20 and time.process_time() - began < 3


def read_a_million(root: Path, count: int) -> Iterator[dict]:
    """Manifests of so many rows; the files themselves are looked at only when a split is asked for."""
    with (root / "m.csv").open("w") as table, (root / "m.jsonl").open("w") as lines:
        table.write("path,label,split\n")
        for number in range(count):
            path, label = f"class_{number % 1000:04d}/picture_{number:09d}.jpg", f"class {number % 1000}"
            split = "train" if number % 10 else "test"
            table.write(f"{path},{label},{split}\n")
            lines.write(json.dumps({"path": path, "label": label, "split": split}) + "\n")
    for file in ("m.csv", "m.jsonl"):
        config = ManifestSource(kind="manifest", file=file)
        yield measured(f"{count} {file}", lambda config=config: open_source(config, root))
    yield measured("missing", lambda: open_source(config, root).items("train"))


def test_a_million_rows(costs):
    table, lines, missing = costs["rows"]
    count = int(table["name"].split()[0])
    for one in (table, lines):
        assert one["lines"] == ["fine"] and one["s"] < 5 + 4e-5 * count, one
        assert one["bytes"] < 60_000_000 + 450 * count, one
    assert len(missing["lines"]) == 20 and missing["lines"][0].endswith("No such file or directory")


# Archives
# ------------------------------------------------------------------------------------------------------------


def add(archive: tarfile.TarFile, name: str, content: bytes, **changes: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in changes.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(content))


def header(name: str, size: bytes | int, kind: bytes = b"0") -> bytes:
    """A header with any size, and a checksum that is right."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    block[124:136] = size if isinstance(size, bytes) else tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:155] = b"%06o\0" % sum(block)
    return bytes(block)


END = bytes(1024)


@cache
def archives() -> dict[str, tuple[bytes, str]]:
    """Name → content and what is told of it."""
    good = io.BytesIO()
    with tarfile.open(fileobj=good, mode="w") as archive:
        add(archive, "a.png", seeds()["png"])
        add(archive, "a.cls", b"cat")
    whole = good.getvalue()
    second = 512 + -(-len(seeds()["png"]) // 512) * 512
    packed = zlib.compressobj(9, wbits=31)
    bomb = packed.compress(bytes(10**8)) + packed.flush()
    record = b"%d path=a.png\n"
    pax = b"21 GNU.sparse.major=1\n".replace(b"21", b"23")
    return {
        "negative size": (header("a.png", -512) + END, "cut off within"),
        "size beyond": (header("a.png", 2**62) + END, "cut off within what begins at byte 0"),
        "size of words": (header("a.png", b"no number\0\0\0") + END, "where a number should be"),
        "long name beyond": (header("././@LongLink", 2**40, b"L") + END, "cut off within"),
        "long name": (header("././@LongLink", 10**6, b"L") + bytes(10**6 + 1024), "a header of 1,000,000 bytes"),
        "pax digits": (header("x", 9000, b"x") + b"9" * 9216 + END, "a broken header"),
        "pax length": (header("x", 100, b"x") + (record % 9999).ljust(512, b"\0") + END, "a broken header"),
        "pax size": (header("x", 30, b"x") + b"30 size=-99999999999999999999\n".ljust(512) + END, "a broken header"),
        "pax sparse": (header("x", 23, b"x") + pax.ljust(512, b"\0") + header("a.png", 0) + END, "a sparse file"),
        "sparse": (header("a.png", 0, b"S") + END, "a sparse file"),
        "cut in a member": (whole[:700], "cut off within"),
        "cut in a header": (whole[:512] + whole[512:900], "cut off within"),
        "cut between members": (whole[:second], f"cut off at byte {second:,}"),
        "bit flipped": (
            whole[:second] + bytes([whole[second] ^ 4]) + whole[second + 1 :],
            f"no header of a tar archive at byte {second:,}",
        ),
        "compressed": (bomb, "no header of a tar archive at byte 0"),
        "text": (b"<html>404</html>" * 100, "no header of a tar archive"),
        "nothing": (b"", "cut off at byte 0"),
        "latin-1": (header("caf\udce9.png", 0) + END, "that is not UTF-8"),
        "zeros": (END, "hold no images"),
    }  # fmt: skip


@pytest.mark.parametrize("name", archives())
def test_hostile_archives(tmp_path, name):
    content, fragment = archives()[name]
    (tmp_path / "a.tar").write_bytes(content)
    (line,) = told(open_source, ShardsSource(kind="shards", train="a.tar", test="a.tar"), tmp_path)
    assert line.startswith(f"{tmp_path}/a.tar: ") and fragment in line


def shard(path: Path, *entries: tuple[str, bytes, dict]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content, changes in entries:
            add(archive, name, content, **changes)


def test_members_that_lead_elsewhere_stay_where_they_are(tmp_path):
    picture = seeds()["png"]
    odd = [
        ("../../../pwned", {}),
        ("/etc/pwned", {}),
        ("a/../../pwned", {}),
        ("C:\\pwned", {}),
        ("x" * 300, {}),
    ]
    links = [
        ("l", {"type": kind, "linkname": "/etc/passwd", "size": 0})
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE)
    ]
    links += [
        ("d", {"type": kind, "size": 0}) for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
    ]
    entries = [(f"{n}.png", picture, c) for n, c in odd] + [(f"{n}.cls", b"cat", c) for n, c in odd]
    shard(tmp_path / "a.tar", *entries, *((f"{n}{i}.png", b"", c) for i, (n, c) in enumerate(links)))
    before = tree(tmp_path)
    source = open_source(ShardsSource(kind="shards", train="a.tar", test="a.tar"), tmp_path)
    items = source.items("train")
    assert [item.key for item in items] == [f"a.tar/{name}.png" for name, _ in odd]
    assert source.load(items, PIXELS).shape == (5, 3, 32, 32)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("label", "fragment"),
    [
        (b"\xc2\xb2", "label '²' is none of the source's 2 classes"),
        (b"9" * 5000, "is none of the source's 2 classes"), (b"", "label '' is none"),
        (b"2", "label '2' is none of"), (b"-1", "label '-1' is none of"),
        (b"dog\nx", "label 'dog\\nx' is none"), (b"\xff\xfe", "is none of"),
    ],
)  # fmt: skip
def test_labels_in_archives(tmp_path, label, fragment):
    shard(tmp_path / "a.tar", ("a.png", seeds()["png"], {}), ("a.cls", label, {}))
    config = ShardsSource(kind="shards", train="a.tar", test="a.tar", classes=["cat", "dog"])
    assert fragment in told(open_source, config, tmp_path)[0]


@pytest.mark.parametrize(
    "content",
    [b"[" * 50_000, b'{"label": null}', b'{"label": [1]}', b"3", b"{}", b'{"label": true}', b"\xff"],
)
def test_json_beside_a_picture(tmp_path, content):
    shard(tmp_path / "a.tar", ("a.png", seeds()["png"], {}), ("a.json", content, {}))
    (line,) = told(open_source, ShardsSource(kind="shards", train="a.tar", test="a.tar"), tmp_path)
    assert line == f"{tmp_path}/a.tar: a.json must hold a JSON object with label, a text or a number"


def test_shards_of_one_name_in_two_folders_are_two(tmp_path):
    """Else training pictures would be read from the test shard of the same name."""
    for split, colour in (("train", (255, 0, 0)), ("test", (0, 0, 255))):
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32), colour).save(buffer, "PNG")
        (tmp_path / split).mkdir()
        shard(tmp_path / split / "0.tar", ("a.png", buffer.getvalue(), {}), ("a.cls", b"cat", {}))
    source = open_source(ShardsSource(kind="shards", train="train/*.tar", test="test/*.tar"), tmp_path)
    assert [source.items(split)[0].key for split in ("train", "test")] == [
        "train/0.tar/a.png",
        "test/0.tar/a.png",
    ]
    red, blue = (source.load(source.items(split), PIXELS) for split in ("train", "test"))
    assert red[0, 0].min() == 255 == blue[0, 2].min() and red[0, 2].max() == 0
    shard(tmp_path / "b.tar", ("a.png", b"", {}), ("a.jpg", b"", {}))
    both = told(open_source, ShardsSource(kind="shards", train="b.tar", test="b.tar"), tmp_path)
    assert "a.jpg comes after a.png, of the same name" in both[0]


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_are_listed_as_pythons_own_reader_lists_them(tmp_path, kind):
    rng = random.Random(0)
    names = ["a.jpg", f"d/{'x' * 80}/{'y' * 90}.png", f"{'é' * 10}.gif", "n/" * 60 + "z.jpg"]
    names += ["q" * 300 + ".jpg"] if kind != tarfile.USTAR_FORMAT else []
    with tarfile.open(tmp_path / "a.tar", "w", format=kind) as archive:
        for name in names:
            add(archive, name, rng.randbytes(rng.randrange(2000)))
            other = rng.choice([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
            add(
                archive,
                f"{name[:80]}.other",
                b"",
                type=other,
                linkname="/etc/" + "p" * (20 if len(names) < 5 else 150),
            )
    with tarfile.open(tmp_path / "a.tar") as archive:
        expected = [(member.name, member.offset_data, member.size) for member in archive if member.isfile()]
    with open_file(tmp_path / "a.tar") as file:
        assert [(member.name, member.start, member.size) for member in members(file)] == expected


def test_mutated_archives(tmp_path):
    rng, good = random.Random(0), tmp_path / "good.tar"
    with tarfile.open(good, "w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(6):
            add(archive, f"{number}{'é' * 60 * (number % 2)}.png", rng.randbytes(700))
            add(archive, f"{number}{'é' * 60 * (number % 2)}.cls", b"cat")
    whole = good.read_bytes()
    for _ in range(20_000 if LONG else 500):
        content = mutated(rng, whole)
        (tmp_path / "a.tar").write_bytes(content)
        try:
            with open_file(tmp_path / "a.tar") as file:
                for member in members(file):
                    assert 0 < member.start <= member.start + member.size <= len(content)
        except Damaged as error:
            assert str(error)


# Class names
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fragment"),
    [
        ("a\nb", "the class name 'a\\nb' holds a line break"), ("\x1b[31mred", "another control character"),
        ("tab\there", "control character"),
        ("x\u2028y", "holds a line break"), ("\x7f", "control character"), ("_", "a class name is empty"),
        ("é" * 120, None), ("x" * 250, None),
        ("<script>alert(1)<", None), ("{}", None), ("{0.__class__}", None), ("%s", None), ("日本", None),
        ("🙂", None), ("\u202eevil", None),
        ("a\u200db", None), ("ﷺ", None), ("-rf *", None), ("$(touch pwned)", None), ("NaN", None),
        ("a'\"b", None), ("&amp;", None),
    ],
)  # fmt: skip
def test_class_names(tmp_path, name, fragment):
    for label in (name, "other"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "data" / label / f"{number}.png").write_bytes(seeds()["png"])
    (tmp_path / "s.yaml").write_text(
        "name: s\nshots: 1\ntasks: [{name: a, source: {kind: folder, root: data}}]\n"
    )
    scenario = load_scenario(str(tmp_path / "s.yaml"))
    if fragment is not None:
        (line,) = told(plan, scenario, 0)
        assert line.startswith(f"{tmp_path}/s.yaml:3: tasks[0].source: ") and fragment in line
    else:
        (task,) = plan(scenario, 0).tasks
        assert set(task.class_names) == {name.replace("_", " "), "other"}
        texts = LabelSpace.from_templates(task.class_names, ["a {}."]).prompts
        spaced = name.replace("_", " ")
        assert texts[task.class_names.index(spaced)] == (f"a {spaced}.",)
        text, _ = describe([tmp_path / "data"], tmp_path / "mine.yaml")
        (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
        assert load_scenario(str(tmp_path / "mine.yaml")).value.tasks[0].name == "data"
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "folder",
    ["a\nb", "a\u0085b", "a\u2028b", 'quo"te', "back\\slash", "\x7f", "🙂 {x}: #", "- !!python/object"],
)
def test_init_quotes_the_names_of_folders(tmp_path, folder):
    for label in ("x", "y"):
        (tmp_path / folder / label).mkdir(parents=True)
        for number in range(4):
            (tmp_path / folder / label / f"{number}.png").write_bytes(seeds()["png"])
    text, _ = describe([tmp_path / folder], tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    scenario = load_scenario(str(tmp_path / "mine.yaml"))
    assert scenario.value.tasks[0].source.root == folder
    assert plan(scenario, 0).tasks[0].class_names == ("x", "y")


def test_a_prompt_may_not_be_longer_than_any_context(scrap):
    scrap.write_text(
        f"name: s\nprompts: ['{'x' * 1000} {{}}']\ntasks: [{{name: a, source: {{kind: world, domain:"
        " digits}}]"
    )
    assert (
        f"{scrap}:2: prompts[0]: must have at most 1000 characters, got 'xxx"
        in told(load_scenario, str(scrap))[0]
    )


# Nothing executes from data
# ------------------------------------------------------------------------------------------

# Modules that run what they are given, or load code.
RUNNING = {
    "pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "code",
    "runpy",
    "pty",
    "subprocess",
    "importlib",
}
RUNNING |= {"ctypes", "imp", "codeop"}
CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "breakpoint",
    "yaml.load",
    "yaml.load_all",
    "yaml.unsafe_load",
}
CALLS |= {
    "yaml.full_load",
    "torch.jit.load",
    "torch.hub.load",
    "torch.ops.load_library",
    "torch.package.PackageImporter",
}
CALLS |= {
    f"os.{name}"
    for name in ("system", "popen", "execv", "execve", "execvp", "spawnv", "spawnl", "posix_spawn")
}
SAFELY = {("torch.load", "weights_only", "True"), ("np.load", "allow_pickle", "False")}
# What of them the package uses nevertheless, and what for.
ALLOWED = {
    ("engine/external.py", "importlib"): "the one door for foreign code, which --allow-plugins opens",
    ("provenance.py", "importlib"): "versions of the installed packages",
    ("provenance.py", "ctypes"): "malloc_trim of the C library",
    ("allocator.py", "ctypes"): "mallopt of the C library",
    ("clip/model.py", "pickle"): "the name of the error that weights_only raises",
}


def dangers(path: Path) -> Iterator[str]:
    """Everything in a module that can execute what it reads."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (
                alias.name.split(".")[0] for alias in node.names if alias.name.split(".")[0] in RUNNING
            )
        elif isinstance(node, ast.ImportFrom) and not node.level:
            if node.module.split(".")[0] in RUNNING:
                yield node.module.split(".")[0]
            yield from (name for alias in node.names if (name := f"{node.module}.{alias.name}") in CALLS)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            options = {option.arg: ast.unparse(option.value) for option in node.keywords}
            if called in CALLS or called.endswith((".extract", ".extractall")):
                yield called
            if any(called == name and options.get(option) != value for name, option, value in SAFELY):
                yield called
            if (
                options.get("shell", "False") != "False"
                or options.get("trust_remote_code", "False") != "False"
            ):
                yield called


def test_no_module_executes_what_it_reads():
    found = {
        (path.relative_to(PACKAGE).as_posix(), danger)
        for path in sorted(PACKAGE.rglob("*.py"))
        for danger in dangers(path)
    }
    assert found == ALLOWED.keys()


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from pickle import loads", "import importlib",
        "from importlib import import_module", "eval(x)", "exec(x)", "__import__(x)",
        "torch.load(x)", "torch.load(x, weights_only=False)", "np.load(x)", "np.load(x, allow_pickle=True)",
        "yaml.load(x, Loader=y)", "yaml.unsafe_load(x)",
        "os.system(x)", "os.popen(x)", "import subprocess", "from subprocess import run",
        "archive.extractall(x)", "torch.jit.load(x)", "from os import system",
        "AutoTokenizer.from_pretrained(x, trust_remote_code=True)", "import ctypes",
    ],
)  # fmt: skip
def test_the_search_finds_them(tmp_path, code):
    (tmp_path / "m.py").write_text(f"def f(x, y):\n    {code}\n")
    assert list(dangers(tmp_path / "m.py"))


PLUGIN = """
name: mine
adapter: {kind: lowrank, rank: 2}
plugin: mine:Plugin
optimiser: {lr: 1e-3}
training: {steps: 1}
"""


def test_a_plugin_runs_where_it_is_allowed_and_nowhere_else(tmp_path, tiny_scenario, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(PLUGIN)
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nPlugin = 3\n")
    for words in (["check", "mine.yaml"], ["run", tiny_scenario, "-s", "mine.yaml"]):
        code, _, err = cli(monkeypatch, capsys, *words)
        assert (code == 0) == (words[0] == "check") and not (tmp_path / "ran").exists(), err
        assert words[0] == "check" or "--allow-plugins" in err
    code, _, err = cli(monkeypatch, capsys, "run", tiny_scenario, "-s", "mine.yaml", "--allow-plugins")
    assert code == 2 and (tmp_path / "ran").exists() and "must be a class derived from avalanche's" in err
    assert not (tmp_path / "runs").exists()


def test_pickles_among_the_data_sets_are_compared_before_they_are_opened(tmp_path, monkeypatch):
    """CIFAR comes as pickles; torchvision knows the checksum of every file of it."""

    class Code:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    import pickle

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]:
        (folder / name).write_bytes(pickle.dumps({"data": Code()}))
    (line,) = check_registered("cifar10", tmp_path)
    assert line.startswith("cifar10: ") and not (tmp_path / "ran").exists()


def test_tensorboards_text_shows_names_and_runs_none(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugin_util import markdown_to_safe_html
    from tensorboard.util.tensor_util import make_ndarray

    from cl_complora.report.tensorboard.observer import BoardWriter
    from cl_complora.store.folder import RunDir

    evil = "</code></pre><script>alert(1)</script><img src=x onerror=alert(1)>[a](javascript:alert(1))"
    scenario = load_scenario("embedded").value.model_dump(mode="json")
    scenario["tasks"][0]["classes"] = [
        evil,
        f"a\n\n{evil}",
        f"b\u2028{evil}",
        f"c\u0085{evil}",
        f"d\r\r{evil}",
    ]
    config = {
        "scenario": scenario,
        "strategy": load_strategy("lora").value.model_dump(mode="json"),
        "description": evil,
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True))
    BoardWriter(
        RunDir(tmp_path), ["<script>", "$(x)"], ["</script>"], False, lambda name, places: None
    ).writer.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    texts = [make_ndarray(event.tensor_proto).item() for event in events.Tensors("config/text_summary")]
    shown = markdown_to_safe_html(texts[0])
    assert len(texts) == 1 and b"alert(1)" in texts[0] and "alert(1)" in shown
    assert shown.count("<pre>") == shown.count("<code>") == 1 and shown.count("<") == 4, (
        "one block of text, no other tag"
    )


if __name__ == "__main__":
    for result in expensive(*sys.argv[1:]):
        print(json.dumps(result))
