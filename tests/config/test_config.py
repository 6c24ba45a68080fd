"""Scenario and strategy files: whatever is wrong is told in one line that says where, and nothing else
happens."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError, model_validator

from builders.places import ROOT
from cl_complora.cli import _check
from cl_complora.config import Scenario, Strategy, apply_overrides, load_scenario, load_strategy
from cl_complora.config.base import Section
from cl_complora.config.catalog import shipped
from cl_complora.config.faults import Fault, faults
from cl_complora.config.loading import kind_of, split_overrides
from cl_complora.config.yaml_lines import MAX_BYTES
from cl_complora.data.planning import plan
from cl_complora.errors import UserError

SCENARIO = """\
# a comment
name: mine
protocol: task-incremental
shots: 2
prompts: ["a photo of a {}."]
augment: {crop: [0.7, 1.0], flip: false}
tasks:
  - name: a
    source: {kind: folder, root: animals}
  - name: b
    source:
      kind: folder
      root: animals
    class_range: [0, 2]
zero_shot:
  - name: z
    source: {kind: world, domain: general}
    images: 50
seeds: [0, 1]
"""

STRATEGY = """\
# a comment
name: mine
adapter:
  kind: lowrank
  rank: 8
  matrices: [q, k, v]
  subspace:
    select: complement
    keep: {energy: 0.5}
regularisers:
  - kind: ewc
    strength: 100
memory: {kind: replay}
optimiser:
  name: adamw
  lr: 1e-3
training: {steps: 80}
sweep:
  optimiser.lr: [5e-4, 1e-3]
"""

TEXTS = {"scenario": SCENARIO, "strategy": STRATEGY}


@dataclass(frozen=True)
class Bad:
    """A broken file and, for each fault in it, the line, the key and what else the message says."""

    name: str
    kind: str
    content: str | bytes
    faults: tuple[tuple[int | None, str, tuple[str, ...]], ...]


def changed(kind: str, name: str, old: str, new: str, *faults: tuple) -> Bad:
    """The valid file with one text replaced by another."""
    assert TEXTS[kind].count(old) >= 1, old
    return whole(kind, name, TEXTS[kind].replace(old, new, 1), *faults)


def whole(kind: str, name: str, content: str | bytes, *faults: tuple) -> Bad:
    return Bad(name, kind, content, tuple((line, key, tuple(parts)) for line, key, *parts in faults))


def bombs() -> dict[str, str]:
    """Small texts that would expand to 9⁹ values."""
    names = "abcdefghij"
    listed = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    merged = ["a: &a {x: 1}"]
    for before, name in zip(names, names[1:], strict=False):
        many = ",".join([f"*{before}"] * 9)
        listed.append(f"{name}: &{name} [{many}]")
        merged.append(f"{name}: &{name} {{<<: [{many}]}}")
    return {"lists": "\n".join(listed), "merges": "\n".join(merged)}


S, T = "scenario", "strategy"
NONE = (
    "  kind: lowrank\n  rank: 8\n  matrices: [q, k, v]\n  subspace:\n    select: complement\n    keep:"
    " {energy: 0.5}\n"
)

# fmt: off
BAD = [
    # Keys
    changed(
        S, "key-top", "shots: 2", "shotz: 2",
        (4, "shotz", "unknown key", "did you mean 'shots'?", "allowed: name,"),
    ),
    changed(T, "key-top-t", "training:", "trainning:", (17, "trainning", "did you mean 'training'?")),
    changed(T, "key-spelling", "optimiser:\n", "optimizer:\n", (14, "optimizer", "did you mean 'optimiser'?")),
    changed(T, "key-adapter", "adapter:", "adaptor:", (3, "adaptor", "did you mean 'adapter'?")),
    changed(
        S, "key-task", "    class_range", "    class_rnge",
        (14, "tasks[1].class_rnge", "did you mean 'class_range'?"),
    ),
    changed(S, "key-source", "      root:", "      rooot:", (13, "tasks[1].source.rooot", "did you mean 'root'?")),
    changed(S, "key-augment", "flip", "flop", (6, "augment.flop", "did you mean 'flip'?", "allowed: crop, flip")),
    changed(S, "key-zero-shot", "    images", "    image", (18, "zero_shot[0].image", "did you mean 'images'?")),
    changed(T, "key-subspace", "    select", "    selct", (8, "adapter.subspace.selct", "did you mean 'select'?")),
    changed(
        T, "key-keep", "energy", "enrgy",
        (9, "adapter.subspace.keep.enrgy", "did you mean 'energy'?", "allowed: energy, fraction, number"),
    ),
    changed(
        T, "key-regulariser", "    strength", "    strenght",
        (12, "regularisers[0].strenght", "did you mean 'strength'?", "allowed: kind, strength, online"),
    ),
    changed(T, "key-case", "  rank", "  Rank", (5, "adapter.Rank", "did you mean 'rank'?")),
    changed(T, "key-elsewhere", "name: mine", "name: mine\nlr: 1", (3, "lr", "it belongs in optimiser; allowed")),
    changed(S, "key-deeper", "name: mine", "name: mine\ndomain: x", (3, "domain", "it belongs in tasks[…].source")),
    changed(
        S, "key-other-kind", "      root: animals", "      root: animals\n      domain: x",
        (14, "tasks[1].source.domain", "it belongs to kind: world", "allowed: kind, root, test_fraction"),
    ),
    changed(S, "key-number", "name: mine", "name: mine\n1: 2", (3, "1", "unknown key")),
    changed(S, "key-control", "name: mine", 'name: mine\n"a\\nb\\e[31m": 2', (3, r"a\nb\x1b[31m", "unknown key")),
    changed(
        T, "key-twice", "  rank: 8", "  rank: 8\n  rank: 9",
        (6, "adapter.rank", "stands twice", "first in line 5"),
    ),
    whole(S, "key-complex", "? [a, b]\n: 1\n", (1, "a key must be plain text")),
    changed(S, "missing-name", "name: mine\n", "", (2, "name", "this key is missing")),
    changed(S, "missing-source", "    source: {kind: folder, root: animals}\n", "", (8, "tasks[0].source", "missing")),
    changed(T, "missing-lr", "  lr: 1e-3\n", "", (14, "optimiser.lr", "this key is missing")),
    whole(S, "missing-tasks", "name: mine\nseeds: [1]\n", (1, "tasks", "this key is missing")),
    whole(
        T, "missing-much", "training: {}\n",
        (1, "name", "this key is missing"), (1, "adapter", "this key is missing"),
    ),
    # Types
    changed(
        T, "number-quoted", "rank: 8", "rank: '8'",
        (5, "adapter.rank", "must be a whole number, got '8'; write it without quotes"),
    ),
    changed(T, "number-bool", "rank: 8", "rank: true", (5, "adapter.rank", "must be a whole number, got true")),
    changed(T, "number-null", "rank: 8", "rank:", (5, "adapter.rank", "must be a whole number, got nothing")),
    changed(T, "number-list", "rank: 8", "rank: [8]", (5, "adapter.rank", "must be a whole number, got [8]")),
    changed(T, "number-section", "rank: 8", "rank: {a: 1}", (5, "adapter.rank", "a whole number, got a section")),
    changed(T, "number-float", "rank: 8", "rank: 8.0", (5, "adapter.rank", "must be a whole number, got 8.0")),
    changed(T, "number-1.1", "steps: 80", "steps: 1:30", (17, "training.steps", "whole number, got '1:30'")),
    changed(T, "lr-text", "lr: 1e-3", "lr: small", (16, "optimiser.lr", "must be a number, got 'small'")),
    changed(T, "lr-quoted", "lr: 1e-3", "lr: '1e-3'", (16, "optimiser.lr", "got '1e-3'; write it without quotes")),
    changed(T, "lr-nan", "lr: 1e-3", "lr: .nan", (16, "optimiser.lr", "must be a finite number, got nan")),
    changed(T, "lr-inf", "lr: 1e-3", "lr: .inf", (16, "optimiser.lr", "must be a finite number, got inf")),
    changed(T, "lr-1e999", "lr: 1e-3", "lr: 1e999", (16, "optimiser.lr", "must be a finite number, got inf")),
    changed(T, "lr-nan-text", "lr: 1e-3", "lr: nan", (16, "optimiser.lr", "must be a number, got 'nan'")),
    changed(T, "lr-huge", "lr: 1e-3", "lr: " + "9" * 400, (16, "optimiser.lr", "must be a finite number, got 999")),
    changed(T, "lr-5000-digits", "lr: 1e-3", "lr: " + "9" * 5000, (16, "optimiser.lr", "at most 4300 digits, got '99")),
    changed(S, "bool-yes", "flip: false", "flip: yes", (6, "augment.flip", "must be true or false, got 'yes'")),
    changed(
        S, "bool-quoted", "flip: false", "flip: 'false'",
        (6, "augment.flip", "got 'false'; write it without quotes"),
    ),
    changed(S, "bool-number", "flip: false", "flip: 0", (6, "augment.flip", "must be true or false, got 0")),
    changed(S, "text-number", "name: mine", "name: 5", (2, "name", "must be text, got 5; write it in quotes")),
    changed(
        S, "text-numbers", "class_range: [0, 2]", "classes: [1, 2.5]",
        (14, "tasks[1].classes[0]", "must be text, got 1"), (14, "tasks[1].classes[1]", "must be text, got 2.5"),
    ),
    changed(S, "list-scalar", '["a photo of a {}."]', "a {}", (5, "prompts", "must be a list, got 'a {}'")),
    changed(T, "section-scalar", "{steps: 80}", "80", (17, "training", "must be a section (key: value), got 80")),
    changed(T, "section-list", "{steps: 80}", "[80]", (17, "training", "must be a section (key: value), got [80]")),
    changed(
        S, "source-scalar", "{kind: folder, root: animals}", "animals",
        (9, "tasks[0].source", "must be a section"),
    ),
    whole(S, "tasks-null", SCENARIO[: SCENARIO.index("  - name: a")], (7, "tasks", "must be a list, got nothing")),
    whole(S, "tasks-empty", "name: x\ntasks: []\n", (2, "tasks", "must not be empty, got []")),
    # Values
    changed(T, "rank-0", "rank: 8", "rank: 0", (5, "adapter.rank", "must be at least 1, got 0")),
    changed(
        T, "rank-huge", "rank: 8", "rank: 9999999999999999999999",
        (5, "adapter.rank", "must be at most 1000000000"),
    ),
    changed(T, "lr-negative", "lr: 1e-3", "lr: -1e-3", (16, "optimiser.lr", "must be greater than 0, got -0.001")),
    changed(
        T, "energy", "energy: 0.5", "energy: 1.5",
        (9, "adapter.subspace.keep.energy", "must be at most 1, got 1.5"),
    ),
    changed(
        S, "shots-0", "shots: 2", "shots: 0",
        (4, "shots", "must be at least 1 or 'all' or a section (key: value), got 0"),
    ),
    changed(
        S, "shots-text", "shots: 2", "shots: al",
        (4, "shots", "a whole number or 'all' or a section (key: value), got 'al'; did you mean 'all'?"),
    ),
    changed(
        S, "protocol", "task-incremental", "task-incremetal",
        (3, "protocol", "'class-incremental' or 'domain-incremental', got 'task-incremetal'; did you mean 'task-incr"),
    ),
    changed(
        T, "kind", "kind: lowrank", "kind: low",
        (4, "adapter.kind", "must be 'lowrank', 'full' or 'none', got 'low'"),
    ),
    changed(
        T, "matrix", "[q, k, v]", "[Q, k, w]",
        (6, "adapter.matrices[0]", "must be 'q', 'k', 'v',", "got 'Q'; did you mean 'q'?"),
        (6, "adapter.matrices[2]", "must be 'q', 'k', 'v',", "got 'w'"),
    ),
    changed(T, "matrix-twice", "[q, k, v]", "[q, k, q]", (6, "adapter.matrices[2]", "'q' stands twice")),
    changed(T, "matrix-none", "[q, k, v]", "[]", (6, "adapter.matrices", "must not be empty, got []")),
    changed(
        T, "tower", "  rank: 8", "  towers: [txt]",
        (5, "adapter.towers[0]", "'vision' or 'text', got 'txt'; did you"),
    ),
    changed(
        S, "source-kind", "kind: folder, root", "kind: foldr, root",
        (9, "tasks[0].source.kind", "'manifest', 'coop', 'shards' or 'dataset', got 'foldr'; did you mean 'folder'?"),
    ),
    changed(
        S, "source-kind-missing", "kind: folder, root", "root",
        (9, "tasks[0].source.kind", "this key is missing; must be 'world', 'folder', 'manifest', 'coop', 'shards' or"),
    ),
    changed(
        S, "source-kind-list", "{kind: folder, root", "{kind: [folder], root",
        (9, "tasks[0].source.kind", "['folder']"),
    ),
    changed(
        T, "regulariser", "kind: ewc", "kind: ewcc",
        (11, "regularisers[0].kind", "'ewc', 'lwf', 'l2-init', 'reference' or 'orthogonal'", "mean"),
    ),
    changed(
        T, "regulariser-twice", "memory:", "  - kind: ewc\n    strength: 5\nmemory:",
        (13, "regularisers[1].kind", "'ewc' stands twice"),
    ),
    changed(
        T, "keep-both", "energy: 0.5", "energy: 0.5, fraction: 0.2",
        (9, "adapter.subspace.keep.fraction", "exactly one of energy, fraction, number, got energy and fraction"),
    ),
    changed(T, "keep-none", "{energy: 0.5}", "{}", (9, "adapter.subspace.keep", "exactly one of", "got none of them")),
    changed(S, "name-twice", "name: b", "name: a", (10, "tasks[1].name", "'a' is already the name of tasks[0]")),
    changed(S, "name-case", "name: b", "name: A", (10, "tasks[1].name", "'A' is already", "but for case or spaces")),
    changed(
        S, "name-zero-shot", "name: z", "name: a",
        (16, "zero_shot[0].name", "'a' is already the name of tasks[0]"),
    ),
    whole(
        S, "name-file", SCENARIO.replace("name: a", "name: x y").replace("name: b", "name: X-y"),
        (10, "tasks[1].name"),
    ),
    changed(S, "name-folder", "name: mine", "name: ../x", (2, "name", "1 to 64 letters", "got '../x'")),
    changed(S, "prompt-none", "a photo of a {}.", "a photo", (5, "prompts[0]", "must hold {} once", "got 'a photo'")),
    changed(
        S, "prompt-two", "a photo of a {}.", "{} and {}",
        (5, "prompts[0]", "must hold {} once", "got '{} and {}'"),
    ),
    changed(S, "prompt-named", "a photo of a {}.", "a {name}", (5, "prompts[0]", "must hold {} once")),
    changed(S, "crop", "[0.7, 1.0]", "[1.0, 0.7]", (6, "augment.crop", "0 < smallest ≤ largest ≤ 1, got [1.0, 0.7]")),
    changed(S, "crop-three", "[0.7, 1.0]", "[0, 0.7, 1]", (6, "augment.crop", "at most 2 entries, got [0, 0.7, 1]")),
    changed(S, "range-empty", "[0, 2]", "[2, 2]", (14, "tasks[1].class_range", "first < end", "got [2, 2]")),
    changed(S, "range-negative", "[0, 2]", "[-1, 2]", (14, "tasks[1].class_range[0]", "must be at least 0, got -1")),
    changed(
        S, "classes-and-range", "class_range: [0, 2]", "class_range: [0, 2]\n    classes: [cat]",
        (14, "tasks[1].class_range", "classes or class_range, not both"),
    ),
    changed(
        S, "classes-twice", "class_range: [0, 2]", "classes: [cat, cat]",
        (14, "tasks[1].classes[1]", "stands twice"),
    ),
    changed(S, "seeds-empty", "[0, 1]", "[]", (19, "seeds", "must not be empty")),
    changed(S, "seeds-twice", "[0, 1]", "[0, 1, 0]", (19, "seeds[2]", "0 stands twice")),
    changed(S, "seeds-negative", "[0, 1]", "[0, -1]", (19, "seeds[1]", "must be at least 0, got -1")),
    changed(S, "seeds-huge", "[0, 1]", "[4294967296]", (19, "seeds[0]", "must be less than 4294967296")),
    whole(
        S, "very-many", SCENARIO.replace("[0, 1]", f"[{', '.join('x' * 100)}]"),
        *[(19, f"seeds[{i}]", "must be a whole number, got 'x'") for i in range(20)], (None, "there are more faults"),
    ),
    # Settings that do not go together
    changed(
        T, "adapter-none", NONE, "  kind: none\n",
        (9, "optimiser", "has no effect (nor have regularisers, memory) with adapter kind none"),
    ),
    changed(
        T, "adapter-full", "kind: lowrank", "kind: full",
        (5, "adapter.rank", "no effect", "matrices, subspace", "full"),
    ),
    changed(
        T, "no-optimiser", "optimiser:\n  name: adamw\n  lr: 1e-3\n", "",
        (2, "optimiser", "this section is missing; adapter kind lowrank"),
    ),
    changed(
        T, "momentum", "  lr: 1e-3", "  lr: 1e-3\n  momentum: 0.9",
        (17, "optimiser.momentum", "no effect with name: adamw, only with name: sgd"),
    ),
    changed(
        T, "betas", "name: adamw", "name: sgd\n  betas: [0.9, 0.9]",
        (16, "optimiser.betas", "no effect with name: sgd"),
    ),
    changed(
        T, "decay", "    strength: 100", "    strength: 1\n    online: false\n    decay: 0.5",
        (14, "regularisers[0].decay", "no effect with online: false"),
    ),
    changed(
        T, "projector", "select: complement", "select: top\n    form: projector",
        (9, "adapter.subspace.form", "projector works with select: complement or none, not top"),
    ),
    changed(
        S, "embedded-weights", "name: mine", "name: mine\nmodel: {pretrained: openai}",
        (3, "model.pretrained", "the embedded model brings its own weights"),
    ),
    changed(
        S, "measure", "shots: 2", "shots: 2\nmeasure: validation",
        (5, "measure", "validation needs validation_shots of at least 1"),
    ),
    # Sweeps
    changed(
        T, "sweep-key", "optimiser.lr:", "optimiser.lrr:",
        (19, "sweep.optimiser.lrr", "names no setting", "did you mean 'lr'?"),
    ),
    changed(
        T, "sweep-value", "[5e-4, 1e-3]", "[5e-4, -1, 0]",
        (19, "sweep.optimiser.lr[1]", "must be greater than 0, got -1"),
        (19, "sweep.optimiser.lr[2]", "must be greater than 0, got 0"),
    ),
    changed(
        T, "sweep-type", "optimiser.lr: [5e-4, 1e-3]", "adapter.rank: [4, 8.5]",
        (19, "sweep.adapter.rank[1]", "must be a whole number, got 8.5"),
    ),
    changed(T, "sweep-scalar", "[5e-4, 1e-3]", "1e-3", (19, "sweep.optimiser.lr", "must be a list, got 0.001")),
    changed(T, "sweep-text", "[5e-4, 1e-3]", "[a]", (19, "sweep.optimiser.lr[0]", "must be a number, got 'a'")),
    changed(T, "sweep-nan", "[5e-4, 1e-3]", "[.nan]", (19, "sweep.optimiser.lr[0]", "must be a finite number")),
    changed(T, "sweep-empty", "[5e-4, 1e-3]", "[]", (19, "sweep.optimiser.lr", "must not be empty")),
    changed(T, "sweep-list", "\n  optimiser.lr: [5e-4, 1e-3]", " [1]", (18, "sweep", "must be a section")),
    changed(
        T, "sweep-index", "optimiser.lr:", "regularisers.1.strength:",
        (19, "sweep.regularisers.1.strength", "names no setting", "'1' must be an index from 0 to 0"),
    ),
    changed(
        T, "sweep-idle", "optimiser.lr: [5e-4, 1e-3]", "optimiser.momentum: [0.9]",
        (19, "sweep.optimiser.momentum[0]", "has no effect with name: adamw"),
    ),
    changed(
        T, "sweep-section", "optimiser.lr: [5e-4, 1e-3]", "optimiser: [1]",
        (19, "sweep.optimiser[0]", "a section"),
    ),
    # YAML
    changed(T, "tab", "  rank: 8", "\trank: 8", (5, "not valid YAML: a tab")),
    changed(T, "bracket", "[q, k, v]", "[q, k, v", (6, "not valid YAML", "closing ']' is missing, noticed in line 7")),
    changed(S, "bracket-last", "[0, 1]", "[0, 1", (19, "not valid YAML: this bracket is never closed: ']' is missing")),
    changed(T, "brace", "{steps: 80}", "{steps: 80", (17, "not valid YAML", "closing '}' is missing")),
    changed(S, "quote", "seeds: [0, 1]", 'description: "x', (19, "not valid YAML: this quote is never closed")),
    changed(S, "colon", "name: mine", "name: mine: yours", (2, "not valid YAML: a second ':'")),
    changed(T, "indent-more", "  rank: 8", "   rank: 8", (5, "not valid YAML", "correct the indentation")),
    changed(T, "indent-less", "  rank: 8", " rank: 8", (5, "not valid YAML", "check indentation")),
    changed(T, "equals-sign", "  rank: 8", "  rank = 8", (5, "not valid YAML: expected 'key: value', found no ':'")),
    changed(T, "list-in-section", "  kind: lowrank", "  - kind: lowrank", (5, "not valid YAML", "begins in line 4")),
    changed(S, "bare-prompt", '["a photo of a {}."]', "[a photo of a {}.]", (5, "not valid YAML", "needs quotes")),
    changed(S, "backslash", "a photo of a {}.", "C:\\Users\\{}", (5, "not valid YAML", "use single quotes")),
    changed(S, "no-character", "name: mine", 'name: "\\U00FFFFFF"', (2, "not valid YAML", "stands for no character")),
    changed(S, "surrogate", "name: mine", 'name: mine\ndescription: "\\ud800"', (3, "description", "lone surrogate")),
    changed(S, "control", "name: mine", "name: mi\x01ne", (2, "not valid YAML: the character U+0001")),
    changed(S, "percent", "name: mine", "name: %mine", (2, "not valid YAML", "starts with '%' needs quotes")),
    changed(S, "no-anchor", "name: mine", "name: *mine", (2, "not valid YAML", "alias *mine has no anchor &mine")),
    changed(S, "no-value", "seeds: [0, 1]", "seeds: }", (19, "not valid YAML", "value is missing")),
    whole(S, "two-documents", SCENARIO + "---\nname: x\n", (20, "not valid YAML: a second document")),
    changed(
        S, "python-tag", "name: mine", "name: !!python/object/apply:os.system ['touch pwned']",
        (2, "name", "the tag !!python/object/apply:os.system is not allowed"),
    ),
    changed(S, "local-tag", "name: mine", "name: !foo x", (2, "name", "the tag !foo is not allowed")),
    changed(T, "int-tag", "rank: 8", "rank: !!int x", (5, "adapter.rank", "must be a whole number", "got 'x'")),
    changed(S, "merge-scalar", "flip: false", "<<: 5", (6, "augment.<<", "must be an alias of a section")),
    whole(S, "bomb-lists", bombs()["lists"], (None, "at most 50000 values")),
    whole(S, "bomb-merges", bombs()["merges"], (None, "at most 50000 values")),
    whole(
        S, "alias-of-itself", "a: &a [*a]\n",
        (None, "lists and sections are nested too deeply here, or an alias holds itself"),
    ),
    whole(S, "merge-of-itself", "a: &a {<<: *a}\n", (None, "nested too deeply")),
    whole(S, "deep-brackets", "[" * 5000, (1, "lists and sections are nested too deeply")),
    whole(S, "deep-dashes", "- " * 5000, (1, "lists and sections are nested too deeply")),
    # Files
    whole(S, "empty", "", (1, "a scenario file must hold a mapping (key: value), the file is empty")),
    whole(T, "comment-only", "# x\n\n", (1, "a strategy file must hold a mapping (key: value), the file is empty")),
    whole(S, "list", "# x\n- a\n- b\n", (2, "a scenario file must hold a mapping (key: value), got a list")),
    whole(S, "scalar", "hello\n", (1, "a scenario file must hold a mapping (key: value), got a single value")),
    whole(S, "binary", b"\x89PNG\r\n\x1a\n\0\0\xff", (3, "must be text in UTF-8", "binary")),
    whole(S, "utf-16", SCENARIO.encode("utf-16"), (1, "must be text in UTF-8, this is UTF-16")),
    whole(
        S, "latin-1", "name: x\ndescription: café\n".encode("latin-1"),
        (2, "must be text in UTF-8, got the byte 0xe9"),
    ),
    whole(S, "huge", "a: 1\n" * MAX_BYTES, (None, f"at most {MAX_BYTES} bytes")),
    whole(S, "crlf", SCENARIO.replace("shots", "shotz").replace("\n", "\r\n"), (4, "shotz", "did you mean 'shots'?")),
    # The other kind of file
    whole(
        S, "is-a-strategy", STRATEGY,
        (3, "adapter", "this is a strategy, a scenario is expected here", "--strategy"),
    ),
    whole(T, "is-a-scenario", SCENARIO, (3, "protocol", "this is a scenario, a strategy is expected here")),
    # Data
    changed(
        S, "too-many-shots", "shots: 2", "shots: 5",
        (4, "shots", "5 shots a class, but class 'cat' of task 'a' has 4 training images"), (4, "shots", "task 'b'"),
    ),
    changed(
        S, "no-folder", "root: animals}", "root: nowhere}",
        (9, "tasks[0].source", "nowhere: there is no such folder"),
    ),
    changed(S, "file-not-folder", "root: animals}", "root: afile}", (9, "tasks[0].source", "is a file, not a folder")),
    changed(S, "empty-folder", "root: animals}", "root: hollow}", (9, "tasks[0].source", "holds no class folders")),
    changed(S, "newline-folder", "root: animals}", 'root: "a\\nb"}', (9, "tasks[0].source", r"a\nb: there is no such")),
    changed(S, "no-home", "root: animals}", "root: ~nobodyatall/x}", (9, "tasks[0].source.root", "~ stands for")),
    changed(
        S, "class", "class_range: [0, 2]", "classes: [cat, dgo]",
        (14, "tasks[1].classes", "no class 'dgo'", "'dog'"),
    ),
    changed(
        S, "range-end", "[0, 2]", "[0, 9]",
        (14, "tasks[1].class_range", "ends at 9, but the source has 3 classes"),
    ),
    changed(S, "classes-differ", "task-incr", "domain-incr", (10, "tasks[1]", "domain-incremental", "differ in 'dog'")),
    changed(S, "domain", "domain: general", "domain: generel", (17, "zero_shot[0].source", "did you mean 'general'?")),
]
# fmt: on


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a class-folder source; every broken file is written here."""
    root = tmp_path_factory.mktemp("config")
    for split in ("train", "test"):
        for name in ("cat", "cow", "dog"):
            (root / "animals" / split / name).mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (8, 8)).save(root / "animals" / split / name / f"{number}.png")
    (root / "hollow").mkdir()
    (root / "afile").write_text("x")
    return root


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / f"{name}.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def check(kind: str, path: Path | str, overrides: tuple[str, ...] = ()) -> None:
    """Everything that ``run`` checks before it imports torch."""
    if kind == "strategy":
        load_strategy(str(path), overrides)
    else:
        plan(load_scenario(str(path), overrides), 0)


def refusal(kind: str, path: Path | str, overrides: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The messages about a file that must be refused, each fit for one line."""
    with pytest.raises(UserError) as caught:
        check(kind, path, overrides)
    assert all(message.isprintable() and len(message) < 1200 for message in caught.value.messages)
    return caught.value.messages


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_every_fault_is_told_in_one_line_with_its_place(bad, folder):
    path = write(folder, bad.name, bad.content)
    began = time.process_time()
    messages = refusal(bad.kind, path)
    assert time.process_time() - began < 2
    assert len(messages) == len(bad.faults), messages
    for message, (line, key, parts) in zip(messages, bad.faults, strict=True):
        assert message.startswith(f"{path}:" if line is None else f"{path}:{line}: {key}"), message
        for part in (key, *parts):
            assert part in message, message
    assert not (folder / "pwned").exists()


def test_the_files_that_the_broken_ones_derive_from_are_fine(folder):
    for kind, text in TEXTS.items():
        check(kind, write(folder, f"fine-{kind}", text))
        check(kind, write(folder, f"bom-{kind}", text.encode("utf-8-sig")))
        check(kind, write(folder, f"crlf-{kind}", text.replace("\n", "\r\n")))


@pytest.mark.parametrize(
    "text, value", [("1e-3", 1e-3), ("1E3", 1e3), ("2", 2.0), (".5", 0.5), ("+1.e-2", 0.01)]
)
def test_every_way_to_write_a_number_is_a_number(text, value, folder):
    path = write(folder, "number", STRATEGY.replace("lr: 1e-3", f"lr: {text}"))
    assert load_strategy(str(path)).value.optimiser.lr == value


def test_what_only_yaml_1_1_converts_is_text(folder):
    names = ["no", "on", "y", "2024-05-01", "1:30", "08", "0x10", "1_000", "="]
    path = write(folder, "text", SCENARIO.replace("class_range: [0, 2]", f"classes: [{', '.join(names)}]"))
    assert load_scenario(str(path)).value.tasks[1].classes == names


def test_merged_sections_and_aliases(folder):
    extra = "  - &base\n    name: c\n    source: &animals {kind: folder, root: animals}\n    shots: 3\n"
    extra += "  - {<<: *base, name: d}\n  - {<<: [{name: f}, *base], source: *animals, shots: 1}\nzero_shot:"
    path = write(folder, "merged", SCENARIO.replace("zero_shot:", extra))
    located = load_scenario(str(path), ["tasks.3.source.root=hollow"])
    tasks = located.value.tasks
    assert [(task.name, task.shots) for task in tasks] == [
        ("a", None),
        ("b", None),
        ("c", 3),
        ("d", 3),
        ("f", 1),
    ]
    # An override changes the one place that it names, whatever shares an anchor with it.
    assert [task.source.root for task in tasks] == ["animals", "animals", "animals", "hollow", "animals"]
    assert located.fault(("tasks", 3, "shots"), "x") == f"{path}:18: tasks[3].shots: x"
    assert located.fault(("tasks", 4, "shots"), "x") == f"{path}:20: tasks[4].shots: x"


def test_key_paths_without_a_line_take_the_line_of_the_section_around(folder):
    located = load_scenario(str(write(folder, "lines", SCENARIO)))
    assert located.fault((), "x") == f"{located.file}:2: x"
    assert located.fault(("validation_shots",), "x") == f"{located.file}:2: validation_shots: x"
    assert located.fault(("tasks", 1, "shots"), "x") == f"{located.file}:10: tasks[1].shots: x"
    assert located.fault(("tasks", 1, "source", "root"), "x") == f"{located.file}:13: tasks[1].source.root: x"


def test_validators_that_know_nothing_of_lines_are_told_too():
    class Odd(Section):
        at: date = date(2024, 1, 1)

        @model_validator(mode="after")
        def _refuse(self):
            raise ValueError("no such luck")

    def told(data: dict) -> list[Fault]:
        with pytest.raises(ValidationError) as caught:
            Odd.model_validate(data)
        return faults(caught.value, Odd, data)

    assert told({}) == [Fault((), "no such luck")]
    assert told({"at": "today"}) == [Fault(("at",), "must be: Input should be a valid date, got 'today'")]


# Overrides

BAD_SETTINGS = [
    ("optimiser.lr", "must have the form key.path=value, such as optimiser.lr=1e-3"),
    ("=5", "must have the form key.path=value"),
    ("optimizer.lr=1", "unknown key; did you mean 'optimiser'? allowed: name,"),
    ("name=x", "write scenario.name or strategy.name: both have this key"),
    ("scenario=x", "unknown key"),
    ("strategy.shots=4", "unknown key; allowed: name, description, adapter,"),
    ("optimiser.lrr=1", "unknown key; did you mean 'lr'?"),
    ("optimiser.lr=-1", "must be greater than 0, got -1"),
    ("optimiser.lr='1'", "must be a number, got '1'; write it without quotes"),
    ("optimiser.lr=", "must be a number, got nothing"),
    ("optimiser.lr.x=1", "optimiser.lr is a value, not a section"),
    ("optimiser.lr=[1", "not valid YAML: this bracket is never closed"),
    ("optimiser.lr=!!python/name:os.system", "the tag !!python/name:os.system is not allowed"),
    ("optimiser.lr=&a [*a]", "nested too deeply here, or an alias holds itself"),
    (f"optimiser.lr={'9' * 5000}", "must be a whole number of at most 4300 digits"),
    ("strategy.name=../x", "1 to 64 letters"),
    ("adapter={kind: lowrank, rank: 0}", "adapter.rank: must be at least 1, got 0"),
    ("adapter.=1", "unknown key; allowed: kind, rank"),
    ("adapter.subspace.keep.fraction=0.2", "needs exactly one of energy, fraction, number"),
    ("optimiser.momentum=0.9", "has no effect with name: adamw, only with name: sgd"),
    ("optimiser=", "this section is missing; adapter kind lowrank"),
    ("schedule.warm=1", "unknown key; did you mean 'warmup'?"),
    ("regularisers.1.kind=lwf", "'1' must be an index from 0 to 0"),
    ("regularisers.²=1", "'²' must be an index from 0 to 0"),
    ("sweep={optimiser.lr: [-1]}", "sweep.optimiser.lr[0]: must be greater than 0"),
    ("shots=100", "100 shots a class, but class 'cat' of task 'a' has 4"),
    ("shots=a\nb", "must be a whole number or 'all' or a section (key: value), got 'a b'"),
    ("tasks=[]", "must not be empty"),
    ("tasks.-1.name=x", "'-1' must be an index from 0 to 1"),
    ("tasks[1].name=A", "'A' is already the name of tasks[0]"),
    ("tasks.1.class_range=[0, 9]", "ends at 9, but the source has 3 classes"),
    ("tasks.0.source.domain=x", "unknown key; it belongs to kind: world"),
    ("seeds=[1, 1]", "seeds[1]: 1 stands twice"),
    ("model.pretrained=x", "the embedded model brings its own weights"),
]


@pytest.mark.parametrize("setting, told", BAD_SETTINGS, ids=lambda text: repr(text)[:40])
def test_a_bad_override_is_blamed_itself(setting, told, folder):
    paths = {kind: write(folder, f"set-{kind}", text) for kind, text in TEXTS.items()}
    with pytest.raises(UserError) as caught:
        for kind, overrides in zip(TEXTS, split_overrides([setting]), strict=True):
            check(kind, paths[kind], tuple(overrides))
    shown = setting.replace("\n", r"\n")
    for message in caught.value.messages:
        start = f"--set {shown}: " if len(shown) <= 80 else f"--set {shown[:79]}…: "
        assert message.startswith(start) and message.isprintable()
    assert told in caught.value.messages[0]


def test_a_line_that_an_override_has_spoilt_is_told_with_the_override(folder):
    path = write(folder, "spoilt", STRATEGY)
    (message,) = refusal("strategy", path, ("training.steps=5", "adapter.kind=full"))
    assert message.startswith(f"{path}:5: adapter.rank: has no effect")
    assert message.endswith("(with --set adapter.kind=full)")
    path = write(folder, "spoilt", SCENARIO)
    (message,) = refusal("scenario", path, ("shots=1", "tasks[0].name=b"))
    assert message.startswith(f"{path}:10: tasks[1].name: 'b' is already")
    assert message.endswith("(with --set tasks[0].name=b)")
    (message,) = refusal("scenario", path, ("tasks.0.source.root=nowhere",))
    assert message.startswith(f"{path}:9: tasks[0].source: ") and message.endswith(
        "(with --set tasks.0.source.root=nowhere)"
    )


def test_overrides_make_sections_and_take_the_place_of_others():
    located = load_strategy(
        "lora", ["memory={kind: replay}", "memory.per_class=3", "memory.per_class=4", "training={}"]
    )
    assert located.value.memory.per_class == 4
    assert (located.value.training.steps, load_strategy("lora").value.training.steps) == (100, 80)
    (message,) = refusal("strategy", "lora", ("memory.per_class=3",))
    assert message == "--set memory.per_class=3: memory.kind: this key is missing"
    (message,) = refusal("strategy", "lora", ("regularisers.0.strength=3",))
    assert message == "--set regularisers.0.strength=3: regularisers has no entry 0: it is not in the file"
    data = {"a": [{"b": 1}]}
    apply_overrides(data, ["a.0.b=2", "a[0].c=[x, 1e-3]", "d.e=null"])
    assert data == {"a": [{"b": 2, "c": ["x", 1e-3]}], "d": {"e": None}}


def test_overrides_are_sorted_by_their_first_key():
    settings_ = ["shots=4", "optimiser.lr=1", "scenario.name=x", "strategy.name=y", "tasks[0].shots=1"]
    assert split_overrides(settings_) == (
        ["shots=4", "scenario.name=x", "tasks[0].shots=1"],
        ["optimiser.lr=1", "strategy.name=y"],
    )
    assert load_scenario("embedded", ["scenario.name=x"]).value.name == "x"


def test_a_sweep_is_of_the_file_as_it_stands():
    # The values to sweep for low-rank updates do not stop a run that has other settings.
    assert load_strategy("lora", ["optimiser.lr=1e-5", "adapter.rank=2"]).value.sweep


def test_the_kind_of_a_file():
    assert kind_of(yaml.safe_load(SCENARIO)) == "scenario"
    assert kind_of(yaml.safe_load(STRATEGY)) == "strategy"
    assert kind_of({"adaptor": {}, "optimizer": {}}) == "strategy"
    assert kind_of({"taks": [], "protocoll": ""}) == "scenario"
    assert (
        kind_of({"name": "x"})
        is kind_of({"tasks": [], "adapter": {}})
        is kind_of([1])
        is kind_of(None)
        is None
    )


@pytest.mark.parametrize("kind, name, told", [
    ("scenario", "lora", "'lora' is a strategy, a scenario is expected here; a strategy is given with --strategy"),
    ("strategy", "embedded", "'embedded' is a scenario, a strategy is expected here"),
    ("strategy", "lorra", "no strategy named 'lorra'; did you mean 'lora'?"),
    ("scenario", "no/such.yaml", "no/such.yaml: there is no such file"),
    ("scenario", "tests/", "tests/: is a folder, not a YAML file"),
])  # fmt: skip
def test_names_that_name_nothing(kind, name, told, monkeypatch):
    monkeypatch.chdir(ROOT)
    (message,) = refusal(kind, name)
    assert message.startswith(told)


# Shipped files

SHIPPED = [(kind, path) for kind in TEXTS for path in shipped(kind).values()]


@pytest.mark.parametrize("kind, path", SHIPPED, ids=lambda value: getattr(value, "stem", value))
def test_shipped_files_load_and_open_with_the_command_that_runs_them(kind, path):
    located = {"scenario": load_scenario, "strategy": load_strategy}[kind](path.stem)
    needs_data = [e for e in getattr(located.value, "tasks", ()) if e.source.kind in ("dataset", "folder")]
    if not needs_data:  # what others hold is not part of the project
        check(kind, path.stem)
    comment, command = path.read_text(encoding="utf-8").splitlines()[0].split("Run: ")
    assert comment.startswith("# ")
    program, run, *arguments = command.split()
    assert (program, run) == ("cl-complora", "run")
    named = {"scenario": "embedded", "strategy": "complora"}
    named |= (
        {"strategy": arguments[1]}
        if arguments[:1] == ["--strategy"]
        else dict(zip(["scenario"], arguments, strict=False))
    )
    assert named[kind] == path.stem


# The command line


def test_a_folder_name_that_the_system_refuses_is_told_with_its_place(folder):
    path = write(folder, "long", SCENARIO.replace("root: animals}", f"root: {'x' * 300}}}"))
    (message,) = refusal("scenario", path)
    assert message.startswith(f"{path}:9: tasks[0].source: ")


def test_check_recognises_a_strategy_whose_sections_are_misspelt(folder):
    path = write(folder, "misspelt", "name: x\nadaptor: {kind: none}\noptimizer: {lr: 1e-3}\n")
    with pytest.raises(UserError) as caught:
        _check(str(path))
    assert "did you mean 'adapter'?" in caught.value.messages[0]


RUN_AND_LIST = """
import atexit, json, sys
path = sys.argv.pop()
atexit.register(lambda: open(path, "w").write(json.dumps(sorted({"torch", "open_clip"} & set(sys.modules)))))
from cl_complora.cli import main
main()
"""


def cli(folder: Path, *arguments: str) -> tuple[subprocess.CompletedProcess, float, list[str]]:
    """The command line in a process of its own; also its CPU seconds and which heavy modules it imported."""
    modules = folder.parent / f"{folder.name}-modules.json"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", RUN_AND_LIST, *arguments, str(modules)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done, seconds, json.loads(modules.read_text())


def test_check_tells_all_files_faults_writes_nothing_and_imports_no_torch(folder):
    bad = [bad for bad in BAD if bad.name in CLI_CASES]
    for one in bad:
        write(folder, one.name, one.content)
    names = [f"{one.name}.yaml" for one in bad]
    for kind, text in TEXTS.items():
        write(folder, kind, text)
    before = sorted(folder.rglob("*"))
    done, seconds, modules = cli(folder, "check", "scenario.yaml", *names, "strategy.yaml")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stdout.splitlines() == [
        "scenario.yaml: scenario 'mine' is fine (2 tasks, 10 training images)",
        "strategy.yaml: strategy 'mine' is fine (lowrank adapter)",
    ]
    told = done.stderr.splitlines()
    assert len(told) == sum(len(one.faults) for one in bad)
    expected = [(name, fault) for name, one in zip(names, bad, strict=True) for fault in one.faults]
    for line, (name, (number, _, parts)) in zip(told, expected, strict=True):
        assert line.startswith(f"error: {name}:{number}: ")
        assert all(part in line for part in parts)
    assert sorted(folder.rglob("*")) == before
    assert modules == [] and seconds < 3


CLI_CASES = {
    "key-top",
    "key-keep",
    "matrix",
    "sweep-value",
    "tab",
    "python-tag",
    "too-many-shots",
    "domain",
    "latin-1",
}


@pytest.mark.parametrize("arguments, told", [
    (("run", "key-top.yaml"), "error: key-top.yaml:4: shotz: unknown key"),
    (("run", "scenario.yaml", "--set", "optimiser.lr=-1"), "error: --set optimiser.lr=-1: must be greater than 0"),
    (("run", "strategy.yaml"), "error: strategy.yaml:3: adapter: this is a strategy, a scenario is expected here"),
    (("run", "scenario.yaml", "--set", "shots=5"), "error: --set shots=5: 5 shots a class"),
])  # fmt: skip
def test_run_refuses_before_anything_heavy_or_written(arguments, told, folder):
    for kind, text in TEXTS.items():
        write(folder, kind, text)
    write(folder, "key-top", SCENARIO.replace("shots: 2", "shotz: 2"))
    before = sorted(folder.rglob("*"))
    done, seconds, modules = cli(folder, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(told) and all(
        line.startswith("error: ") for line in done.stderr.splitlines()
    )
    assert sorted(folder.rglob("*")) == before
    assert modules == [] and seconds < 3


def test_help_is_quick(tmp_path):
    done, seconds, modules = cli(tmp_path, "--help")
    assert done.returncode == 0 and "check" in done.stdout
    assert modules == [] and seconds < 3


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
