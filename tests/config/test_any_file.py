"""Anything at all as a scenario, a strategy or an override: settings, or printable lines, in bounded
time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders.configs import SCENARIO, STRATEGY, TEXTS
from cl_complora.config import Scenario, Strategy, load_scenario, load_strategy
from cl_complora.config.catalog import shipped
from cl_complora.config.overrides import split_overrides
from cl_complora.errors import UserError

# Shipped files
SHIPPED = [(kind, path) for kind in TEXTS for path in shipped(kind).values()]


# Anything at all
@pytest.fixture(scope="module")
def scrap(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "fuzz.yaml"


def survives(path: Path, content: bytes) -> None:
    """Reading the content as either kind of file gives settings or printable lines, in bounded time."""
    path.write_bytes(content)
    for load in (load_scenario, load_strategy):
        began = time.process_time()
        try:
            value = load(str(path)).value
        except UserError as error:
            for message in error.messages:
                assert message.startswith(f"{path}:") and message.isprintable() and len(message) < 1200
        else:
            assert type(value).model_validate(value.model_dump(exclude_unset=True)) == value
        assert time.process_time() - began < 2


PUNCTUATION = " \n\t\r-:[]{}#&*!|>'\"%@`,?.~<\\"


FUZZ = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@FUZZ
@given(st.one_of(st.binary(max_size=200), st.text(PUNCTUATION + "ab01é", max_size=80).map(str.encode)))
def test_any_bytes(scrap, content):
    survives(scrap, content)


def words() -> st.SearchStrategy:
    """Keys and values that the schemas know, and others."""
    known = set()
    for path in [path for _, path in SHIPPED]:
        known |= set(path.read_text(encoding="utf-8").replace(":", " ").replace(",", " ").split())
    keys = [
        *Scenario.model_fields,
        *Strategy.model_fields,
        "kind",
        "source",
        "domain",
        "root",
        "lr",
        "rank",
        "<<",
        "",
    ]
    return st.one_of(st.sampled_from(sorted(known)), st.sampled_from(keys), st.text(max_size=5))


LEAVES = st.one_of(words(), st.none(), st.booleans(), st.integers(), st.floats(), st.integers(-3, 3))


TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(words(), inner, max_size=4)),
    max_leaves=15,
)


@FUZZ
@given(st.sampled_from([SCENARIO, STRATEGY]), st.data())
def test_any_structure(scrap, text, data):
    tree = yaml.safe_load(text)
    for _ in range(data.draw(st.integers(1, 3))):
        target = tree
        for _ in range(data.draw(st.integers(0, 3))):
            inner = [part for part in (target.values() if isinstance(target, dict) else target) if part]
            inner = [part for part in inner if isinstance(part, dict | list)]
            target = data.draw(st.sampled_from(inner)) if inner else target
        keys = (
            st.one_of(st.sampled_from(sorted(target)), words())
            if isinstance(target, dict) and target
            else words()
        )
        if isinstance(target, dict):
            target[data.draw(keys)] = data.draw(TREES)
        else:
            target.insert(data.draw(st.integers(0, len(target))), data.draw(TREES))
    survives(scrap, yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass"))


@FUZZ
@given(
    st.sampled_from([SCENARIO, STRATEGY, *[path.read_text(encoding="utf-8") for _, path in SHIPPED]]),
    st.data(),
)
def test_any_slip_of_the_hand(scrap, text, data):
    for _ in range(data.draw(st.integers(1, 4))):
        at, length = data.draw(st.integers(0, len(text))), data.draw(st.sampled_from([0, 0, 1, 1, 2, 5, 20]))
        piece = data.draw(st.one_of(st.just(""), st.text(PUNCTUATION + "0a", max_size=3), words()))
        text = text[:at] + piece + text[at + length :]
    survives(scrap, text.encode("utf-8", "surrogatepass"))


@FUZZ
@given(st.one_of(st.text(max_size=30), st.builds("{}.{}={}".format, words(), words(), words())))
def test_any_override(setting):
    began = time.process_time()
    try:
        for_scenario, for_strategy = split_overrides([setting])
        load_scenario("embedded", for_scenario)
        load_strategy("complora", for_strategy)
    except UserError as error:
        assert all(message.isprintable() for message in error.messages)
    assert time.process_time() - began < 2
