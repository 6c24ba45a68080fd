"""The part of a run's report on its weights: how far, where to and how much against one another they
moved."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...clip.matrix_names import Place, kinds_in_order, place_of
from ...store.loaded_run import LoadedRun
from ..elements import Cell, Choice, Figure, Fold, Table, Text, number
from ..heat_map import only_rounding, shaded, share_scale, similarity_scale
from . import figures

# Maps that are offered at once; the rest is folded.
MOST_MAPS = 3
# Measures of one matrix after one task, as the record (recorded in training) and analysis/ (made afterwards)
# name them.
Values = dict[str, Any]


@dataclass(frozen=True)
class _Measure:
    """Something that is known of every matrix: its name, how it is read, the format of its numbers, and
    whether it is a share (0 nothing, 1 all)."""

    name: str
    read: Callable[[Values], Any]
    digits: str
    share: bool = False


def _overlap(values: Values) -> float | None:
    return max(_overlaps_with(values).values(), default=None)


def _overlaps_with(values: Values) -> dict[str, float]:
    """Earlier task → overlap of a matrix's update with its."""
    told = values.get("overlap_with")
    return {old: v for old, v in told.items() if _is_number(v)} if isinstance(told, dict) else {}


_MEASURES = (
    _Measure("‖ΔW‖", lambda v: v.get("delta_norm"), ".2g"),
    _Measure("‖ΔW‖ / ‖W‖", lambda v: v.get("relative_norm"), ".2g"),
    _Measure("share that touches the principal subspaces", lambda v: v.get("principal_overlap"), ".2g", True),
    _Measure("largest overlap with an earlier update", _overlap, ".2g", True),
    _Measure("drift of the principal subspaces", lambda v: v.get("drift"), ".2g", True),
    _Measure("rank k that the method keeps", lambda v: v.get("kept_rank", v.get("k")), ".0f"),
    _Measure("rank of half the energy", lambda v: v.get("principal_rank"), ".0f"),
    _Measure("effective rank of the update", lambda v: v.get("update_rank"), ".3g"),
    _Measure("effective rank of the weights", lambda v: v.get("effective_rank"), ".3g"),
    _Measure("change of the protected part", lambda v: v.get("protected_overlap"), ".1e", True),
)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def moved_weights(run: LoadedRun) -> list:
    """Maps of the measures by layer and kind, every number as a table, overlaps of the tasks and drift of
    features."""
    places = [
        _by_place(record or {}, analysis)
        for record, analysis in zip(run.records[1:], run.analyses, strict=True)
    ]
    tasks = run.tasks[: run.trained]
    known = [m for m in _MEASURES if any(_is_number(m.read(v)) for found in places for v in found.values())]
    blocks: list = []
    whole = _whole(tasks, places)
    blocks += [table for table in (whole, _words(run)) if table is not None]
    nothing = {m.name: v for m in known if m.share and only_rounding(v := _values(m, places))}
    drawn = {
        m.name: f
        for m in known
        if m.name not in nothing and (f := _map(m, tasks, places, f"map-{_MEASURES.index(m)}")) is not None
    }
    if drawn:
        note = (
            "A column of maps per task, a row per tower; in every map a row per layer and a column per kind"
            " of matrix (q, k, v, o: attention; fc, proj: the two of the MLP). Empty where a matrix was not"
            " trained, or nothing of its training kept. Energy: the sum of the squared singular values."
            " Principal: the directions that hold half of it. Effective rank: how many singular values of one"
            " size would be as spread out (the exponential of their entropy)."
            " Protected part: ‖(W + ΔW) Vₖ − Uₖ Σₖ‖ / ‖W‖."
        )
        names = list(drawn)
        blocks.append(Choice("What to show", {name: drawn[name] for name in names[:MOST_MAPS]}, note))
        if len(names) > MOST_MAPS:
            rest = {name: drawn[name] for name in names[MOST_MAPS:]}
            blocks.append(Fold(f"More maps: {', '.join(rest)}", [Choice("What to show", rest)]))
    if nothing:
        told = "; ".join(f"{name} (at most {max(values):.0e})" for name, values in nothing.items())
        blocks.append(Text([f"None beyond rounding, and not drawn: {told}."]))
    if known:
        blocks.append(Fold("Numbers of every matrix, means over the tasks", [_table(known, places)]))
    blocks += [table for table in (_overlaps(run, places), _drift(run)) if table is not None]
    return blocks


def _values(measure: _Measure, places: list[dict[Place, Values]]) -> list[float]:
    return [v for found in places for values in found.values() if _is_number(v := measure.read(values))]


def _whole(tasks: list[str], places: list[dict[Place, Values]]) -> Table | None:
    """‖ΔW‖ of what stands in no layer (embeddings, projections), the largest first, with the largest of a
    layer for comparison."""
    norms = [
        {place: v for place, values in found.items() if _is_number(v := values.get("delta_norm"))}
        for found in places
    ]
    outside = {place for found in norms for place in found if not place.blocks}
    if not outside:
        return None
    rows = [
        [Cell(f"{place.kind} ({place.tower})"), *(number(found.get(place), 2) for found in norms)]
        for place in sorted(outside, key=lambda place: -max(found.get(place, 0.0) for found in norms))
    ]
    inside = [max((v for p, v in found.items() if p.blocks), default=None) for found in norms]
    if any(value is not None for value in inside):
        rows.append([Cell("largest matrix of a layer"), *(number(value, 2) for value in inside)])
    note = "Frobenius norm of what a task added to a parameter outside the layers, which no map shows."
    return Table("Outside the layers: ‖ΔW‖ by task", ["parameter", *tasks], rows, note)


def _words(run: LoadedRun) -> Table | None:
    """The token embeddings that every task moved furthest, where any were trained."""
    rows = []
    for task, analysis in zip(run.tasks, run.analyses, strict=False):
        found = analysis.get("words") or {}
        far = [one for one in found.get("furthest", ()) if _is_number(one["norm"])]
        told = ", ".join(f"{one['word']} {one['norm']:.2g}" for one in far)
        if told:
            rows.append([Cell(task), number(found.get("moved"), 0), Cell(told)])
    note = "The furthest first, with the Frobenius norm of the change of their embedding."
    head = ["task", "words moved", "furthest, with ‖ΔW‖"]
    return Table("Words whose embedding moved", head, rows, note, sortable=False) if rows else None


def _by_place(record: dict[str, Any], analysis: dict[str, Any]) -> dict[Place, Values]:
    found: dict[Place, Values] = {}
    for part in (record.get("geometry") or {}, analysis.get("matrices") or {}):
        for name, values in part.items():
            place = place_of(name)
            found[place] = found.get(place, {}) | values
    return found


def _map(
    measure: _Measure, tasks: Iterable[str], places: list[dict[Place, Values]], prefix: str
) -> Figure | None:
    every = {p for found in places for p, v in found.items() if p.blocks and _is_number(measure.read(v))}
    towers = [name for name in ("vision", "text") if any(p.tower == name for p in every)]
    if not towers:
        return None
    maps = {
        task: [_layers(measure, tower, [p for p in every if p.tower == tower], found) for tower in towers]
        for task, found in zip(tasks, places, strict=True)
    }
    scale = share_scale(_values(measure, places)) if measure.share else None
    svg = figures.layer_maps(maps, measure.name, measure.digits, prefix, scale)
    return Figure(f"{measure.name} by task, tower, layer and kind of matrix", svg)


def _layers(
    measure: _Measure, tower: str, every: list[Place], found: dict[Place, Values]
) -> figures.LayerMap:
    layers = sorted({place.blocks for place in every})
    kinds = kinds_in_order(place.kind for place in every)
    values = np.full((len(layers), len(kinds)), np.nan)
    for place in every:
        value = measure.read(found.get(place, {}))
        if _is_number(value):
            values[layers.index(place.blocks), kinds.index(place.kind)] = value
    labels = tuple(".".join(map(str, blocks)) for blocks in layers)
    return figures.LayerMap(tower, labels, kinds, values)


def _table(measures: list[_Measure], places: list[dict[Place, Values]]) -> Table:
    rows = []
    for place in sorted({place for found in places for place in found}):
        cells = [Cell(place.tower), Cell(place.layer), Cell(place.kind)]
        for measure in measures:
            values = [v for found in places if place in found and _is_number(v := measure.read(found[place]))]
            mean = float(np.mean(values)) if values else None
            cells.append(Cell("–") if mean is None else Cell(format(mean, measure.digits), mean))
        rows.append(cells)
    return Table("Every matrix", ["tower", "layer", "kind", *(m.name for m in measures)], rows)


def _overlaps(run: LoadedRun, places: list[dict[Place, Values]]) -> Table | None:
    """Mean over all matrices of how much of a task's update lies in the directions of an earlier one."""
    tasks = run.tasks[: run.trained]
    found: dict[str, dict[str, float]] = {}
    for task, matrices in zip(tasks, places, strict=True):
        each = [_overlaps_with(values) for values in matrices.values()]
        shares = {old: [one[old] for one in each if old in one] for old in tasks}
        found[task] = {old: float(np.mean(values)) for old, values in shares.items() if values}
    note = (
        "How much of a row's update lies in the directions of a column's: 0 nothing, 1 all; mean over all"
        " matrices."
    )
    scale = share_scale([value for row in found.values() for value in row.values()])
    return _between_tasks("Overlap of the updates", "update of", found, 2, scale, note)


def _drift(run: LoadedRun) -> Table | None:
    """Similarity of the image features of old tasks to what they were right after their training."""
    found = {
        task: {old: value for old, value in (analysis.get("cka") or {}).items() if _is_number(value)}
        for task, analysis in zip(run.tasks, run.analyses, strict=False)
    }
    note = (
        "Linear CKA (centred kernel alignment: how alike two sets of features are, up to rotation and scale)"
        " of the image features of a column's task after a row's task with those right after its"
        " own training: 1 unchanged, 0 unrelated."
    )
    scale = similarity_scale([value for row in found.values() for value in row.values()])
    return _between_tasks("Similarity of the image features", "after", found, 3, scale, note)


def _between_tasks(
    caption: str,
    corner: str,
    found: dict[str, dict[str, float]],
    digits: int,
    scale: tuple[float, float],
    note: str,
) -> Table | None:
    """Values by later and earlier task as a heat map, without the tasks that have none."""
    earlier = [task for task in found if any(task in row for row in found.values())]
    low, high = scale
    rows = []
    for task, row in found.items():
        if row:
            values = [row.get(old, math.nan) for old in earlier]
            cells = [shaded(number(v, digits), (v - low) / (high - low)) for v in values]
            rows.append([Cell(task), *cells])
    note += f" The colours run from {low:.3g} to {high:.3g}."
    return Table(caption, [corner, *earlier], rows, note, sortable=False, heat=True) if rows else None
