"""A model that brings its own tokeniser is exported with it."""

from __future__ import annotations

import gzip
import json
from importlib.util import find_spec
from pathlib import Path

import open_clip
import pytest
import torch

from builders.models import TINY
from cl_complora.clip.model import load_clip
from cl_complora.clip.tokenizers import load_tokenizer
from cl_complora.config import load_scenario, load_strategy
from cl_complora.config.scenario import Model
from cl_complora.errors import UserError
from cl_complora.finished.export import export
from cl_complora.finished.model_files import open_model
from cl_complora.finished.states import open_run
from cl_complora.run.stream import run

TEXT = "a photo of a red square"


def run_with(model: str, tiny_scenario: Path, tiny_strategy: Path, out: Path) -> Path:
    """The tiny scenario with another model."""
    lines = tiny_scenario.read_text().splitlines()
    told = [f"model: {model}" if line.startswith("model") else line for line in lines]
    (out / "s.yaml").write_text("\n".join(told))
    quick = load_strategy(str(tiny_strategy), ["training.steps=1"])
    return run(load_scenario(str(out / "s.yaml")), quick, out=out / "runs", analysis=False).folder


def as_the_page_says(page: Path, monkeypatch) -> torch.Tensor:
    """Tokens by the line of the page, in the folder where it stands."""
    (line,) = (line for line in page.read_text().splitlines() if line.startswith("tokenizer = "))
    known: dict = {"open_clip": open_clip}
    monkeypatch.chdir(page.parent)
    exec(line, known)
    return known["tokenizer"]([TEXT])


@pytest.fixture
def with_merges(tmp_path, tiny_scenario, tiny_strategy) -> Path:
    """A run of a model with three merges of its own, beside its config."""
    folder = tmp_path / "model"
    folder.mkdir()
    merges = "#version\nr e\nre d</w>\np h"
    (folder / "bpe.txt.gz").write_bytes(gzip.compress(merges.encode()))
    config = TINY | {"text_cfg": TINY["text_cfg"] | {"vocab_size": 517}}
    (folder / "own_words.json").write_text(json.dumps(config))
    own = f"{{name: own_words, config: {folder / 'own_words.json'}}}"
    return run_with(own, tiny_scenario, tiny_strategy, tmp_path)


def test_merges_of_ones_own_go_along(with_merges, tiny_run, tmp_path, monkeypatch):
    state, out = open_run(with_merges), tmp_path / "out" / "m.safetensors"
    files = export(state, out)
    assert [file.name for file in files][-1] == "m.bpe.txt.gz"
    expected = state.loaded.tokenizer([TEXT])
    assert not torch.equal(expected, load_tokenizer("m")([TEXT]))
    assert torch.equal(as_the_page_says(out.with_suffix(".md"), monkeypatch), expected)
    again = open_model(str(out))
    assert torch.equal(again.tokenizer([TEXT]), expected) and again.own_tokenizer == files[-1]
    # So do runs that begin from it, with either of its configs.
    for ending in (".json", ".open_clip_config.json"):
        begun = Model(name="begun", config=str(out.with_suffix(ending)), pretrained=str(out))
        assert torch.equal(load_clip(begun).tokenizer([TEXT]), expected)
    # A model with CLIP's words in its place does without.
    export(open_run(tiny_run.folder), out)
    assert not files[-1].exists()
    assert open_model(str(out)).tokenizer.vocab_size == 49408


@pytest.mark.parametrize("there", ["others", "none"])
def test_a_run_goes_on_with_the_words_that_it_began_with(with_merges, tiny_strategy, tmp_path, there):
    merges = tmp_path / "model" / "bpe.txt.gz"
    if there == "others":  # as many
        merges.write_bytes(gzip.compress(b"#version\nb l\nbl u\nblu e</w>"))
    else:
        merges.unlink()
    for record in (with_merges / "tasks").glob("*.json"):  # finished, then not
        with pytest.raises(UserError, match="made with model.tokenizer_sha256"):
            run(
                load_scenario(str(tmp_path / "s.yaml")),
                load_strategy(str(tiny_strategy), ["training.steps=1"]),
                out=tmp_path / "runs",
                analysis=False,
            )
        record.unlink()
    with pytest.raises(UserError, match="began with a tokenizer of its own"):
        open_run(with_merges)


def test_a_run_of_a_version_that_noted_no_words_goes_on(with_merges, tiny_strategy, tmp_path):
    config = with_merges / "config.yaml"
    lines = config.read_text().splitlines(keepends=True)
    assert sum("tokenizer_sha256" in line for line in lines) == 1
    config.write_text("".join(line for line in lines if "tokenizer_sha256" not in line))
    quick = load_strategy(str(tiny_strategy), ["training.steps=1"])
    again = run(load_scenario(str(tmp_path / "s.yaml")), quick, out=tmp_path / "runs", analysis=False)
    assert again.results["status"] == "done"
    open_run(with_merges)


def test_other_tokens_than_the_runs_own_are_refused(with_merges, tmp_path):
    state = open_run(with_merges)
    state.loaded.own_tokenizer = None
    with pytest.raises(UserError, match="open_clip reads other tokens of a text"):
        export(state, tmp_path / "out" / "m.safetensors")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")
def test_files_for_transformers_go_along(tiny_scenario, tiny_strategy, tiny_run, tmp_path, monkeypatch):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path / "model"
    words = ["<pad>", "<unk>", "a", "photo", "of", "paint", "red", "square"]
    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>").save_pretrained(
        folder
    )
    text = {
        "vocab_size": 40,
        "hf_tokenizer_name": "nobody/tiny",
        "tokenizer_kwargs": {"clean": "canonicalize"},
    }
    (folder / "read_words.json").write_text(json.dumps(TINY | {"text_cfg": TINY["text_cfg"] | text}))
    own = f"{{name: read_words, config: {folder / 'read_words.json'}}}"
    state = open_run(run_with(own, tiny_scenario, tiny_strategy, tmp_path))
    out = tmp_path / "out" / "n.safetensors"
    files = export(state, out)
    assert {"n-tokenizer/tokenizer.json", "n-tokenizer/tokenizer_config.json"} <= {
        file.relative_to(out.parent).as_posix() for file in files
    }
    expected = state.loaded.tokenizer([TEXT])
    assert expected.tolist() == [[2, 3, 4, 2, 6, 7] + [0] * 10]
    assert torch.equal(as_the_page_says(out.with_suffix(".md"), monkeypatch), expected)
    assert torch.equal(open_model(str(out)).tokenizer([TEXT]), expected)
    begun = Model(name="begun", config=str(out.with_suffix(".json")), pretrained=str(out))
    assert torch.equal(load_clip(begun).tokenizer([TEXT]), expected)
    export(open_run(tiny_run.folder), out)
    assert not (out.parent / "n-tokenizer").exists()
