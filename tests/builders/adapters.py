"""Settings with which the parts of an adapter show what they do within a few steps."""

from __future__ import annotations

from cl_complora.config.adaptation import Adapter


def quick_adapter(adapter: Adapter) -> list[str]:
    """Overrides for a run of three or four steps a task."""
    between = adapter.between.kind if adapter.between is not None else None
    if between == "experts":
        return ["adapter.rank=3", "adapter.between={kind: experts, active: 2, merged: 1}"]
    often = {"boosters": "steps", "budget": "every"}
    changed = [f"adapter.between.{often[between]}=1"] if between in often else []
    return changed + (["adapter.pruning.every=2"] if adapter.pruning is not None else [])
