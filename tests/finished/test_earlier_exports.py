"""An export where something lies already: an earlier one is replaced with all that it had beside it, and
nothing else is."""

from __future__ import annotations

import shutil

import pytest

from builders.commands import cli
from cl_complora.config import load_scenario, load_strategy
from cl_complora.errors import UserError
from cl_complora.files import write_text
from cl_complora.finished import export as export_module
from cl_complora.finished import peft
from cl_complora.finished.export import export
from cl_complora.finished.states import open_run
from cl_complora.run.stream import run


def names(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


PLAIN = {"m.safetensors", "m.json", "m.md", "m.open_clip_config.json"}
PEFT = {"m-peft", "m-peft/adapter_model.safetensors", "m-peft/adapter_config.json"}


@pytest.mark.parametrize("there", ["adapter_model.safetensors", "adapter_config.json"])
@pytest.mark.parametrize("exported", [False, True], ids=["alone", "beside an export without it"])
def test_an_adapter_of_someone_else_stays(there, exported, tiny_run, tmp_path, monkeypatch, capsys):
    words = ("export", tiny_run.folder, "-o", tmp_path / "m.safetensors")
    if exported:
        assert cli(monkeypatch, capsys, *words)[0] == 0
    (tmp_path / "m-peft").mkdir()
    (tmp_path / "m-peft" / there).write_text("mine")
    before = names(tmp_path)
    code, _, err = cli(monkeypatch, capsys, *words, "--peft")
    assert code == 2 and f"{there} is there already, and from no earlier export" in err, err
    assert names(tmp_path) == before and (tmp_path / "m-peft" / there).read_text() == "mine"
    # Without --peft nothing would be written there.
    assert cli(monkeypatch, capsys, *words)[0] == 0
    assert (tmp_path / "m-peft" / there).read_text() == "mine"


def test_an_adapter_of_other_weights_goes(tiny_run, tmp_path):
    state, out = open_run(tiny_run.folder), tmp_path / "m.safetensors"
    for _ in range(2):  # one's own is replaced
        export(state, out, peft=True)
        assert names(tmp_path) == PLAIN | PEFT
    (tmp_path / "m-peft" / "README.md").write_text("mine")
    export(open_run(tiny_run.folder, "1"), out)
    assert names(tmp_path) == PLAIN | {"m-peft", "m-peft/README.md"}
    (tmp_path / "m-peft" / "README.md").unlink()
    export(state, out, peft=True)
    export(state, out)
    assert names(tmp_path) == PLAIN


def test_heads_of_other_weights_go(tiny_scenario, tmp_path):
    means = load_strategy("nearest-mean")
    folder = run(load_scenario(str(tiny_scenario)), means, out=tmp_path / "runs", analysis=False).folder
    out = tmp_path / "out"
    export(open_run(folder), out / "m.safetensors")
    assert names(out) == PLAIN | {"classifier.safetensors"}
    export(open_run(folder, "0"), out / "other.safetensors")  # whose they are not
    assert "classifier.safetensors" in names(out)
    export(open_run(folder, "0"), out / "m.safetensors")
    assert "classifier.safetensors" not in names(out)


@pytest.mark.parametrize("name", ["classifier", "Classifier"])
def test_a_model_is_not_called_as_its_heads_are(name, tiny_scenario, tiny_run, tmp_path):
    means = load_strategy("nearest-mean")
    folder = run(load_scenario(str(tiny_scenario)), means, out=tmp_path / "runs", analysis=False).folder
    out = tmp_path / "out"
    with pytest.raises(UserError, match="the heads of this run get that name, beside the model"):
        export(open_run(folder), out / f"{name}.safetensors")
    assert not out.exists()
    # One that texts answer has no such file.
    assert export(open_run(tiny_run.folder), out / f"{name}.safetensors")[0].is_file()


def test_what_is_refused_leaves_all_as_it_is(tiny_run, tmp_path):
    state, out = open_run(tiny_run.folder), tmp_path / "m.safetensors"
    export(state, out, peft=True)
    shutil.copyfile(out, tmp_path / "began.safetensors")
    state.loaded.files = (out,)
    with pytest.raises(UserError, match="the run began with"):
        export(state, out)
    assert names(tmp_path) == PLAIN | PEFT | {"began.safetensors"}


@pytest.mark.parametrize("last", ["m.json", "m.md", "adapter_config.json"])
def test_one_that_stops_half_way_can_be_made_again(last, tiny_run, tmp_path, monkeypatch):
    state, out = open_run(tiny_run.folder), tmp_path / "m.safetensors"

    def full(path, text):
        if path.name == last:
            raise OSError(28, "No space left on device")
        write_text(path, text)

    with monkeypatch.context() as patched:
        for module in (export_module, peft):
            patched.setattr(module, "write_text", full)
        with pytest.raises(OSError, match="No space left"):
            export(state, out, peft=True)
    assert names(tmp_path) <= {"m-peft"}  # a folder, and nothing in it
    export(state, out, peft=True)
    assert names(tmp_path) == PLAIN | PEFT


@pytest.mark.parametrize("last", ["m.open_clip_config.json", "m.md", "adapter_config.json"])
def test_one_that_is_interrupted_leaves_the_earlier_one_whole(last, tiny_run, tmp_path, monkeypatch):
    """Weights of one state beside the page or the heads of another would answer with what is not theirs."""
    out = tmp_path / "m.safetensors"
    export(open_run(tiny_run.folder), out, peft=True)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def stopped(path, text):
        if path.name == last:
            raise KeyboardInterrupt
        write_text(path, text)

    for module in (export_module, peft):
        monkeypatch.setattr(module, "write_text", stopped)
    with pytest.raises(KeyboardInterrupt):
        export(open_run(tiny_run.folder, "1"), out, peft=last == "adapter_config.json")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_one_that_was_killed_is_replaced(tiny_run, tmp_path, monkeypatch):
    """What it had written is known for ours by its page, which comes first."""
    state, out = open_run(tiny_run.folder), tmp_path / "m.safetensors"
    write, there = export_module.write_bytes, []
    monkeypatch.setattr(
        export_module, "write_bytes", lambda *given: (there.append(names(tmp_path)), write(*given))
    )
    export(state, out)
    assert there == [{"m.md"}]
    (tmp_path / "m.json").unlink()
    (tmp_path / ".m.json.before").write_text("of the one before that was killed")

    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_module, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        export(state, out)
    assert (tmp_path / "m.json").read_text() == "of the one before that was killed"
    monkeypatch.setattr(export_module, "write_bytes", write)
    export(state, out)
    assert names(tmp_path) == PLAIN


def test_merges_that_no_export_wrote_would_be_read_with_the_weights(tiny_run, tmp_path):
    (tmp_path / "m.bpe.txt.gz").write_text("mine")
    with pytest.raises(UserError, match=r"m.bpe.txt.gz is there already, and from no earlier export"):
        export(open_run(tiny_run.folder), tmp_path / "m.safetensors")
    assert names(tmp_path) == {"m.bpe.txt.gz"}
