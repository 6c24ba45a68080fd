"""What drawn pictures depend on beside their names."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path


@cache
def drawing_code() -> str:
    """Digest of every module that draws."""
    digest = hashlib.sha256()
    for module in sorted(Path(__file__).parent.rglob("*.py")):
        if "making" not in module.parts:
            digest.update(module.read_bytes())
    return digest.hexdigest()[:16]
