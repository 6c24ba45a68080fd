"""docs/models.md is what docs/write_models.py writes from open_clip's configurations."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import open_clip
import pytest

from builders.places import ROOT
from builders.processes import Process, completed
from cl_complora.clip.model import BUILT_IN

PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
# One of a kind: convolutions alone, attention, linear MLPs, timm's attention, two fc in a block.
SOME = ["RN50", "ViT-B-32", "convnext_base", "ViT-B-16-SigLIP", "EVA02-B-16", "roberta-ViT-B-32"]


def rows(text: str) -> dict[str, str]:
    return {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}


def _script(*words: str) -> None:
    sys.argv = list(words)
    sys.path.insert(0, str(Path(words[0]).parent))
    runpy.run_path(words[0], None, "__main__")


@pytest.mark.skipif(
    f"open_clip {open_clip.__version__}" not in PAGE,
    reason="another open_clip than the page was written from",
)
def test_the_page_is_not_stale(tmp_path):
    assert list(rows(PAGE)) == [name for name in open_clip.list_models() if name in BUILT_IN]
    written = tmp_path / "models.md"
    script = ROOT / "docs" / "write_models.py"
    done = completed(Process(_script, str(script), str(written), *SOME))
    assert done.returncode == 0, done.stderr
    fresh = written.read_text(encoding="utf-8")
    stale = "docs/models.md is stale: python docs/write_models.py"
    assert rows(fresh).items() <= rows(PAGE).items(), stale
    assert fresh.partition("\n| model")[0] == PAGE.partition("\n| model")[0], stale


def test_the_table_is_whole_and_says_what_adapts():
    found = rows(PAGE)
    assert {line.count(" | ") for line in found.values()} == {8}
    assert "| ResNet | none |" in found["RN50"] and "12 q" in found["ViT-B-32"]
    assert found["ViT-B-16-SigLIP"].endswith("| transformers |")
