"""What a run was made with, and whether it is still the same."""

from __future__ import annotations

import ctypes
import functools
import platform
import re
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ..config import Scenario, Strategy
from ..config.plugin_file import plugin_told
from ..config.recorded import recorded, with_drift_as_it_was
from ..data import planning
from ..errors import UserError
from ..files import yaml_text
from ..version import __version__
from .differences import differences, told_differences
from .elsewhere import Changes, take_places, told
from .folder import RunDir
from .moved import PLACES
from .plain_yaml import plain_yaml

if TYPE_CHECKING:
    from ..clip.model import LoadedClip

PACKAGES = ("cl_complora", "torch", "open_clip_torch", "avalanche-lib", "numpy")


# What a user of ``run`` can do about a run that was made with something else. Commands that lack these
# options say it in their own (compare/trial_words.py).
START_OVER = "use --fresh to start over (the old run is kept), or --variant NAME or another --out beside it"
WEIGHTS = "--model, --model-config, --pretrained"


def describe(
    scenario: Scenario,
    strategy: Strategy,
    seed: int,
    loaded: LoadedClip,
    plans: planning.Plans,
    device: str,
    evaluate: bool,
    threads: int,
) -> dict:
    """Everything that the numbers depend on; a run goes on only where all of it is the same."""
    model = {
        "name": loaded.name,
        "pretrained": loaded.pretrained,
        "sha256": loaded.sha256,
        **loaded.beside_weights,
    }
    return describe_with(scenario, strategy, seed, model, plans, device, evaluate, threads)


def describe_with(
    scenario: Scenario,
    strategy: Strategy,
    seed: int,
    model: dict[str, Any],
    plans: planning.Plans,
    device: str,
    evaluate: bool,
    threads: int,
) -> dict:
    """As :func:`describe`, of a model of which is known what that says of it."""
    return {
        "scenario": _stream_of(scenario),
        "strategy": _settings_of(strategy),
        "seed": seed,
        "model": model,
        "evaluate": evaluate,
        "splits": {p.name: p.sha256() for p in (*plans, *plans.beside)},
        **_ranges(plans.opened(scenario.measure)),
        "software": {name: text for name, text in software().items() if name != "numpy"},
        "device": device.partition(":")[0],
        **({"gpu": gpu} if (gpu := gpu_of(device)) else {}),
        "threads": threads,
    }


def gpu_of(device: str) -> str | None:
    """Name of the card, where it is one; two kinds differ in their last bits."""
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.get_device_name(device)


def _ranges(plans: planning.Plans) -> dict[str, dict[str, list[float]]]:
    """``ranges``: stored values that became 0 … 255, by task or set, where pictures have more than eight
    bits."""
    used = {p.name: p.source.reading((*p.train, *p.validation, *p.test)).values for p in plans}
    used |= {p.name: p.source.reading(p.test).values for p in plans.beside}
    ranges = {name: list(values) for name, values in used.items() if values is not None}
    return {"ranges": ranges} if ranges else {}


def software() -> dict[str, str]:
    """Versions of what a run depends on."""
    return dict(_installed())


@functools.cache
def _installed() -> dict[str, str]:
    unknown = dict.fromkeys(PACKAGES, "unknown") | {"cl_complora": __version__}
    return {"python": platform.python_version()} | unknown | versions(*PACKAGES)


@functools.cache
def versions(*packages: str) -> dict[str, str]:
    """Of those of some packages that are installed."""
    found = {}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


class PeakMemory:
    """Largest memory in use since this object was made: the device's on CUDA, the process's resident one on
    the CPU.

    The latter includes the libraries and whatever else the process holds.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        if device.startswith("cuda"):
            import torch

            torch.cuda.reset_peak_memory_stats(device)
        else:
            with suppress(OSError, AttributeError, TypeError):  # no C library to ask
                ctypes.CDLL(None).malloc_trim(0)
            try:
                # Linux: begins a new high-water mark.
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            except OSError:
                pass  # then it is the mark of the whole process so far, which is no smaller

    def bytes(self) -> int:
        """The mark, in bytes."""
        if self.device.startswith("cuda"):
            import torch

            return torch.cuda.max_memory_allocated(self.device)
        try:
            status = Path("/proc/self/status").read_text(encoding="ascii")
            return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1))
        except (OSError, AttributeError):
            return _peak_of_process()


def _peak_of_process() -> int:
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        used = psutil.Process().memory_info()
        return getattr(used, "peak_wset", used.rss)
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _stream_of(scenario: Scenario) -> dict[str, Any]:
    return scenario.model_dump(mode="json", exclude={"seeds", "description"})


def _settings_of(strategy: Strategy) -> dict[str, Any]:
    return strategy.model_dump(mode="json", exclude={"description", "about", "sweep"})


def _with_newer(before: Any, now: Any, chosen: Any) -> Any:
    """What a version that knew fewer settings recorded, with those of today that are at their default now.

    Args:
        before, now: recorded settings, and today's.
        chosen: the part of today's that is no default.
    """
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        inner = chosen if isinstance(chosen, list) else [None] * len(now)
        return [_with_newer(*parts) for parts in zip(before, now, inner, strict=True)]
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return before
    chosen = chosen if isinstance(chosen, dict) else {}
    known = {k: _with_newer(value, now.get(k), chosen.get(k)) for k, value in before.items()}
    return known | {k: value for k, value in now.items() if k not in before and k not in chosen}


def check_same(
    folder: RunDir, made_with: dict, strategy: Strategy, complete: bool, elsewhere: bool = False
) -> Changes:
    """Refuse to go on with a run that was made with something else.

    Args:
        made_with: :func:`describe` of now.
        strategy: of now.
        complete: all numbers are there, so software, device and threads of the one who looks do not matter.
        elsewhere: go on where software, device or GPU are others.

    Returns:
        What of these differs for what is still to be computed.

    Raises:
        UserError: naming the differences.
    """
    before = folder.read_config()
    if before is None:
        return {}
    # Where the settings came from does not matter, what they are does.
    files = before.pop("files", None) or {}
    before.pop("elsewhere", None)
    now = plain_yaml(yaml_text(made_with))
    # A version that knew fewer settings had what is their default now; 16 bits that are used never needed
    # one.
    with suppress(ValidationError, KeyError, TypeError):
        before["scenario"] = _stream_of(recorded(Scenario, before["scenario"]))
    if "ranges" not in before and all(values == [0, 65535] for values in now.get("ranges", {}).values()):
        now.pop("ranges", None)
    _check_weights(folder, before["model"], now["model"])
    _pass_over_places(before, now, Path(files.get("scenario", ".")).parent)
    changes = take_places(before, now)
    if changes.keys() & {"torch", "open_clip_torch"}:  # which spell the same modules in other ways
        before["model"] |= {key: now["model"].get(key) for key in ("architecture", "config_sha256")}
    for key in ("config_sha256", "tokenizer_sha256"):
        if key not in before["model"]:  # of an earlier version
            now["model"].pop(key, None)
    _check_plugin(folder, strategy, before, now)
    if complete:
        for side in (before, now):
            side.pop("threads", None)
    if complete or changes:
        chosen = strategy.model_dump(mode="json", exclude_defaults=True)
        then = with_drift_as_it_was(before.get("strategy"), strategy, now["scenario"]["protocol"])
        before["strategy"] = _with_newer(then, now["strategy"], chosen)
    if found := list(differences(before, now)):
        raise UserError(f"{folder.root}: {told_differences(found)}; {START_OVER}")
    if changes and not (complete or elsewhere):
        raise UserError(
            f"{folder.root}: this run began elsewhere ({told(changes)}); gone on with here, its bits will"
            " differ from those of an undisturbed run, and so may an answer here and there; give --elsewhere"
            f" to go on nevertheless (results.json then says from which task on), or {START_OVER}"
        )
    return {} if complete else changes


def _check_weights(folder: RunDir, before: dict[str, Any], now: dict[str, Any]) -> None:
    if before["sha256"] == now["sha256"]:
        return
    then, given = (
        f"{m['name']} ({m.get('pretrained') or 'random'}), SHA-256 {m['sha256']}" for m in (before, now)
    )
    raise UserError(
        f"{folder.root}: this run began with the weights of {then}, now they are those of {given}; give the"
        f" right ones ({WEIGHTS}), or {START_OVER}"
    )


def _check_plugin(folder: RunDir, strategy: Strategy, before: dict[str, Any], now: dict[str, Any]) -> None:
    """The content of its file, where the strategy names the same plugin as then; an earlier version recorded
    none."""
    then, content = (side.pop("plugin_sha256", None) for side in (before, now))
    named = (before.get("strategy") or {}).get("plugin")
    if then not in (None, content) and named == strategy.plugin:
        raise UserError(
            f"{folder.root}: the file of {plugin_told(strategy)} is not what it was when this run began;"
            f" {START_OVER}"
        )


def _pass_over_places(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Make what tells only the place of a file equal: weights have their hash, pictures their manifests.

    A place of data counts as long as there is something at the recorded one: then other data were asked for.
    """
    old, new = (side["scenario"].get("model") or {} for side in (before, now))
    keys = ["pretrained", "config"]
    if old.get("config") and new.get("config"):
        keys.append("name")  # which may be the file's
        before["model"]["name"] = now["model"]["name"]
    for key in keys:
        old[key] = new.get(key)
    before["model"]["pretrained"] = now["model"]["pretrained"]
    for section in ("tasks", "zero_shot", "retrieval", "multi_label", "reference"):
        _pass_over_gone(before["scenario"].get(section), now["scenario"].get(section), folder)


def _pass_over_gone(old: Any, new: Any, folder: Path) -> None:
    if isinstance(old, list) and isinstance(new, list):
        for pair in zip(old, new, strict=False):
            _pass_over_gone(*pair, folder)
    elif isinstance(old, dict) and isinstance(new, dict):
        for key, value in old.items():
            if key in PLACES and isinstance(value, str) and isinstance(new.get(key), str):
                place = folder / Path(value).expanduser()
                # A pattern of shards is no file itself.
                if not (place.exists() or (key in ("train", "test") and place.parent.is_dir())):
                    old[key] = new[key]
            else:
                _pass_over_gone(value, new.get(key), folder)
