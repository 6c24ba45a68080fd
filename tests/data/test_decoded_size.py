"""data check: how large the test images are at the size that the model reads, not at a usual one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from builders.images import paint
from cl_complora.config import load_scenario
from cl_complora.config.model_names import image_size
from cl_complora.data.checks.verify import verify


@pytest.fixture
def pictures(tmp_path) -> Path:
    for split, number in (("train", 2), ("test", 2)):
        for place, name in enumerate(("ant", "bee")):
            for i in range(number):
                paint(
                    tmp_path / "d" / split / name / f"{i}.png",
                    (90 * place, 120, 40),
                    i + 9 * place + 50 * (split == "test"),
                )
    return tmp_path


def scenario(folder: Path, model: str) -> str:
    path = folder / "s.yaml"
    path.write_text(
        f"name: s\nmodel: {model}\nshots: 1\ntasks:\n  - {{name: d, source: {{kind: folder, root: d}}}}\n"
    )
    return str(path)


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("{name: embedded}", (48, 48)),
        ("{name: ViT-B-32}", (224, 224)),
        ("{name: ViT-L-14-336}", (336, 336)),
        ("{name: ViT-B-16, image_size: 320}", (320, 320)),
        ("{name: own, config: own.json}", (30, 60)),
        ("{name: own, config: broken.json}", None),
    ],
)
def test_the_size_is_the_models(tmp_path, model, size):
    (tmp_path / "own.json").write_text(json.dumps({"model_cfg": {"vision_cfg": {"image_size": [30, 60]}}}))
    (tmp_path / "broken.json").write_text("{")
    assert image_size(load_scenario(scenario(tmp_path, model))) == size


def test_data_check_says_the_size_and_what_it_takes(pictures):
    small = verify(scenario(pictures, "{name: embedded}")).lines[-1]
    assert re.search(r"take [1-9]\d* [kM]B decoded at 48 × 48", small)
    assert "decoded at 224 × 224" in verify(scenario(pictures, "{name: ViT-B-32}")).lines[-1]


def test_results_name_their_units(tiny_run):
    units = tiny_run.results["units"]
    assert units["forgetting"] == units["last"] == "fraction" and units["retention"] == "points"
    assert set(units) <= set(tiny_run.results)
