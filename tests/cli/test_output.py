"""Consoles that hold few characters, are closed early, or are full: nothing that was computed is lost."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from builders.commands import cli
from builders.processes import Process, command_line, completed
from cl_complora.cli.class_names import class_names
from cl_complora.cli.consoles import log_console
from cl_complora.cli.options import say, telling
from cl_complora.cli.output import UNREAD, Output, end_when_unread, lasting_streams, say_json
from cl_complora.errors import UserError
from cl_complora.progress import PlainProgress

COMMAND = [sys.executable, "-m", "cl_complora"]


def shell(line: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """A line for bash, in which ``cl`` is the command."""
    text = f'cl() {{ "{sys.executable}" -m cl_complora "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", text],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=300,
    )


def console(encoding: str) -> tuple[Output, io.BytesIO]:
    raw = io.BytesIO()
    return Output(io.TextIOWrapper(raw, encoding=encoding, write_through=True)), raw


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", r"87.1 +/- 0.3 -> |DW| caf\xe9 \u732b \udce9"),
        ("cp1252", r"87.1 ± 0.3 -> |DW| café \u732b \udce9"),
        ("utf-8", "87.1 ± 0.3 → ‖ΔW‖ café 猫 \\udce9"),
    ],
)
def test_what_an_encoding_does_not_hold_is_shown_by_its_nearest_characters(encoding, shown):
    stream, raw = console(encoding)
    stream.write("87.1 ± 0.3 → ‖ΔW‖ café 猫 \udce9")
    assert raw.getvalue().decode(encoding) == shown


def test_names_stay_different_where_an_encoding_does_not_hold_them():
    names = ["梨", "柿", "苹果", "🐈", "🐕", "bo", "bò", "bơ", "m2", "m²", "Α", "A", "if", "ﬁ"]
    shown = []
    for name in names:
        stream, raw = console("ascii")
        stream.write(name)
        shown.append(raw.getvalue().decode())
    assert len(set(shown)) == len(names) and "?" not in "".join(shown)
    stream, raw = console("ascii")
    stream.write("a\u00a0b ━█ （λ）")
    assert raw.getvalue() == b"a b ?? (lambda)"


@pytest.mark.parametrize("encoding", ["ascii", "cp932", "utf-8"])
def test_json_keeps_every_character(encoding, monkeypatch):
    stream, raw = console(encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    say_json(["café ± 猫", "\udce9"])
    assert json.loads(raw.getvalue().decode(encoding)) == ["café ± 猫", "\udce9"]


def closed_pipe() -> io.TextIOWrapper:
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w", encoding="utf-8")


def test_work_goes_on_when_its_reader_is_gone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", closed_pipe())
    done = []
    with lasting_streams():
        print("x" * 100_000, flush=True)
        print("more", flush=True)
        done.append("all of it")
    assert done


def test_what_only_shows_ends_quietly_when_its_reader_is_gone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", closed_pipe())
    with pytest.raises(SystemExit) as ended, lasting_streams():
        end_when_unread()
        print("x" * 100_000, flush=True)
    assert ended.value.code == UNREAD


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_the_output_is_told(monkeypatch, capfd):
    monkeypatch.setattr(sys, "stdout", open("/dev/full", "w", encoding="utf-8"))
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    with pytest.raises(SystemExit) as ended, lasting_streams():
        print("lost")
    assert ended.value.code == 1
    assert "error: standard output: No space left on device" in capfd.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="needs bash")
@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("set -o pipefail; cl list strategies | true", UNREAD),
        ("cl list strategies >&- 2>&-", 0),  # as with one of the two, and nothing takes their numbers
        ("cl check nowhere >&-", 2),
        ("set -o pipefail; cl check nowhere 2>&1 | true", 2),
        ("PYTHONUTF8=0 PYTHONIOENCODING=ascii cl list datasets", 0),
        ("set -o pipefail; cl check complora lora embedded | head -1", 0),
    ],
)
def test_the_exit_code_says_what_was_done(tmp_path, line, code):
    done = shell(line, tmp_path)
    assert done.returncode == code
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert not list(tmp_path.iterdir())


def into_head(*words: str) -> None:
    """The command with its output read by ``head -1``, which then goes away."""
    head = subprocess.Popen(["head", "-1"], stdin=subprocess.PIPE)
    os.dup2(head.stdin.fileno(), 1)
    head.stdin.close()
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    command_line(*words)


@pytest.mark.skipif(os.name == "nt", reason="needs head")
def test_a_comparison_is_on_disk_whatever_becomes_of_its_output(
    tmp_path, tiny_scenario, tiny_strategy, monkeypatch, capsys
):
    words = ["compare", str(tiny_scenario), "-s", str(tiny_strategy), "--seeds", "0, 1", "--out", "c"]
    done = completed(Process(into_head, *words, cwd=tmp_path))
    assert done.returncode == 0 and done.stdout.count("\n") == 1 and not done.stderr
    page = (tmp_path / "c" / "tiny" / "comparison.md").read_text(encoding="utf-8")
    assert "quick" in page and " ± " in page
    assert (tmp_path / "c" / "tiny" / "report.html").exists()
    monkeypatch.chdir(tmp_path)
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    code, _, err = cli(monkeypatch, capsys, *words)
    assert code == 0 and b" +/- " in raw.getvalue() and not err


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat, dog", ["cat", "dog"]),
        ('"Paris, Texas", Rome', ["Paris, Texas", "Rome"]),
        ('5" disc,tape', ['5" disc', "tape"]),
    ],
)
def test_class_names_of_the_command_line(text, names):
    assert class_names(text) == names


def test_class_names_of_a_file(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("\ufeffParis, Texas\n\nMünchen\r\n", encoding="utf-8")
    assert class_names(f"@{file}") == ["Paris, Texas", "München"]
    for text in (f"@{tmp_path / 'none.txt'}", f"@{tmp_path}", '"cat', "", " , "):
        with pytest.raises(UserError):
            class_names(text)


CLEARS, TITLES = "a\x1b[2J\nb", "\x1b]0;pwn\x07"


@pytest.mark.skipif(sys.platform == "win32", reason="no file there can have such a name")
def test_names_of_files_steer_no_terminal(tiny_run, class_folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(class_folders, "pets")
    Path("pets", "train", "red", f"{CLEARS}.txt").write_text("no picture")
    shutil.copy(Path("pets", "test", "red", "0.png"), f"{TITLES}.png")
    quick = ["--set", "training.steps=1", "--set", "zero_shot.0.images=20", "--no-analysis"]
    for words in (
        ["init", "pets", "--shots", "1"],
        ["check", "scenario.yaml"],
        ["data", "check", "scenario.yaml"],
        ["run", "scenario.yaml", "-s", "lora", *quick],
    ):
        code, out, err = cli(monkeypatch, capsys, *words)
        assert code == 0 and "\x1b" not in out + err and r"a\x1b[2J\nb.txt" in out, (words, out, err)
    code, out, _ = cli(monkeypatch, capsys, "predict", tiny_run.folder, f"{TITLES}.png")
    assert code == 0 and out.startswith(r"\x1b]0;pwn\x07.png  ") and out.count("\n") == 1
    code, out, _ = cli(monkeypatch, capsys, "predict", "--json", tiny_run.folder, f"{TITLES}.png")
    assert json.loads(out)[0]["image"] == f"{TITLES}.png"
    Path(f"{TITLES}.png").write_bytes(b"no picture")
    code, _, err = cli(monkeypatch, capsys, "predict", tiny_run.folder, f"{TITLES}.png")
    assert code == 1 and r"\x1b]0;pwn\x07.png" in err and err.count("\n") == 1


def test_names_in_tables_and_lines_steer_no_terminal(capsys):
    table = Table(title=Text(TITLES))
    table.add_column(Text("a\nhead"))
    table.add_row(Text(CLEARS))
    console = log_console()
    console.print(table)
    say(console, CLEARS)
    telling(console, False)(CLEARS)
    PlainProgress(console).message(f"warning: {CLEARS}")
    out = capsys.readouterr().out
    assert not {"\x1b", "\x07"} & set(out) and "head" in out
    # In a table, escaped last, it keeps the place that it was given.
    assert r"\x1b]0;pwn" in out and out.count(r"a\x1") == 4 and out.count(r"a\x1b[2J\nb") == 3
