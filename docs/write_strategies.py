"""Writes strategies.md, the table of all shipped strategies, from their YAML. Run: python docs/write_strategies.py
[FILE]"""

import sys
from pathlib import Path

from cl_complora.config.about import CHECKED, KINDS, About, Published
from cl_complora.config.catalog import shipped
from cl_complora.config.overview import Entry, entries

OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "strategies.md"

TOP = """\
# Strategies

Every strategy that ships with the package, kind by kind. `cl-complora list strategies` shows the same in a terminal. This
page is written by `docs/write_strategies.py` from the files in [strategies/](../strategies): change those, not this. How a
file says what stands here: the section `about`, in [config/about.py](../cl_complora/config/about.py), which
changes no run and which files of your own may have or leave out.

**Trains** follows from the settings: factors of a rank in each of the named matrices (all matrices: q, k, v, o and both
of the MLP), in both towers unless one is named, and what is trained beside them.

**Checked** says what a strategy was held against, with the test that does it; what the check covers, where that is not
all, stands in brackets.

"""
BETWEEN = """
**Published** are accuracies in % from the tables of others, with CLIP ViT-B/16: not ours, and often with another rank,
rate or number of steps than in our file, whose comment says so. MTIL gives every test its own list of classes, X-TAIL
has one for all; figures of different protocols, orders or shots cannot be compared.

"""


def cell(text: str) -> str:
    return text.replace("|", "\\|") or "–"


def check(about: About) -> str:
    scope = f" ({about.scope})" if about.scope else ""
    if about.test is None:
        return about.checked + scope
    file, _, _ = about.test.partition("::")
    return f"[{about.checked}](../{file}){scope}"


def figures(published: Published) -> str:
    named = ", ".join(f"{name} {value:g}" for name, value in published.figures.items())
    return f"{published.benchmark}: {named} ({published.source})"


def row(entry: Entry) -> str:
    about = entry.about
    link = f"[{entry.name}](../strategies/{shipped('strategy')[entry.name].name})"
    published = "; ".join(map(figures, about.published))
    source = (about.source or "").replace("; ", "<br>", 1)
    cells = (link, entry.title, entry.summary, source, entry.trained, check(about), published)
    return f"| {' | '.join(map(cell, cells))} |"


def page() -> str:
    listed = entries()
    kept = [name for name in CHECKED if any(entry.checked == name for entry in listed)]
    meanings = "".join(f"* **{name}**: {CHECKED[name]}\n" for name in kept)
    kinds = [(title, sum(entry.kind == kind for entry in listed)) for kind, title in KINDS.items()]
    counted = f"\n{len(listed)} strategies: {', '.join(f'{n} {title}' for title, n in kinds)}.\n\n"
    head = "| strategy | kind | what it is | source | trains | checked | published |\n|---|---|---|---|---|---|---|\n"
    return TOP + meanings + BETWEEN.rstrip("\n") + "\n" + counted + head + "\n".join(map(row, listed)) + "\n"


OUT.write_text(page(), encoding="utf-8")
