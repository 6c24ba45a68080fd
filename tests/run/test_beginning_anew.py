"""A run of which nothing is measured yet stands in nobody's way: other settings or pictures begin it anew."""

from __future__ import annotations

import pytest

from builders.interruptions import Said, Stop
from builders.runs import on_own_pictures
from cl_complora.config import load_scenario, load_strategy
from cl_complora.errors import UserError
from cl_complora.progress import Quiet
from cl_complora.run.stream import run


@pytest.fixture
def go(tiny_scenario, tiny_strategy, class_folders, tmp_path):
    """The tiny run on a copy of its pictures, with settings."""
    path, pictures = on_own_pictures(tiny_scenario, class_folders, tmp_path)

    def go(*settings: str, **options):
        scenario = load_scenario(str(path), settings)
        return run(scenario, load_strategy(str(tiny_strategy)), out=tmp_path / "runs", **options)

    go.pictures = pictures
    return go


class WhileMeasured(Quiet):
    """Breaks off before the untouched model is measured."""

    def message(self, line):
        if line.startswith("measuring the untouched model"):
            raise Stop


def test_pictures_that_were_mended_need_no_word(go, tmp_path):
    whole = {picture: picture.read_bytes() for picture in go.pictures.rglob("train/*/*.png")}
    for picture, content in whole.items():
        picture.write_bytes(content[:40])
    with pytest.raises(UserError, match=".png"):
        go()
    for picture, content in whole.items():
        picture.write_bytes(content)
    said = Said()
    found = go(progress=said)
    assert found.results["status"] == "done" and found.reused == 0
    assert not any("kept as" in line for line in said.lines)
    assert len(list((tmp_path / "runs").rglob("seed0*"))) == 1


def test_other_settings_begin_a_run_anew_that_had_measured_nothing(go):
    with pytest.raises(Stop):
        go("shots=2", "scenario.name=tiny", progress=WhileMeasured())
    found = go()
    assert found.results["tasks_detail"][0]["shots"] == 3
    assert {p.stem for p in (found.folder / "splits").iterdir()} == {"warm", "cold", "colours", "_reference"}


def test_what_is_missing_of_a_finished_run_is_written_again(go):
    folder = go(analysis=False).folder
    lost = [folder / "classes.json", *sorted((folder / "splits").iterdir())[:2]]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for path in lost:
        path.unlink()
    assert go(analysis=False).results["status"] == "done"
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {path: after[path] for path in lost} == {path: before[path] for path in lost}
    assert after.keys() == before.keys()


def test_they_are_refused_where_the_untouched_model_was_measured(go):
    class Once(Quiet):
        def task(self, index, total, name, steps):
            raise Stop

    with pytest.raises(Stop):
        go("shots=2", progress=Once())
    with pytest.raises(UserError, match="scenario.shots = 2, now it is 3"):
        go()
