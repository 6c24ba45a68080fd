"""The numbers of a run as text: what no smoothing, no clipped axis and no rounding picture changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..elements import NOTHING
from ..markdown_text import escaped

_NOTE = (
    "Accuracy in percent: a row is a state of the model, a column a task; bold: just trained. Curves under"
    " Scalars and Time Series are smoothed unless Smoothing there is 0 (cl-complora tensorboard prints an"
    " address that sets it); the numbers here are exact."
)
_POINTS = ("forgetting", "bwt")


def numbers_text(
    rows: Sequence[Sequence[float]],
    zero_shot: Sequence[Mapping[str, float]],
    tasks: Sequence[str],
    learned: Sequence[int],
    headlines: Mapping[str, float],
    retention: Mapping[str, float],
    captioned: Sequence[str] = (),
) -> str:
    """Headlines and accuracy matrix as Markdown.

    Args:
        rows: ``(t+1, T)`` fractions, the untouched model first.
        zero_shot: for every row, set → fraction.
        tasks: T names.
        learned: the row that each task was learned in.
        headlines: metric → fraction, of the tasks learned so far.
        retention: zero-shot set → points.
        captioned: tasks whose share is R@1.
    """
    sets = list(zero_shot[0]) if zero_shot else []
    columns = [f"{escaped(name)} (R@1)" if name in captioned else escaped(name) for name in tasks]
    head = ["after", *columns, *(f"{escaped(name)} (zero-shot)" for name in sets)]
    lines = [f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
    for index, (row, held_out) in enumerate(zip(rows, zero_shot, strict=True)):
        cells = [
            f"**{_percent(value)}**" if own == index else _percent(value)
            for value, own in zip(row, learned, strict=True)
        ]
        cells += [_percent(held_out[name]) for name in sets]
        lines.append(f"| {escaped(tasks[index - 1]) if index else 'untouched'} | {' | '.join(cells)} |")
    told = [
        f"{name} {_percent(value)} {'points' if name in _POINTS else '%'}"
        for name, value in headlines.items()
        if math.isfinite(value)
    ]
    if len(zero_shot) > 1:
        told += [
            f"retention {escaped(name)} {value:+.2f} points"
            for name, value in retention.items()
            if math.isfinite(value)
        ]
    return "\n".join([*([", ".join(told), ""] if told else []), *lines, "", _NOTE])


def _percent(value: float) -> str:
    return f"{100 * value:.2f}" if value is not None and math.isfinite(value) else NOTHING
