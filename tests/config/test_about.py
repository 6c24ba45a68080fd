"""What strategy files say of themselves: every shipped one does, and what it says of its check is true."""

from __future__ import annotations

import ast
import json
import re
from functools import cache

import pytest

from builders.places import ROOT, TESTS
from cl_complora.config import load_strategy
from cl_complora.config.about import CHECKED, KINDS, About
from cl_complora.config.catalog import shipped
from cl_complora.config.overview import entries
from cl_complora.config.trained import trained
from cl_complora.errors import UserError

SHIPPED = sorted(shipped("strategy"))


@cache
def about(name: str) -> About:
    found = load_strategy(name).value.about
    assert found is not None, f"{name} says nothing about itself"
    return found


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_strategy_says_what_it_is(name):
    found = about(name)
    assert found.checked != "none"
    # What is not ours is somebody's, and a test says that it is theirs.
    assert found.checked == "ours" or (found.source and found.test)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_test_that_is_named_is_there(name):
    if about(name).test is None:
        return
    file, *steps = about(name).test.split("::")
    body = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
    for step in steps:
        (found,) = [node for node in body if getattr(node, "name", None) == step]
        body = found.body


@pytest.mark.parametrize("name", [name for name in SHIPPED if about(name).checked == "authors"])
def test_who_was_checked_against_the_authors_code_names_it_and_has_its_figures(name):
    source = about(name).source
    (repository,) = re.findall(r"\b([\w-]+/[\w-]+) [0-9a-f]{7}\b", source)
    file, *_ = about(name).test.partition("::")
    text = (ROOT / file).read_text(encoding="utf-8")
    named = re.findall(r'golden\("(\w+)"|"(\w+)\.json"', text)
    own = {first or second for first, second in named}
    assert own, f"{file} reads no figures"
    if "test_golden" in file:
        sources = [json.loads((TESTS / "golden" / f"{one}.json").read_text()) for one in own]
        where = json.dumps(
            [found["source"] for found in sources] + [s.get("vision_authors") for s in sources]
        )
        assert repository in where, f"{repository} did not compute what {file} reads"


def test_published_figures_name_a_table_and_stand_in_one_form():
    names = set()
    for entry in entries():
        for one in entry.about.published:
            names |= set(one.figures)
    assert names == {
        "Transfer",
        "Average",
        "Last",
        "mean",
        *(f"{n} shot{'s' * (n > 1)}" for n in (1, 2, 4, 8, 16)),
    }


def test_the_overview_goes_kind_by_kind():
    listed = entries()
    assert [entry.name for entry in listed if entry.kind == "complora"][0] == "complora"
    kinds = list(dict.fromkeys(entry.kind for entry in listed))
    assert kinds == list(KINDS) and sorted(entry.name for entry in listed) == SHIPPED
    assert all(entry.summary and "Run:" not in entry.summary and entry.description for entry in listed)
    assert {entry.checked for entry in listed} <= set(CHECKED)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("lora", [], "rank 8 of all matrices"),
        (
            "ba-lora",
            ["adapter.towers=[vision]", "adapter.matrices=[q, v]", "optimiser.rates={}"],
            "rank 8 of q, v, vision tower",
        ),
        ("lora", ["adapter.layers=[0, -1]"], "rank 8 of all matrices, blocks 0, -1"),
        ("lora", ["adapter.merge={kind: image-tower}"], "rank 8 of all matrices, the image tower's kept"),
        ("lora+tokens", [], "rank 8 of all matrices; tokens"),
        ("prilora", [], "rank 4 to 12 of all matrices"),
        ("nusa", [], "cores of rank 128 of q, k, v, o"),
        ("inflora", [], "B of rank 8 of k, v"),
        ("dac", [], "12 experts of rank 1 of all matrices"),
        ("xgblora", [], "boosters of rank 1 of all matrices"),
        ("dora", [], "rank 8 of all matrices; lengths of rows"),
        ("codyra", [], "rank 16 of all matrices; gates of ranks"),
        ("finetune", [], "all weights"),
        ("finetune", ["adapter.towers=[text]"], "all weights, text tower"),
        ("tokens", [], "tokens"),
        ("2sfs", [], "norms; linear head"),
        ("complora", [], "rank 8 of all matrices; logistic regression on both image towers"),
        (
            "complora-image",
            [],
            "rank 8 of all matrices, the image tower's kept; logistic regression on both image towers",
        ),
        ("complora+linear-probe+lwf", [], "rank 8 of all matrices; logistic regression"),
        ("tip-adapter", [], "weights of a cache"),
        ("tip-adapter", ["head.alpha=1.0", "head.beta=1.0"], "a cache"),
        ("tip-adapter-f", [], "keys of a cache"),
        ("zeroshot", [], "nothing"),
    ],
)
def test_what_is_trained_follows_from_the_settings(name, settings, words):
    assert trained(load_strategy(name, settings).value) == words


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("{kind: adapters}", "about.kind: must be 'complora', 'control'"),
        ("{kind: low-rank, checked: yes}", "about.checked"),
        ("{kind: low-rank, checked: authors}", "about.checked: authors needs a source"),
        ("{kind: low-rank, scope: the start}", "about.scope: has no effect with checked: none"),
        ("{kind: low-rank, source: ''}", "about.source"),
        ('{kind: low-rank, source: "a\\tb"}', "about.source"),
        ("{kind: low-rank, test: here}", "about.test"),
        ("{source: somebody}", "about.kind"),
        ("{kind: low-rank, from: x}", "about.from: unknown key"),
        (
            "{kind: low-rank, published: [{benchmark: MTIL, figures: {Last: 101}, source: x}]}",
            "about.published[0].figures.Last",
        ),
        ("{kind: low-rank, published: [{benchmark: MTIL, figures: {}, source: x}]}", "published[0].figures"),
    ],
)
def test_what_a_file_says_wrongly_of_itself_is_told(tmp_path, section, told):
    file = tmp_path / "own.yaml"
    file.write_text(f"name: own\nabout: {section}\nadapter: {{kind: none}}\n", encoding="utf-8")
    with pytest.raises(UserError) as refused:
        load_strategy(str(file))
    assert told in str(refused.value) and f"{file}:2: " in str(refused.value)


def test_own_files_need_not_say_anything(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("name: own\nadapter: {kind: none}\n", encoding="utf-8")
    assert load_strategy(str(file)).value.about is None
