"""Files that a command was not made for are not written over by it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from builders.commands import cli
from cl_complora.config import load_scenario, load_strategy
from cl_complora.errors import UserError
from cl_complora.files import write_bytes
from cl_complora.report.html import check_page, write_report
from cl_complora.run.stream import run


@pytest.fixture
def bytes_of(tmp_path):
    return lambda: {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["tiny_clip.json", "weights.safetensors"])
def test_an_export_replaces_nothing_that_its_run_began_with(
    tmp_path, tiny_scenario, tiny_files, monkeypatch, capsys, bytes_of, name
):
    config, weights = (
        shutil.copyfile(own, tmp_path / kept)
        for own, kept in zip(tiny_files, ("tiny_clip.json", "weights.safetensors"), strict=True)
    )
    located = load_scenario(
        str(tiny_scenario), [f"model.config={config}", f"model.pretrained={weights}", "model.name=tiny_clip"]
    )
    quick = load_strategy("lora", ["training.steps=2", "training.batch_size=4"])
    folder = run(located, quick, out=tmp_path / "runs", analysis=False).folder
    target = (tmp_path / name).with_suffix(".safetensors")
    # As if it were an earlier export, on which another stream was trained.
    target.with_suffix(".md").write_text("A plain open_clip checkpoint: cl_complora is not needed to use it.")
    before = bytes_of()
    code, _, said = cli(monkeypatch, capsys, "export", folder, "-o", target)
    assert code == 2 and f"the run began with {tmp_path / name}; choose another name" in said
    assert bytes_of() == before


@pytest.mark.parametrize("there", ["mine.json", "mine.md", "mine.safetensors"])
def test_an_export_replaces_earlier_exports_alone(tmp_path, tiny_run, monkeypatch, capsys, bytes_of, there):
    (tmp_path / there).write_text("mine")
    before = bytes_of()
    words = ("export", tiny_run.folder, "-o", tmp_path / "mine.safetensors")
    code, _, said = cli(monkeypatch, capsys, *words)
    assert code == 2 and f"{there} is there already, and from no earlier export" in said
    assert bytes_of() == before
    (tmp_path / there).unlink()
    assert [cli(monkeypatch, capsys, *words)[0] for _ in range(2)] == [0, 0]


def test_a_report_is_called_like_a_page(tmp_path, tiny_run, tiny_scenario, monkeypatch, capsys):
    own = shutil.copyfile(tiny_scenario, tmp_path / "mine.yaml")
    code, _, said = cli(monkeypatch, capsys, "report", tiny_run.folder, "-o", own)
    assert code == 2 and f"--output {own}: must end in .html or .htm" in said
    assert own.read_bytes() == tiny_scenario.read_bytes()
    with pytest.raises(UserError, match="--markdown x.yaml: must end in .md"):
        check_page(Path("x.yaml"), (".md",), "--markdown")
    with pytest.raises(UserError, match="--html /proc/x.html: cannot be written: "):
        check_page(Path("/proc/x.html"), option="--html")
    with pytest.raises(UserError, match=f"^{re.escape(str(own))}: must end in .html or .htm"):
        write_report(tiny_run.folder, own)  # as Python's `.report(own)` does
    assert own.read_bytes() == tiny_scenario.read_bytes()


def test_tuning_replaces_what_tuning_wrote_alone(
    tmp_path, tiny_scenario, tiny_strategy, monkeypatch, capsys, bytes_of
):
    scenario = shutil.copyfile(tiny_scenario, tmp_path / "mine.yaml")
    (tmp_path / "other.csv").write_text("file,label\n")
    before = bytes_of()
    words = ("tune", scenario, "-s", tiny_strategy, "--out", tmp_path / "runs", "--budget", "0.001")
    for output, told in (("mine", "is the scenario"), ("other", "other.csv is there already")):
        code, _, said = cli(monkeypatch, capsys, *words, "-o", tmp_path / f"{output}.yaml")
        assert code == 2 and told in said and bytes_of() == before
    (tmp_path / "other.json").write_text(json.dumps({"tried": [], "chosen": {}, "request": {}}))
    code, _, said = cli(monkeypatch, capsys, *words, "-o", tmp_path / "other.yaml")
    assert "is there already" not in said


def test_who_cannot_write_a_file_hears_its_own_name(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()

    def refuse(self, *words, **more):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(tmp_path), "open", refuse)
    with pytest.raises(PermissionError) as told:
        write_bytes(tmp_path / "a" / "x.yaml", b"")
    assert told.value.filename == str(tmp_path / "a" / "x.yaml")
