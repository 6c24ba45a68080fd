"""Tables of pictures as Hugging Face writes them."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

NAMES = ["red", "light_blue"]
COLOURS = [(255, 0, 0), (80, 80, 255)]
NO_PYARROW = "pyarrow is not installed: pip install 'cl_complora[datasets]'"
NO_DATASETS = "the package datasets is not installed: pip install 'cl_complora[datasets]'"


@cache
def coloured(label: int, number: int = 0, kind: str = "PNG", size: int = 32) -> bytes:
    """A picture of a class; each number is another one."""
    image = Image.new("RGB", (size, size), COLOURS[label])
    image.putpixel((0, 0), (number, 0, 0))
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def rows(count: int, start: int = 0) -> dict[str, list]:
    """Columns of ``count`` pictures, whose classes take turns."""
    labels = [place % 2 for place in range(count)]
    pictures = [
        {"bytes": coloured(label, start + place), "path": f"{start + place}.png"}
        for place, label in enumerate(labels)
    ]
    return {"image": pictures, "label": labels}


def parquet(path: Path, columns: dict, features: dict | None = None, group: int = 4) -> None:
    """A Parquet file.

    Args:
        columns: values by name.
        features: what the metadata declare; by default an image and a label with :data:`NAMES`.
        group: rows a group.
    """
    pa = pytest.importorskip("pyarrow", reason=NO_PYARROW)
    from pyarrow.parquet import write_table

    if features is None:
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": NAMES}}
    table = pa.table(columns)
    if features:
        declared = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": declared})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(table, path, row_group_size=group)
