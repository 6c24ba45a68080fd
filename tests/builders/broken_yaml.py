"""Broken scenario and strategy files, and what is told of each: settings that clash, YAML, files, data."""

from __future__ import annotations

from builders.broken_configs import KEYS, TYPES, VALUES, S, T, changed, whole
from builders.configs import SCENARIO, STRATEGY
from cl_complora.config.yaml_lines import MAX_BYTES


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


NONE = (
    "  kind: lowrank\n  rank: 8\n  matrices: [q, k, v]\n  subspace:\n    select: complement\n    keep:"
    " {energy: 0.5}\n"
)


TOGETHER = [
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
        (9, "adapter.subspace.form", "projector works with select: complement, not top"),
    ),
    changed(
        T, "anywhere", "select: complement", "select: none\n    sides: in",
        (10, "adapter.subspace.keep", "has no effect (nor has sides) with select: none"),
    ),
    changed(
        T, "joint", "{steps: 80}", "{steps: 80, stream: joint}",
        (13, "memory", "no effect with training.stream: joint, which trains once and has no earlier tasks"),
    ),
    whole(
        T, "untrained",
        "name: x\nadapter: {kind: none}\nschedule: {warmup: 0.1}\ntraining: {steps: 5, compile: false}\n",
        (3, "schedule", "has no effect with adapter kind none, which trains nothing"),
        (4, "training.steps", "has no effect with adapter kind none"),
        (4, "training.compile", "has no effect with adapter kind none"),
    ),
    changed(
        S, "embedded-weights", "name: mine", "name: mine\nmodel: {pretrained: openai}",
        (3, "model.pretrained", "the embedded model brings its own weights"),
    ),
    changed(
        S, "measure", "shots: 2", "shots: 2\nmeasure: validation",
        (5, "measure", "validation needs validation_shots of at least 1"),
    ),
]  # fmt: skip


SWEEPS = [
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
    changed(
        T, "sweep-scalar", "[5e-4, 1e-3]", "1e-3",
        (19, "sweep.optimiser.lr", "must be a list, got 0.001"),
    ),
    changed(
        T, "sweep-text", "[5e-4, 1e-3]", "[a]",
        (19, "sweep.optimiser.lr[0]", "must be a number, got 'a'"),
    ),
    changed(
        T, "sweep-nan", "[5e-4, 1e-3]", "[.nan]",
        (19, "sweep.optimiser.lr[0]", "must be a finite number"),
    ),
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
]  # fmt: skip


YAML = [
    changed(T, "tab", "  rank: 8", "\trank: 8", (5, "not valid YAML: a tab")),
    changed(
        T, "bracket", "[q, k, v]", "[q, k, v",
        (6, "not valid YAML", "closing ']' is missing, noticed in line 7"),
    ),
    changed(
        S, "bracket-last", "[0, 1]", "[0, 1",
        (19, "not valid YAML: this bracket is never closed: ']' is missing"),
    ),
    changed(T, "brace", "{steps: 80}", "{steps: 80", (17, "not valid YAML", "closing '}' is missing")),
    changed(
        S, "quote", "seeds: [0, 1]", 'description: "x',
        (19, "not valid YAML: this quote is never closed"),
    ),
    changed(S, "colon", "name: mine", "name: mine: yours", (2, "not valid YAML: a second ':'")),
    changed(T, "indent-more", "  rank: 8", "   rank: 8", (5, "not valid YAML", "correct the indentation")),
    changed(T, "indent-less", "  rank: 8", " rank: 8", (5, "not valid YAML", "check indentation")),
    changed(
        T, "equals-sign", "  rank: 8", "  rank = 8",
        (5, "not valid YAML: expected 'key: value', found no ':'"),
    ),
    changed(
        T, "list-in-section", "  kind: lowrank", "  - kind: lowrank",
        (5, "not valid YAML", "begins in line 4"),
    ),
    changed(
        S, "bare-prompt", '["a photo of a {}."]', "[a photo of a {}.]",
        (5, "not valid YAML", "needs quotes"),
    ),
    changed(S, "backslash", "a photo of a {}.", "C:\\Users\\{}", (5, "not valid YAML", "use single quotes")),
    changed(
        S, "no-character", "name: mine", 'name: "\\U00FFFFFF"',
        (2, "not valid YAML", "stands for no character"),
    ),
    changed(
        S, "surrogate", "name: mine", 'name: mine\ndescription: "\\ud800"',
        (3, "description", "lone surrogate"),
    ),
    changed(S, "control", "name: mine", "name: mi\x01ne", (2, "not valid YAML: the character U+0001")),
    changed(S, "percent", "name: mine", "name: %mine", (2, "not valid YAML", "starts with '%' needs quotes")),
    changed(
        S, "no-anchor", "name: mine", "name: *mine",
        (2, "not valid YAML", "alias *mine has no anchor &mine"),
    ),
    changed(S, "no-value", "seeds: [0, 1]", "seeds: }", (19, "not valid YAML", "value is missing")),
    whole(S, "two-documents", SCENARIO + "---\nname: x\n", (20, "not valid YAML: a second document")),
    changed(
        S, "python-tag", "name: mine", "name: !!python/object/apply:os.system ['touch pwned']",
        (2, "name", "the tag !!python/object/apply:os.system is not allowed"),
    ),
    changed(S, "local-tag", "name: mine", "name: !foo x", (2, "name", "the tag !foo is not allowed")),
    changed(
        T, "int-tag", "rank: 8", "rank: !!int x",
        (5, "adapter.rank", "must be a whole number", "got 'x'"),
    ),
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
]  # fmt: skip


FILES = [
    whole(S, "empty", "", (1, "a scenario file must hold a mapping (key: value), the file is empty")),
    whole(
        T, "comment-only", "# x\n\n",
        (1, "a strategy file must hold a mapping (key: value), the file is empty"),
    ),
    whole(S, "list", "# x\n- a\n- b\n", (2, "a scenario file must hold a mapping (key: value), got a list")),
    whole(
        S, "scalar", "hello\n",
        (1, "a scenario file must hold a mapping (key: value), got a single value"),
    ),
    whole(S, "binary", b"\x89PNG\r\n\x1a\n\0\0\xff", (3, "must be text in UTF-8", "binary")),
    whole(S, "utf-16", SCENARIO.encode("utf-16"), (1, "must be text in UTF-8, this is UTF-16")),
    whole(
        S, "latin-1", "name: x\ndescription: café\n".encode("latin-1"),
        (2, "must be text in UTF-8, got the byte 0xe9"),
    ),
    whole(S, "huge", "a: 1\n" * MAX_BYTES, (None, f"at most {MAX_BYTES} bytes")),
    whole(
        S, "crlf", SCENARIO.replace("shots", "shotz").replace("\n", "\r\n"),
        (4, "shotz", "did you mean 'shots'?"),
    ),
    whole(
        S, "is-a-strategy", STRATEGY,
        (3, "adapter", "this is a strategy, a scenario is expected here", "--strategy"),
    ),
    whole(T, "is-a-scenario", SCENARIO, (3, "protocol", "this is a scenario, a strategy is expected here")),
]  # fmt: skip


DATA = [
    changed(
        S, "too-many-shots", "shots: 2", "shots: 5",
        (4, "shots", "5 shots a class, but class 'cat' of task 'a' has 4 training images"),
        (4, "shots", "task 'b'"),
    ),
    changed(
        S, "no-folder", "root: animals}", "root: nowhere}",
        (9, "tasks[0].source", "nowhere: there is no such folder"),
    ),
    changed(
        S, "file-not-folder", "root: animals}", "root: afile}",
        (9, "tasks[0].source", "is a file, not a folder"),
    ),
    changed(
        S, "empty-folder", "root: animals}", "root: hollow}",
        (9, "tasks[0].source", "holds no class folders"),
    ),
    changed(
        S, "newline-folder", "root: animals}", 'root: "a\\nb"}',
        (9, "tasks[0].source", r"a\nb: there is no such"),
    ),
    changed(
        S, "no-home", "root: animals}", "root: ~nobodyatall/x}",
        (9, "tasks[0].source.root", "~ stands for"),
    ),
    changed(
        S, "class", "class_range: [0, 2]", "classes: [cat, dgo]",
        (14, "tasks[1].classes", "no class 'dgo'", "'dog'"),
    ),
    changed(
        S, "range-end", "[0, 2]", "[0, 9]",
        (14, "tasks[1].class_range", "ends at 9, but the source has 3 classes"),
    ),
    changed(
        S, "classes-differ", "task-incr", "domain-incr",
        (10, "tasks[1]", "domain-incremental", "differ in 'dog'"),
    ),
    changed(
        S, "domain", "domain: general", "domain: generel",
        (17, "zero_shot[0].source", "did you mean 'general'?"),
    ),
]  # fmt: skip


# Name by name, in the order in which a reader of the file would meet them.
BAD = [*KEYS, *TYPES, *VALUES, *TOGETHER, *SWEEPS, *YAML, *FILES, *DATA]
