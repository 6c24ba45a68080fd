"""A leaderboard of invented results."""

from __future__ import annotations

from typing import Any

KINDS = ("head", "low-rank", "replay-and-bounds")


def board(methods: int, far: bool = True) -> dict[str, Any]:
    """As :func:`cl_complora.compare.leaderboard.leaderboard` makes them: Last falls from row to row.

    Args:
        methods: how many; every third is a bound, the first among them.
        far: whether the last of them forgets nearly all that the model knew.
    """
    rows = []
    for place in range(methods):
        last = 90.0 - 0.5 * place
        retention = -80.0 if far and place == methods - 1 else -0.25 * place
        rows.append(
            {
                "name": f"method-{place}", "kind": KINDS[(place + 2) % 3], "source": None,
                "seeds": [0], "swept": False, "stale": False, "front": place == 1, "chosen": "", "set": "",
                "figures": {"last": [last], "learned": [last], "forgetting": [0.1 * place],
                            "transfer": [50.0], "retention": [retention]},
                "budget": {"steps": 4.0, "trainable_parameters": 1e5, "train_seconds": 3.0,
                           "peak_memory_bytes": 1e9},
                "updates": {"norm": 0.5}, "against_reference": {}, "against_best": {},
            }
        )  # fmt: skip
    return {
        "scenario": "tiny",
        "reference": "method-2",
        "best": "method-1",
        "rows": rows,
        "missing": ["other"],
    }
