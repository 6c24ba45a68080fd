"""Pictures in every format, lists, archives, and a scenario with a source of every kind."""

from __future__ import annotations

import io
import json
import tarfile
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from cl_complora.config import load_scenario
from cl_complora.data.planning import plan


def make_every_source(root: Path) -> Path:
    """A folder with data of every kind, and a scenario that uses them all."""
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


# Pictures
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


# Lists of pictures
def line_of(**values: object) -> bytes:
    return json.dumps(values, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


# Archives
def add(archive: tarfile.TarFile, name: str, content: bytes, **changes: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in changes.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(content))


def shard(path: Path, *entries: tuple[str, bytes, dict]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content, changes in entries:
            add(archive, name, content, **changes)
