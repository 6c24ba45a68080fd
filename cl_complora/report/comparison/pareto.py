"""The trade between learning and keeping, as a picture."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...files import write_bytes
from .tables import Content, front, kept, methods_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pareto(found: Content, path: Path) -> None:
    """Save :func:`pareto_figure` as a PNG file."""
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    pareto_figure(found, Figure).savefig(buffer, format="png", dpi=110)
    write_bytes(path, buffer.getvalue())


def pareto_figure(found: Content, kind: type[Figure]) -> Figure:
    """Last against retention: left the whole sweep with every method's front, right the tested settings.

    Args:
        found: content of comparison.json.
        kind: class of the figure.
    """
    swept = any(m["curve"] for m in methods_of(found))
    figure = kind(figsize=(13 if swept else 8, 5.5), layout="constrained")
    axes = figure.subplots(1, 2 if swept else 1, squeeze=False)[0]
    for index, m in enumerate(methods_of(found)):
        style = {"color": f"C{index % 10}", "marker": "osD^vPX*<>"[(index // 10 + index) % 10]}
        points = [
            (p["retention"], p["last"])
            for p in m["curve"]
            if p["error"] is None and math.isfinite(kept(p["retention"]))
        ]
        if points:
            axes[0].scatter(*zip(*points, strict=True), s=18, alpha=0.6, **style)
            axes[0].plot(*zip(*front(points), strict=True), color=style["color"], lw=1)
        retention, last = m["figures"].get("retention", []), m["figures"].get("last", [])
        if last and np.isfinite(retention).all():
            x, y = np.mean(retention), np.mean(last)
            spread = [np.std(v, ddof=1) if len(v) > 1 else 0.0 for v in (retention, last)]
            axes[-1].errorbar(x, y, xerr=spread[0], yerr=spread[1], ms=7, lw=1, label=m["name"], **style)
    seeds = len(found["request"]["seeds"])
    if swept:
        axes[0].set_title("every swept value, on validation shots")
    axes[-1].set_title(f"chosen settings, on test images, {seeds} {'seed' if seeds == 1 else 'seeds'}")
    for axis in axes:
        axis.set_xlabel("retention: points of zero-shot accuracy after the stream")
        axis.set_ylabel("Last: mean accuracy after the last task, %")
        axis.grid(alpha=0.3)
    if axes[-1].get_legend_handles_labels()[0]:
        figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.suptitle(found["scenario"])
    return figure
