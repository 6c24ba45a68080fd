"""A comparison's main table for a paper: booktabs, a caption, arrows, the best figure of a column in bold."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..elements import Cell
from .tables import BEST, CHOSEN, LOWER_IS_BETTER, METRICS, Content, methods_of, tables

_WORDS = {"‖ΔW‖": r"$\|\Delta W\|$"}
_CHARACTERS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "±": r"$\pm$",
    "–": "--",
    "→": r"$\to$",
    "≥": r"$\geq$",
    "−": "$-$",
    "%": r"\%",
    "_": r"\_",
    "&": r"\&",
    "#": r"\#",
}
_SPECIAL = re.compile("|".join(map(re.escape, (*_WORDS, *_CHARACTERS))))
# A sign before a number, not a hyphen within a name.
_SIGN = re.compile(r"(?<![\w.])([-+])(?=\d)")


def latex(rows: Sequence[Sequence[str]]) -> str:
    """A booktabs ``tabular`` of rows of text, the heads first."""
    return _tabular([[escaped(cell) for cell in row] for row in rows])


def latex_table(found: Content) -> str:
    """The table of accuracies as a whole ``table`` with caption and label; it needs ``booktabs``.

    Args:
        found: content of comparison.json.
    """
    made = tables(found)["Accuracy"]
    heads = [_head(name) for name in made.head]
    body = [[_cell(cell) for cell in row] for row in made.rows]
    seeds = len(found["request"]["seeds"])
    spread = f"mean $\\pm$ standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    name = escaped(str(found["scenario"]))
    caption = (
        f"{len(methods_of(found))} methods on \\texttt{{{name}}}: accuracies in \\%, forgetting and retention"
        f" in points, {spread}. The best mean of a column is bold."
    )
    label = re.sub(r"[^A-Za-z0-9-]+", "-", str(found["scenario"])).strip("-")
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\label{{tab:{label}}}",
            _tabular([heads, *body], texts=2 if CHOSEN in made.head else 1).rstrip("\n"),
            r"\end{table}",
            "",
        ]
    )


def escaped(text: str) -> str:
    """A text as LaTeX shows it."""
    signed = _SIGN.sub(lambda found: "−" if found[1] == "-" else "+", text)
    return _SPECIAL.sub(lambda found: (_WORDS | _CHARACTERS)[found[0]], signed)


def _head(name: str) -> str:
    metric = next((key for key, title in METRICS.items() if title == name), None)
    if metric is None:
        return escaped(name)
    arrow = r"\downarrow" if metric in LOWER_IS_BETTER else r"\uparrow"
    return f"{escaped(name)} ${arrow}$"


def _cell(cell: Cell) -> str:
    mean, between, spread = cell.text.partition(" ± ")
    if cell.mark != BEST:
        return escaped(cell.text)
    return rf"\textbf{{{escaped(mean)}}}{escaped(between + spread)}"


def _tabular(rows: Sequence[Sequence[str]], texts: int = 2) -> str:
    head, *body = [" & ".join(row) + r" \\" for row in rows]
    columns = "l" * texts + "r" * (len(rows[0]) - texts)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])
