"""Names as files: told apart whatever they are written in, and read back whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builders.commands import cli
from cl_complora.errors import UserError
from cl_complora.files import slug
from cl_complora.store.folder import RunDir
from cl_complora.store.moved import config_now, find_file


def test_plain_names_keep_the_files_that_they_had():
    assert slug("a task 1.5+x_y") == "a-task-1.5+x_y" and slug("lr=0.001,rank=8") == "lr-0.001-rank-8"
    assert slug("") == ""


def test_names_of_other_letters_do_not_share_a_file():
    names = ["花", "鸟", "花鸟", "Ж", "cafés", "cafès", "\ud800", "é", "e\u0301x"]
    made = [slug(name) for name in names]
    assert len({*made}) == len(names) and all(one.isascii() and one[0] not in "-." for one in made)
    assert slug("é") == slug("e\u0301")  # the same letter, as another system writes it


@pytest.mark.parametrize("name", [".", "..", "..."])
def test_no_name_leads_out_of_its_folder(name, tmp_path):
    """Names also come from files of other people's, such as a leaderboard's results."""
    assert slug(name).strip(".") and slug(name)[0] != "." and slug(name) != slug(name + ".")
    root = RunDir.of(tmp_path, name, name, 0).root
    assert root.resolve() == root and len(root.relative_to(tmp_path).parts) == 3


@pytest.mark.parametrize("variant", [".", "..", "../other", ".hidden", "seed0", "Seed12", "seed0.2026-01-31"])
def test_a_variant_that_would_lie_elsewhere_or_in_another_run_is_refused(variant, tmp_path):
    with pytest.raises(
        UserError, match=r"^--variant '.*': becomes a folder beside seed3, so it must not begin"
    ):
        RunDir.of(tmp_path, "s", "lora", 3, variant)


@pytest.mark.parametrize("variant", ["", "lr=.5,rank=2", "a..b", "seedling", "my seed0", "/", "more shots"])
def test_other_variants_have_a_folder_in_that_of_their_strategy(variant, tmp_path):
    root = RunDir.of(tmp_path, "s", "lora", 3, variant).root
    assert root.resolve() == root and root.is_relative_to(tmp_path / "s" / "lora") and root.name == "seed3"
    assert len(root.relative_to(tmp_path).parts) == 3 + bool(variant)


def test_a_run_is_not_begun_in_the_folder_of_another_strategy(
    tiny_scenario, tiny_strategy, tmp_path, monkeypatch, capsys
):
    words = ("run", tiny_scenario, "-s", tiny_strategy, "--out", tmp_path, "--variant", "..")
    code, _, err = cli(monkeypatch, capsys, *words)
    assert code == 2 and "--variant '..': " in err and not list(tmp_path.iterdir())


def test_long_names_fit_into_a_file_system_and_differ():
    one, other = (slug("lr=0.001," * 60 + end) for end in ("a=1", "a=2"))
    assert one != other and len(one) < 220 and len(slug("花" * 300)) < 220


def test_a_split_with_odd_ends_of_lines_in_its_names_is_read_back(tmp_path):
    folder = RunDir(tmp_path)
    rows = [{"split": "test", "class": c, "key": f"a{c}.png"} for c in ("x\u2028y", "x\x85y", "x\x0cy", "z")]
    folder.split("t").parent.mkdir()
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    folder.split("t").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert folder.read_split("t") == rows


def test_a_file_that_no_system_could_hold_is_not_there(tmp_path):
    """Places in a run's config.yaml are somebody else's words."""
    place = Path("/" + "a" * 5000) / ("b" * 5000)
    assert find_file(tmp_path, {"scenario": str(place)}, "scenario") == place
    config = {"scenario": {"model": {"pretrained": "c" * 5000}}, "files": {"scenario": str(place)}}
    assert config_now(tmp_path, config)["scenario"] == config["scenario"]
