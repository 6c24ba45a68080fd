"""What tuning leaves: the strategy file, the command that uses it, and a table of everything tried."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from ..config.overrides import is_within
from ..config.plugin_file import plugin_file
from ..config.strategy import Strategy
from ..config.yaml_lines import Malformed, parse
from ..data.telling import counted
from ..errors import UserError, printable
from ..files import check_writable, slug, write_json, write_text
from ..report.comparison.saving import csv_text, tried
from ..version import __version__
from .choosing import Point
from .tuning import Tuning


def place_of(tuning: Tuning, out: Path, output: Path | None = None) -> Path:
    """Where the strategy file goes: with the scenario's runs, or where a plugin of its own lies.

    Args:
        tuning: what is tuned.
        out: folder of all runs.
        output: the file that was asked for.

    Raises:
        UserError: for a place from which the strategy could not be used.
    """
    own = plugin_file(tuning.strategy)
    folder = own.parent if own is not None else out / slug(tuning.scenario.value.name)
    file = output if output is not None else folder / f"{slug(tuning.name)}.yaml"
    if file.suffix not in (".yaml", ".yml"):
        raise UserError(f"--output {file}: must be called .yaml, as a strategy file is")
    if file.is_dir() or (file.exists() and file.samefile(tuning.strategy.file)):
        kind = "a folder" if file.is_dir() else "the strategy that is tuned"
        raise UserError(f"--output {file}: is {kind}; name another file")
    if file.exists() and file.samefile(tuning.scenario.file):
        raise UserError(f"--output {file}: is the scenario; name another file")
    there = [each for each in (file, *_beside(file)) if each.exists()]
    if there and not _is_tuned(_beside(file)[1]):
        raise UserError(f"--output {file}: {there[0]} is there already, and not from tune; name another file")
    if own is not None and file.resolve().parent != own.parent.resolve():
        raise UserError(
            f"--output {file}: must lie in {own.parent}, beside {own.name}, which the strategy uses"
        )
    check_writable(file, f"--output {file}")
    return file


def save(tuning: Tuning, file: Path) -> list[Path]:
    """Write the strategy file, and beside it the table as CSV and, with what was asked, as JSON."""
    beside = _beside(file)
    write_text(beside[0], csv_text([tried(p) for p in tuning.curve]))
    write_json(beside[1], content(tuning))
    write_text(file, strategy_text(tuning, file))
    return [file, *beside]


def _beside(file: Path) -> tuple[Path, Path]:
    return file.with_suffix(".csv"), file.with_suffix(".json")


def _is_tuned(file: Path) -> bool:
    """Whether it is what an earlier tuning left."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"tried", "chosen", "request"} <= found.keys()


def content(tuning: Tuning) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "schema": 1,
        "scenario": tuning.scenario.value.name,
        "strategy": tuning.strategy.value.name,
        "request": asdict(tuning.request),
        "date": date.today().isoformat(),
        "software": __version__,
        "validation_shots": tuning.shots,
        "validation_images": tuning.validation,
        "zero_shot_sets": list(tuning.held_out),
        "floor": tuning.floor,
        "floor_met": tuning.is_above_floor(tuning.found(tuning.chosen)),
        "complete": tuning.complete,
        "chosen": dict(tuning.chosen),
        "stayed": tuning.stayed or None,
        "before": {key: levels[0] for key, levels in tuning.grid.items()},
        "tried": tuning.curve,
    }


def command(tuning: Tuning, file: Path) -> str:
    """The command that uses the strategy file."""
    request = tuning.request
    words = ["cl-complora", "run", request.scenario, "--strategy", str(file)]
    for text in request.scenario_settings:
        if is_within(text, "scenario", "seeds"):
            continue  # a run's is said with --seed
        words += ["--set", f"scenario.{text.removeprefix('scenario.')}"]
    words += ["--allow-plugins"] if tuning.strategy.value.plugin else []
    return shlex.join(words)


def strategy_text(tuning: Tuning, file: Path) -> str:
    """The strategy with the chosen settings, and a comment on how they were chosen."""
    # What was checked and published of the method was so with other settings.
    settings = tuning.strategy.value.model_dump(mode="json", exclude_unset=True, exclude={"about", "sweep"})
    settings["name"] = tuning.name
    for key, value in tuning.changed(tuning.chosen):
        _put(settings, key.split("."), value)
    Strategy.model_validate(settings)
    lines = [f"# {printable(line, 1000)}" for line in _comment(tuning, file)]
    dumped = yaml.dump(
        settings, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None
    )
    return "\n".join(lines) + "\n" + dumped


def _comment(tuning: Tuning, file: Path) -> list[str]:
    request, best = tuning.request, tuning.found(tuning.chosen)
    seeds = ", ".join(map(str, request.seeds))
    name, scenario = tuning.strategy.value.name, tuning.scenario.value.name
    lines = [
        f"{name} with settings chosen for the scenario {scenario}. Run: {command(tuning, file)}",
        f"Made by cl-complora tune {__version__} on {date.today().isoformat()}.",
        f"Chosen by: {request.metric} on {tuning.validation} validation images (at most {tuning.shots} a"
        f" class; seed {seeds}); no test image was opened.",
        f"Floor: {floor_told(tuning)}.",
        f"Tried: {ended_told(tuning)}; all of them are in {file.with_suffix('.csv').name}:",
    ]
    for (key, value), was in zip(tuning.chosen, _told_before(tuning), strict=True):
        values = sorted({p["settings"][key] for p in tuning.curve})
        lines.append(f"  {key}: {value:g} ({was}), of {', '.join(f'{other:g}' for other in values)}")
    lines.append(f"On the validation images: {figures_told(tuning, best)};")
    before = tuning.curve[0]
    lines.append(f"  as it stood: {figures_told(tuning, before)}.")
    lines += [f"{tuning.stayed[0].upper()}{tuning.stayed[1:]}."] if tuning.stayed else []
    changes = ", ".join(request.strategy_settings)
    return [*lines, *([f"Changed beforehand: {changes}."] if changes else [])]


def chosen_told(tuning: Tuning) -> str:
    """``optimiser.lr 0.00178 (was 0.001), training.steps 40 (as it was)``."""
    pairs = zip(tuning.chosen, _told_before(tuning), strict=True)
    return ", ".join(f"{key} {value:g} ({was})" for (key, value), was in pairs)


def _told_before(tuning: Tuning) -> list[str]:
    before = ((value, tuning.grid[key][0]) for key, value in tuning.chosen)
    return ["as it was" if value == was else f"was {was:g}" for value, was in before]


def figures_told(tuning: Tuning, one: Point) -> str:
    """``Last 61.2, retention -1.4``."""
    if one["error"] is not None:
        return one["error"]
    retained = f", retention {one['retention']:+.1f} points" if tuning.held_out else ""
    return f"Last {one['last']:.1f}{retained}"


def floor_told(tuning: Tuning) -> str:
    """Which floor held, and whether the chosen settings are above it."""
    if tuning.floor is None:
        return f"none: {tuning.unmeasured}; what is chosen may have lost much of what the model knew"
    said = f"{tuning.floor:+g} points of zero-shot accuracy ({', '.join(tuning.held_out)})"
    if tuning.is_above_floor(tuning.found(tuning.chosen)):
        return f"{said}, which the chosen settings keep"
    return f"{said}, which no combination kept; the chosen one comes nearest"


def ended_told(tuning: Tuning) -> str:
    """How many combinations were tried, and why no more."""
    count = counted(len(tuning.curve), "combination")
    if tuning.complete:
        return f"{count}, until none beside the best was left"
    return f"{count}, for which {tuning.request.minutes:g} minutes were enough"


def _put(settings: dict[str, Any], steps: list[str], value: float) -> None:
    for step in steps[:-1]:
        settings = settings.setdefault(step, {})
    settings[steps[-1]] = value


class _Dumper(yaml.SafeDumper):
    """Quotes what PyYAML takes for a text, and we for a number (``1e-3``)."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    try:
        plain = parse(text)[0] == text
    except Malformed:
        plain = True  # PyYAML sees what needs quotes for its syntax
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else "'")


_Dumper.add_representer(str, _text)
