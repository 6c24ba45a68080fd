"""Hostile archives: told in a line, and no member leads elsewhere. ``CL_COMPLORA_FAULTS=long`` tries many
more (``make test-faults``)."""

from __future__ import annotations

import errno
import io
import itertools
import random
import tarfile
import zlib
from functools import cache

import pytest
from PIL import Image

from builders.hostile import PIXELS, mutated, told, tree
from builders.places import LONG
from builders.sources import add, seeds, shard
from cl_complora.config.sources import ShardsSource
from cl_complora.data.archives.tar import Damaged, members
from cl_complora.data.images import pixels
from cl_complora.data.kinds import open_source
from cl_complora.data.telling import Passing
from cl_complora.errors import UserError
from cl_complora.files import open_file

pytestmark = pytest.mark.usefixtures("never_hangs")


def header(name: str, size: bytes | int, kind: bytes = b"0") -> bytes:
    """A header with any size, and a checksum that is right."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    block[124:136] = size if isinstance(size, bytes) else tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:155] = b"%06o\0" % sum(block)
    return bytes(block)


END = bytes(1024)


@pytest.mark.parametrize("digits", [b"-1000", b"+1000", b"1_000", b"0o1000"])
def test_sizes_are_octal_digits_alone(tmp_path, digits):
    """``int`` takes more for a number; with a size below zero the same header came again and again."""
    (tmp_path / "a.tar").write_bytes(header("a.png", digits.ljust(12, b"\0")) + bytes(1024) + END)
    with open_file(tmp_path / "a.tar") as file, pytest.raises(Damaged, match="where a number should be"):
        list(itertools.islice(members(file), 5))


def test_a_large_member_is_refused_before_it_is_read(tmp_path, monkeypatch):
    """The file may be sparse: a few kilobytes on the disk, and gigabytes in the memory."""
    monkeypatch.setattr(pixels, "MAX_BYTES", 10_000)
    content = header("a.png", 20_000) + bytes(20_480) + header("a.cls", 3) + b"cat".ljust(512, b"\0") + END
    (tmp_path / "a.tar").write_bytes(content)
    source = open_source(ShardsSource(kind="shards", train="a.tar", test="a.tar"), tmp_path)
    (item,) = source.items("train")
    with pytest.raises(OSError, match="is larger than 10,000 bytes") as caught:
        source.stored(item)
    assert caught.value.errno == errno.EFBIG
    with pytest.raises(UserError) as caught:
        source.load([item], PIXELS)
    assert caught.value.messages == ("a.tar/a.png: cannot be read as an image: is larger than 10,000 bytes",)
    assert not isinstance(caught.value, Passing)


@cache
def archives() -> dict[str, tuple[bytes, str]]:
    """Name → content and what is told of it."""
    good = io.BytesIO()
    with tarfile.open(fileobj=good, mode="w") as archive:
        add(archive, "a.png", seeds()["png"])
        add(archive, "a.cls", b"cat")
    whole = good.getvalue()
    second = 512 + -(-len(seeds()["png"]) // 512) * 512
    record = b"%d path=a.png\n"
    pax = b"21 GNU.sparse.major=1\n".replace(b"21", b"23")
    return {
        "negative size": (header("a.png", -512) + END, "cut off within"),
        "size beyond": (header("a.png", 2**62) + END, "cut off within what begins at byte 0"),
        "size of words": (header("a.png", b"no number\0\0\0") + END, "where a number should be"),
        "long name beyond": (header("././@LongLink", 2**40, b"L") + END, "cut off within"),
        "long name": (
            header("././@LongLink", 10**6, b"L") + bytes(10**6 + 1024), "a header of 1,000,000 bytes",
        ),
        "pax digits": (header("x", 9000, b"x") + b"9" * 9216 + END, "a broken header"),
        "pax length": (header("x", 100, b"x") + (record % 9999).ljust(512, b"\0") + END, "a broken header"),
        "pax size": (
            header("x", 30, b"x") + b"30 size=-99999999999999999999\n".ljust(512) + END, "a broken header",
        ),
        "pax sparse": (
            header("x", 23, b"x") + pax.ljust(512, b"\0") + header("a.png", 0) + END, "a sparse file",
        ),
        "sparse": (header("a.png", 0, b"S") + END, "a sparse file"),
        "cut in a member": (whole[:700], "cut off within"),
        "cut in a header": (whole[:512] + whole[512:900], "cut off within"),
        "cut between members": (whole[:second], f"cut off at byte {second:,}"),
        "bit flipped": (
            whole[:second] + bytes([whole[second] ^ 4]) + whole[second + 1 :],
            f"no header of a tar archive at byte {second:,}",
        ),
        "compressed": (b"", "is packed with gzip"),
        "text": (b"<html>404</html>" * 100, "is a web page (HTML)"),
        "nothing": (b"", "it is empty"),
        "latin-1": (header("caf\udce9.png", 0) + END, "that is not UTF-8"),
        "zeros": (END, "hold no images"),
    }  # fmt: skip


@pytest.mark.parametrize("name", archives())
def test_hostile_archives(tmp_path, name):
    content, fragment = archives()[name]
    if name == "compressed":  # made here, since every process collects the names
        packed = zlib.compressobj(9, wbits=31)
        content = packed.compress(bytes(10**8)) + packed.flush()
    (tmp_path / "a.tar").write_bytes(content)
    (line,) = told(open_source, ShardsSource(kind="shards", train="a.tar", test="a.tar"), tmp_path)
    assert line.startswith(f"{tmp_path}/a.tar: ") and fragment in line


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
    assert "has 2 pictures, a.png and a.jpg; say which one with image: png" in both[0]


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
