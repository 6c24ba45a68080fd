"""``cl-complora list``: each list, all of them, a terminal of 80 columns, and a pipe."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from builders.commands import cli
from cl_complora.cli import choices
from cl_complora.config.about import KINDS
from cl_complora.config.catalog import shipped
from cl_complora.config.overview import Entry, entries
from cl_complora.data import kinds


def test_without_a_name_all_lists_are_shown(monkeypatch, capsys):
    code, out, errors = cli(monkeypatch, capsys, "list")
    assert (code, errors) == (0, "")
    headings = [line for line in out.splitlines() if line.isupper() and line.isalpha()]
    assert headings == ["SCENARIOS", "STRATEGIES", "MODELS", "DATASETS"]
    assert all(name in out for name in ("embedded-classes", "complora-plain", "ViT-B-16", "manifest"))


def test_in_a_pipe_every_strategy_is_a_line(monkeypatch, capsys):
    code, out, _ = cli(monkeypatch, capsys, "list", "strategies")
    lines = out.splitlines()
    assert code == 0 and "\t" not in out and "\x1b" not in out
    assert sorted(line.split()[0] for line in lines) == sorted(shipped("strategy"))
    (dora,) = [line for line in lines if line.startswith("dora ")]
    assert dora.split()[1:3] == ["low-rank", "authors"]
    assert "rank 8 of all matrices; lengths of rows  " in dora and "Liu et al., DoRA, ICML 2024" in dora
    # Columns begin at one place each.
    assert len({line.index(" low-rank ") for line in lines if line.split()[1] == "low-rank"}) == 1


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_whole_words_kind_by_kind(width):
    out = io.StringIO()
    Console(file=out, width=width).print(choices.strategy_table(entries()))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert all(len(line) <= width for line in lines) and "…" not in out.getvalue()
    assert {line.split()[0] for line in lines if line.startswith(" ") and line[1:2].strip()} == set(
        shipped("strategy")
    )
    assert [line for line in lines if line in KINDS.values()] == list(KINDS.values())


def test_a_terminal_explains_how_strategies_were_checked(monkeypatch, capsys):
    terminal = Console(force_terminal=True, color_system=None, width=80)
    monkeypatch.setattr(choices, "log_console", lambda: terminal)
    _, out, _ = cli(monkeypatch, capsys, "list", "strategies")
    assert "authors: a test holds it" in out and "none: not checked" in out


def test_what_looks_like_markup_is_text():
    entry = Entry("own", "a [bold] method", "", None, "nothing")
    out = io.StringIO()
    Console(file=out, width=80).print(choices.strategy_table([entry]))
    assert "a [bold] method" in out.getvalue() and "Others" in out.getvalue()


@pytest.mark.parametrize(("what", "kind"), [("strategies", "strategy"), ("scenarios", "scenario")])
def test_a_file_is_shown_as_it_stands(monkeypatch, capsys, what, kind):
    for name, path in list(shipped(kind).items())[:3]:
        code, out, _ = cli(monkeypatch, capsys, "list", what, name)
        assert code == 0 and out == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("complora",), "list complora: must be one of scenarios, strategies, models, datasets, or left out"),
        (("embedded",), "list embedded: must be one of"),
        (("strategies", "comp-lora"), "no strategy named 'comp-lora'; did you mean 'complora'?"),
        (("scenarios", "nowhere.yaml"), "nowhere.yaml: there is no such file"),
        (("models", "ViT-B-16"), "list models ViT-B-16: only scenarios and strategies have files"),
    ],
)
def test_what_has_no_file_is_told(monkeypatch, capsys, words, told):
    code, out, errors = cli(monkeypatch, capsys, "list", *words)
    assert (code, out) == (2, "") and errors.startswith(f"error: {told}")
    (what, *named), hints = words, {"complora": "strategies complora", "embedded": "scenarios embedded"}
    assert named or f"did you mean 'list {hints[what]}'?" in errors


def test_a_file_that_is_no_text_is_told(monkeypatch, capsys, tmp_path):
    (tmp_path / "mine.yaml").write_bytes("# Größe".encode("latin-1"))
    code, out, errors = cli(monkeypatch, capsys, "list", "strategies", tmp_path / "mine.yaml")
    assert (code, out) == (2, "") and "mine.yaml:1: cannot be read: must be text in UTF-8" in errors


def test_every_kind_of_source_is_listed(monkeypatch, capsys):
    _, out, _ = cli(monkeypatch, capsys, "list", "datasets")
    named = {line.split()[0] for line in out.splitlines()}
    assert set(kinds._OPENERS) - {"dataset", "world"} <= named
