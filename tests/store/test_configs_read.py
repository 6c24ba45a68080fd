"""config.yaml of a run, read back: by libyaml where nothing can be nested deeply, with the same result."""

from __future__ import annotations

import pytest
import yaml

from cl_complora.config.catalog import shipped
from cl_complora.errors import UserError
from cl_complora.store.forms import read_yaml
from cl_complora.store.plain_yaml import MAX_DEPTH, _is_shallow, plain_yaml

# A comment that is longer than lines of a shallow text are.
LONG_LINE = f"# {'x' * 500}\n"


@pytest.mark.parametrize("kind", ["scenario", "strategy"])
def test_either_parser_reads_the_same(kind):
    for path in shipped(kind).values():
        text = path.read_text(encoding="utf-8")
        assert _is_shallow(text) and not _is_shallow(LONG_LINE + text)
        assert plain_yaml(text) == plain_yaml(LONG_LINE + text) == yaml.safe_load(text)


@pytest.mark.parametrize("before", ["", LONG_LINE], ids=["shallow", "long"])
@pytest.mark.parametrize(
    "text",
    [
        "a: &a {b: 1}\nc: {<<: *a}\n",
        "a: !!python/object/apply:os.system ['touch pwned']\n",
        "a: [1\n",
        "[" * 900 + "]" * 900,
        "[" * 5000 + "]" * 5000,
        "- " * 240 + "a\n",
        "- " * 5000 + "a\n",
        "\n".join(" " * depth + "a:" for depth in range(450)),
        "\n".join(" " * depth + "a:\n" + " " * depth + "- b: 1" for depth in range(450)),
        "a: &a [*a]\n",
    ],
    ids=str.__len__,
)
def test_what_is_hostile_is_damaged(tmp_path, text, before):
    path = tmp_path / "config.yaml"
    path.write_text(before + text)
    with pytest.raises(UserError, match="config.yaml"):
        read_yaml(path)


def test_what_is_nested_as_deeply_as_may_be_is_read(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert read_yaml(path)
