"""Broken scenario and strategy files, and what is told of each: keys, types, values."""

from __future__ import annotations

from dataclasses import dataclass

from builders.configs import SCENARIO, TEXTS


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


S, T = "scenario", "strategy"


KEYS = [
    changed(
        S, "key-top", "shots: 2", "shotz: 2",
        (4, "shotz", "unknown key", "did you mean 'shots'?", "allowed: name,"),
    ),
    changed(T, "key-top-t", "training:", "trainning:", (17, "trainning", "did you mean 'training'?")),
    changed(
        T, "key-spelling", "optimiser:\n", "optimizer:\n",
        (14, "optimizer", "did you mean 'optimiser'?"),
    ),
    changed(T, "key-adapter", "adapter:", "adaptor:", (3, "adaptor", "did you mean 'adapter'?")),
    changed(
        S, "key-task", "    class_range", "    class_rnge",
        (14, "tasks[1].class_rnge", "did you mean 'class_range'?"),
    ),
    changed(
        S, "key-source", "      root:", "      rooot:",
        (13, "tasks[1].source.rooot", "did you mean 'root'?"),
    ),
    changed(
        S, "key-augment", "flip", "flop",
        (6, "augment.flop", "did you mean 'flip'?", "allowed: crop, flip"),
    ),
    changed(
        S, "key-zero-shot", "    images", "    image",
        (18, "zero_shot[0].image", "did you mean 'images'?"),
    ),
    changed(
        T, "key-subspace", "    select", "    selct",
        (8, "adapter.subspace.selct", "did you mean 'select'?"),
    ),
    changed(
        T, "key-keep", "energy", "enrgy",
        (9, "adapter.subspace.keep.enrgy", "did you mean 'energy'?", "allowed: energy, fraction, number"),
    ),
    changed(
        T, "key-regulariser", "    strength", "    strenght",
        (12, "regularisers[0].strenght", "did you mean 'strength'?", "allowed: kind, strength, online"),
    ),
    changed(T, "key-case", "  rank", "  Rank", (5, "adapter.Rank", "did you mean 'rank'?")),
    changed(
        T, "key-elsewhere", "name: mine", "name: mine\nlr: 1",
        (3, "lr", "it belongs in head or optimiser; allowed"),
    ),
    changed(
        S, "key-deeper", "name: mine", "name: mine\ndomain: x",
        (3, "domain", "it belongs in tasks[…].source"),
    ),
    changed(
        S, "key-other-kind", "      root: animals", "      root: animals\n      domain: x",
        (14, "tasks[1].source.domain", "it belongs to kind: world", "allowed: "),
    ),
    changed(S, "key-number", "name: mine", "name: mine\n1: 2", (3, "1", "unknown key")),
    changed(
        S, "key-control", "name: mine", 'name: mine\n"a\\nb\\e[31m": 2',
        (3, r"a\nb\x1b[31m", "unknown key"),
    ),
    changed(
        T, "key-twice", "  rank: 8", "  rank: 8\n  rank: 9",
        (6, "adapter.rank", "stands twice", "first in line 5"),
    ),
    whole(S, "key-complex", "? [a, b]\n: 1\n", (1, "a key must be plain text")),
    changed(S, "missing-name", "name: mine\n", "", (2, "name", "this key is missing")),
    changed(
        S, "missing-source", "    source: {kind: folder, root: animals}\n", "",
        (8, "tasks[0].source", "missing"),
    ),
    changed(T, "missing-lr", "  lr: 1e-3\n", "", (14, "optimiser.lr", "this key is missing")),
    whole(S, "missing-tasks", "name: mine\nseeds: [1]\n", (1, "tasks", "this key is missing")),
    whole(
        T, "missing-much", "training: {}\n",
        (1, "name", "this key is missing"), (1, "adapter", "this key is missing"),
    ),
]  # fmt: skip


TYPES = [
    changed(
        T, "number-quoted", "rank: 8", "rank: '8'",
        (5, "adapter.rank", "must be a whole number, got '8'; write it without quotes"),
    ),
    changed(
        T, "number-bool", "rank: 8", "rank: true",
        (5, "adapter.rank", "must be a whole number, got true"),
    ),
    changed(T, "number-null", "rank: 8", "rank:", (5, "adapter.rank", "must be a whole number, got nothing")),
    changed(T, "number-list", "rank: 8", "rank: [8]", (5, "adapter.rank", "must be a whole number, got [8]")),
    changed(
        T, "number-section", "rank: 8", "rank: {a: 1}",
        (5, "adapter.rank", "a whole number, got a section"),
    ),
    changed(
        T, "number-float", "rank: 8", "rank: 8.0",
        (5, "adapter.rank", "must be a whole number, got 8.0"),
    ),
    changed(T, "number-1.1", "steps: 80", "steps: 1:30", (17, "training.steps", "got '1:30'")),
    changed(T, "lr-text", "lr: 1e-3", "lr: small", (16, "optimiser.lr", "must be a number, got 'small'")),
    changed(
        T, "lr-quoted", "lr: 1e-3", "lr: '1e-3'",
        (16, "optimiser.lr", "got '1e-3'; write it without quotes"),
    ),
    changed(T, "lr-nan", "lr: 1e-3", "lr: .nan", (16, "optimiser.lr", "must be a finite number, got nan")),
    changed(T, "lr-inf", "lr: 1e-3", "lr: .inf", (16, "optimiser.lr", "must be a finite number, got inf")),
    changed(T, "lr-1e999", "lr: 1e-3", "lr: 1e999", (16, "optimiser.lr", "must be a finite number, got inf")),
    changed(T, "lr-nan-text", "lr: 1e-3", "lr: nan", (16, "optimiser.lr", "must be a number, got 'nan'")),
    changed(
        T, "lr-huge", "lr: 1e-3", "lr: " + "9" * 400,
        (16, "optimiser.lr", "must be a finite number, got 999"),
    ),
    changed(
        T, "lr-5000-digits", "lr: 1e-3", "lr: " + "9" * 5000,
        (16, "optimiser.lr", "at most 4300 digits, got '99"),
    ),
    changed(
        S, "bool-yes", "flip: false", "flip: yes",
        (6, "augment.flip", "must be true or false, got 'yes'"),
    ),
    changed(
        S, "bool-quoted", "flip: false", "flip: 'false'",
        (6, "augment.flip", "got 'false'; write it without quotes"),
    ),
    changed(S, "bool-number", "flip: false", "flip: 0", (6, "augment.flip", "must be true or false, got 0")),
    changed(
        S, "text-number", "name: mine", "name: 5",
        (2, "name", "must be text, got 5; write it in quotes"),
    ),
    changed(
        S, "text-numbers", "class_range: [0, 2]", "classes: [1, 2.5]",
        (14, "tasks[1].classes[0]", "must be text, got 1"),
        (14, "tasks[1].classes[1]", "must be text, got 2.5"),
    ),
    changed(S, "list-scalar", '["a photo of a {}."]', "a {}", (5, "prompts", "must be a list, got 'a {}'")),
    changed(
        T, "section-scalar", "{steps: 80}", "80",
        (17, "training", "must be a section (key: value), got 80"),
    ),
    changed(
        T, "section-list", "{steps: 80}", "[80]",
        (17, "training", "must be a section (key: value), got [80]"),
    ),
    changed(
        S, "source-scalar", "{kind: folder, root: animals}", "animals",
        (9, "tasks[0].source", "must be a section"),
    ),
    whole(
        S, "tasks-null", SCENARIO[: SCENARIO.index("  - name: a")],
        (7, "tasks", "must be a list, got nothing"),
    ),
    whole(S, "tasks-empty", "name: x\ntasks: []\n", (2, "tasks", "must not be empty, got []")),
]  # fmt: skip


VALUES = [
    changed(T, "rank-0", "rank: 8", "rank: 0", (5, "adapter.rank", "must be at least 1, got 0")),
    changed(
        T, "rank-huge", "rank: 8", "rank: 9999999999999999999999",
        (5, "adapter.rank", "must be at most 1000000000"),
    ),
    changed(
        T, "lr-negative", "lr: 1e-3", "lr: -1e-3",
        (16, "optimiser.lr", "must be greater than 0, got -0.001"),
    ),
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
        (
            3, "protocol",
            "'class-incremental' or 'domain-incremental', got 'task-incremetal'; did you mean 'task-incr",
        ),
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
        (
            9, "tasks[0].source.kind",
            "'parquet', 'huggingface', 'dataset' or 'captions', got 'foldr'; did you mean 'folder'?",
        ),
    ),
    changed(
        S, "source-kind-missing", "kind: folder, root", "root",
        (
            9, "tasks[0].source.kind",
            "this key is missing; must be 'world', 'folder', 'manifest', 'coop', 'shards', ",
        ),
    ),
    changed(
        S, "source-kind-list", "{kind: folder, root", "{kind: [folder], root",
        (9, "tasks[0].source.kind", "['folder']"),
    ),
    changed(
        T, "regulariser", "kind: ewc", "kind: ewcc",
        (11, "regularisers[0].kind", "'ewc', 'lwf', 'l2-init', 'reference'", "mean"),
    ),
    changed(
        T, "regulariser-twice", "memory:", "  - kind: ewc\n    strength: 5\nmemory:",
        (13, "regularisers[1].kind", "'ewc' stands twice"),
    ),
    changed(
        T, "keep-both", "energy: 0.5", "energy: 0.5, fraction: 0.2",
        (
            9, "adapter.subspace.keep.fraction",
            "exactly one of energy, fraction, number, got energy and fraction",
        ),
    ),
    changed(
        T, "keep-none", "{energy: 0.5}", "{}",
        (9, "adapter.subspace.keep", "exactly one of", "got none of them"),
    ),
    changed(
        S, "name-twice", "name: b", "name: a",
        (10, "tasks[1].name", "'a' is already the name of tasks[0]"),
    ),
    changed(
        S, "name-case", "name: b", "name: A",
        (10, "tasks[1].name", "'A' is already", "but for case or spaces"),
    ),
    changed(
        S, "name-zero-shot", "name: z", "name: a",
        (16, "zero_shot[0].name", "'a' is already the name of tasks[0]"),
    ),
    whole(
        S, "name-file", SCENARIO.replace("name: a", "name: x y").replace("name: b", "name: X-y"),
        (10, "tasks[1].name"),
    ),
    changed(S, "name-folder", "name: mine", "name: ../x", (2, "name", "1 to 64 letters", "got '../x'")),
    changed(
        S, "prompt-none", "a photo of a {}.", "a photo",
        (5, "prompts[0]", "must hold {} once", "got 'a photo'"),
    ),
    changed(
        S, "prompt-two", "a photo of a {}.", "{} and {}",
        (5, "prompts[0]", "must hold {} once", "got '{} and {}'"),
    ),
    changed(S, "prompt-named", "a photo of a {}.", "a {name}", (5, "prompts[0]", "must hold {} once")),
    changed(
        S, "crop", "[0.7, 1.0]", "[1.0, 0.7]",
        (6, "augment.crop", "0 < smallest ≤ largest ≤ 1, got [1.0, 0.7]"),
    ),
    changed(
        S, "crop-three", "[0.7, 1.0]", "[0, 0.7, 1]",
        (6, "augment.crop", "at most 2 entries, got [0, 0.7, 1]"),
    ),
    changed(S, "range-empty", "[0, 2]", "[2, 2]", (14, "tasks[1].class_range", "first < end", "got [2, 2]")),
    changed(
        S, "range-negative", "[0, 2]", "[-1, 2]",
        (14, "tasks[1].class_range[0]", "must be at least 0, got -1"),
    ),
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
        *[(19, f"seeds[{i}]", "must be a whole number, got 'x'") for i in range(20)],
        (None, "there are more faults"),
    ),
]  # fmt: skip
