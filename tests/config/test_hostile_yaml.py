"""Hostile scenarios and strategies: told in lines, in bounded time and memory, and nothing else.
``CL_COMPLORA_FAULTS=long`` tries many more (``make test-faults``)."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from builders.costs import costs_of, measured, report
from builders.hostile import many, told, tree
from builders.places import LONG
from builders.sources import make_every_source
from cl_complora.config import load_scenario, load_strategy
from cl_complora.config.catalog import shipped
from cl_complora.data.planning import plan
from cl_complora.errors import UserError

pytestmark = pytest.mark.usefixtures("never_hangs")


# YAML
def yaml_bombs() -> Iterator[tuple[str, bytes]]:
    """Small files that would become large, and large ones."""
    names = "abcdefghij"
    pairs = list(zip(names, names[1:], strict=False))
    lists = [
        "a: &a [x,x,x,x,x,x,x,x,x]",
        *(f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]" for old, new in pairs),
    ]
    sections = [
        "a: &a {x: 1}",
        *(f"{n}: &{n} {{{','.join(f'{k}: *{o}' for k in 'klmnopqrs')}}}" for o, n in pairs),
    ]
    merges = ["a: &a {x: 1}", *(f"{new}: &{new} {{<<: [{','.join([f'*{old}'] * 9)}]}}" for old, new in pairs)]
    yield from {
        "lists": "\n".join(lists),
        "sections": "\n".join(sections),
        "merges": "\n".join(merges),
    }.items()
    yield "long-alias", "a: &a '" + "x" * 60_000 + "'\ndescription: [" + "*a," * 9000 + "]"
    yield "wide-alias", "a: &a [" + "x," * 9000 + "]\nb: [" + "*a," * 9000 + "]"
    yield "alias-of-itself", "a: &a {b: *a}\nname: x\n"
    for name, piece in {
        "brackets": "[",
        "braces": "{a: ",
        "mixed": "[{a: ",
        "dashes": "- ",
        "questions": "? ",
        "anchors": "&a ",
        "tags": "!!str ",
        "stars": "*a ",
        "documents": "---\n",
        "ends": "...\n",
        "colons": ": ",
        "keys": "a: ",
        "quotes": "'' ",
        "commas": ",",
        "pipes": "|\n",
        "tabs": "\t",
        "comments": "# x\n",
        "directives": "%YAML 1.1\n",
        "newlines": "\n",
        "returns": "\r",
        "marks": "\ufeff",
    }.items():
        for size in (99_000, 100_000 * len(piece)):
            yield f"{name}-{size}", (piece * (size // len(piece)))[:size]
    yield "indented", "\n".join(" " * depth + "a:" for depth in range(430))
    yield "many-keys", "\n".join(f"k{number}:" for number in range(12_000))
    yield "one-key", "k" * 99_000 + ": 1"
    yield "one-number", "shots: " + "9" * 99_000
    yield "one-float", "shots: 1e" + "9" * 99_000
    yield "one-text", "description: " + "x" * 99_000
    yield "one-quote", 'description: "' + "\\x41" * 24_000 + '"'
    yield "folded", "description: >\n" + "  a\n\n" * 19_000
    yield "huge", "a: 1\n" * 10_000_000


LOADERS = (load_scenario, load_strategy)
# Bombs of each kind that both loaders read; the others are read by one, in turn, but in the long form.
READ_TWICE = ("lists", "brackets-99000", "huge")


def loads_of(name: str, number: int) -> tuple[Callable, ...]:
    return LOADERS if LONG or name in READ_TWICE else (LOADERS[number % 2],)


def read_bombs(path: Path) -> Iterator[dict]:
    for number, (name, text) in enumerate(yaml_bombs()):
        path.write_text(text, encoding="utf-8")
        for load in loads_of(name, number):
            yield measured(name, lambda load=load: load(str(path)))


def test_yaml_bombs(tmp_path):
    found = costs_of(__file__, tmp_path / "bomb.yaml")
    names = [name for name, _ in yaml_bombs()]
    assert {*READ_TWICE} < {*names}
    assert [one["name"] for one in found] == [
        name for number, name in enumerate(names) for _ in loads_of(name, number)
    ]
    for one in found:
        assert one["lines"] != ["fine"] and all("/bomb.yaml:" in line for line in one["lines"]), one
        assert one["s"] < 3 and one["bytes"] < 100_000_000, one


HOSTILE_TEXTS = [
    "", " ", "\n", "\r\n", "\t", "\0", "\x1b[31mred", "\x07", "\x7f", "\u0085", "\u2028",
    "\u202e" + "txt.exe", "\u2066", "\ufeff",
    "<script>alert(1)</script>", "{}", "{0.__class__}", "%s%n", "${HOME}", "$(touch pwned)", "`id`",
    "../../etc/passwd", "/etc/passwd",
    "/dev/zero", "/dev/stdin", "~nobodyatall/x", "~", ".", "..", "/", "**", "*", "con", "x" * 5000,
    "a/" * 3000, "é" * 300, "🙂" * 200, "NaN",
    "null", "true", "1e999", "0x10", "1_000", "!!python/object:os.system", "&a", "*a", "<<", "=", "- x",
    "file:///etc/passwd", "http://localhost/x",
    "os:system", "os.path", "builtins:eval", "Ω" * 65, "a" * 65, "-1", "²", "٣",
]  # fmt: skip


HOSTILE_VALUES = st.one_of(
    st.sampled_from(HOSTILE_TEXTS),
    st.sampled_from(
        [None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, -(10**30), 0.0, -0.0, 1e308, 5e-324, 1.5]
    ),
    st.sampled_from([float("nan"), float("inf"), float("-inf")]),
    # Copied, since what is put in may be changed in its turn.
    st.sampled_from(
        [[], {}, [[]], [{}], {"kind": "lowrank"}, {"kind": []}, {"": None}, ["a"] * 2000, [[[[[[1]]]]]]]
    ).map(copy.deepcopy),
    st.text(max_size=20),
    st.integers(),
    st.floats(),
)


HOSTILE_KEYS = st.one_of(
    st.sampled_from(HOSTILE_TEXTS), st.sampled_from(["kind", "name", "source", "__class__", "<<"])
)


SHIPPED = [(kind, path) for kind in ("scenario", "strategy") for path in shipped(kind).values()]


def change(draw, target: dict | list) -> None:
    """One place somewhere in plain data: another value, another key, one more, one less."""
    for _ in range(draw(st.integers(0, 4))):
        inner = [part for part in (target.values() if isinstance(target, dict) else target) if part]
        inner = [part for part in inner if isinstance(part, dict | list)]
        target = draw(st.sampled_from(inner)) if inner else target
    places = list(target) if isinstance(target, dict) else list(range(len(target)))
    how = draw(st.sampled_from(["value", "value", "value", "more", "less", "key"])) if places else "more"
    place = draw(st.sampled_from(places)) if places else None
    if how == "value":
        target[place] = draw(HOSTILE_VALUES)
    elif how == "less":
        del target[place]
    elif isinstance(target, list):
        target.insert(draw(st.integers(0, len(target))), draw(HOSTILE_VALUES))
    else:
        target[draw(HOSTILE_KEYS)] = target.pop(place) if how == "key" else draw(HOSTILE_VALUES)


def is_fine_or_told(load, path: Path) -> None:
    began = time.process_time()
    try:
        value = load(str(path)).value
    except UserError as error:
        for line in error.messages:
            assert line.startswith(f"{path}:") and line.isprintable() and len(line) < 1300, line
    else:
        assert type(value).model_validate(value.model_dump(exclude_unset=True)) == value
    assert time.process_time() - began < 3


@pytest.fixture(scope="module")
def scrap(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "fuzz.yaml"


@many(60, 5000)
@given(st.sampled_from(SHIPPED), st.data())
def test_shipped_files_with_hostile_values(scrap, shipped_file, data):
    content = yaml.safe_load(shipped_file[1].read_text(encoding="utf-8"))
    for _ in range(data.draw(st.integers(1, 3))):
        change(data.draw, content)
    scrap.write_bytes(
        yaml.safe_dump(content, allow_unicode=data.draw(st.booleans())).encode("utf-8", "surrogatepass")
    )
    for load in (load_scenario, load_strategy):
        is_fine_or_told(load, scrap)


PIECES = [
    b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\r\n", b"\r", b"\0", b"\x1b[2J", b"\x85", b"\xc2\x85",
    b"\xe2\x80\xa8", b"\xe2\x80\xae", b"\xed\xa0\x80",
    b"\xc0\xaf", b"\xf4\x90\x80\x80", b"---\n", b"...\n",
    b"--- !!python/object/apply:os.system ['touch pwned']\n", b"%YAML 9.9\n---\n",
    b"%TAG ! tag:x,1:\n---\n",
    b"!!python/name:os.system ", b"!!python/module:os ", b"!!binary ", b"!!set ", b"!!omap ",
    b"!!timestamp ", b"!<tag:yaml.org,2002:python/object/new:os.system> ",
    b"&a ", b"*a ", b"<<: *a\n", b"<<: {}\n", b"? ", b"- ", b"[", b"]", b"{", b"}", b"'", b'"', b"|\n",
    b">-\n", b"\\", b"\t", b"#", b": ", b"name: again\n",
    b'"\\ud800"', b'"\\U00110000"', b"1e400", b".inf", b".nan", b"9" * 5000, b"x" * 5000, b"~", b"=",
]  # fmt: skip


@many(60, 5000)
@given(st.sampled_from(SHIPPED), st.data())
def test_shipped_files_with_hostile_pieces(scrap, shipped_file, data):
    content = shipped_file[1].read_bytes()
    if data.draw(st.booleans()):
        content = content.replace(b"\n", data.draw(st.sampled_from([b"\r\n", b"\r", b"\n\n"])))
    for _ in range(data.draw(st.integers(1, 4))):
        at, length = data.draw(st.integers(0, len(content))), data.draw(st.sampled_from([0, 0, 1, 7, 50]))
        piece = data.draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=6)))
        content = content[:at] + piece + content[at + length :]
    scrap.write_bytes(content)
    for load in (load_scenario, load_strategy):
        is_fine_or_told(load, scrap)
    assert not (scrap.parent / "pwned").exists() and not Path("pwned").exists()


@pytest.fixture(scope="module")
def every_source(tmp_path_factory) -> Path:
    return make_every_source(tmp_path_factory.mktemp("sources"))


@many(40, 3000)
@given(st.data())
def test_what_a_scenario_opens(every_source, data):
    """Sources, paths, patterns and classes of any kind: told, and nothing outside is written."""
    content = yaml.safe_load((every_source / "all.yaml").read_text())
    for _ in range(data.draw(st.integers(1, 2))):
        entry = data.draw(st.sampled_from(content["tasks"])) if content.get("tasks") else content
        change(data.draw, entry.get("source", entry) if isinstance(entry, dict) else content)
    file = every_source / "fuzz.yaml"
    file.write_bytes(yaml.safe_dump(content).encode("utf-8", "surrogatepass"))
    before, began = tree(every_source), time.process_time()
    try:
        plan(load_scenario(str(file)), 0)
    except UserError as error:
        assert all(line.isprintable() and len(line) < 7000 for line in error.messages)
    assert tree(every_source) == before and time.process_time() - began < 5


def test_a_prompt_may_not_be_longer_than_any_context(scrap):
    scrap.write_text(
        f"name: s\nprompts: ['{'x' * 1000} {{}}']\ntasks: [{{name: a, source: {{kind: world, domain:"
        " digits}}]"
    )
    assert (
        f"{scrap}:2: prompts[0]: must have at most 1000 characters, got 'xxx"
        in told(load_scenario, str(scrap))[0]
    )


if __name__ == "__main__":
    report(read_bombs(Path(sys.argv[1])))
