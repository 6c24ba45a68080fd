"""Writes strategies.md, the table of all shipped strategies, from their YAML. Run: python
docs/write_strategies.py [FILE]"""

from written_pages import output, prose, table

from cl_complora.config.about import CHECKED, KINDS, About, Published
from cl_complora.config.catalog import shipped
from cl_complora.config.overview import Entry, entries

HEAD = ("strategy", "kind", "what it is", "source", "trains", "checked", "published")
# Paragraphs are wrapped below.
PAGE = """\
# Strategies

All {number} strategies that ship with the package: {kinds}. `cl-complora list strategies` shows the same in
a terminal.

This page is written by `docs/write_strategies.py` from the files in [strategies/](../strategies): change
those, not this. What stands here is their section `about`
([config/about.py](../cl_complora/config/about.py)), which no run depends on and which a file
of your own may leave out.

**Trains** follows from the settings: factors of a rank in each of the named matrices (all matrices: q, k, v,
o and both of the MLP) of both towers, unless one tower is named, and what is trained beside them.

**Checked** says what a strategy was held against and links to the test; what the check covers, where that is
not all of the method, stands in brackets.

{meanings}

**Published** are accuracies in % with CLIP ViT-B/16 from the tables of others: not ours, and often with
another rank, rate or number of steps than in our file, whose comment says so. MTIL gives every test its own
list of classes, X-TAIL has one list for all: figures of different benchmarks cannot be compared.

**Not here** is what adds no update to the weights: every strategy above ends a task with W ← W + ΔW, or with
a head on top, which is what is stored, exported, scaled and left out. MoRAM (ICML 2026, arXiv 2506.21035; its
code, Artificer-AI-Lab/MoRAM 05c3d61, was read) keeps every task's experts of rank 1 beside the weights, and
each token weighs them anew by its own products with them, at test time as well, so that no ΔW computes what
it does. Methods that route by task or image (MoE-Adapters, DIKI) are left out for the same reason.

"""


def check(about: About) -> str:
    scope = f" ({about.scope})" if about.scope else ""
    if about.test is None:
        return about.checked + scope
    file, _, _ = about.test.partition("::")
    return f"[{about.checked}](../{file}){scope}"


def figures(published: Published) -> str:
    named = ", ".join(f"{name} {value:g}" for name, value in published.figures.items())
    return f"{published.benchmark}: {named} ({published.source})"


def row(entry: Entry) -> tuple[str, ...]:
    about = entry.about
    link = f"[{entry.name}](../strategies/{shipped('strategy')[entry.name].name})"
    published = "; ".join(map(figures, about.published))
    source = (about.source or "").replace("; ", "<br>", 1)
    return link, entry.title, entry.summary, source, entry.trained, check(about), published


def page() -> str:
    listed = entries()
    kinds = {title: sum(entry.kind == kind for entry in listed) for kind, title in KINDS.items()}
    used = [name for name in CHECKED if any(entry.checked == name for entry in listed)]
    text = PAGE.format(
        number=len(listed),
        kinds=", ".join(f"{title} ({number})" for title, number in kinds.items()),
        meanings="\n\n".join(f"* **{name}**: {CHECKED[name]}" for name in used),
    )
    return f"{prose(text)}\n\n{table(HEAD, map(row, listed))}\n"


output("strategies.md").write_text(page(), encoding="utf-8")
