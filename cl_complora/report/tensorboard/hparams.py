"""A run as a row of TensorBoard's HParams table."""

from __future__ import annotations

from typing import Any

# Columns of the HParams table and their types. It shows the first five of the alphabet unasked, capitals
# before others.
COLUMNS: dict[str, type] = {
    "LR": float,
    "Rank": float,
    "Scenario": str,
    "Seed": float,
    "Strategy": str,
    "model": str,
    "shots": str,
    "token lr": float,
    "vision lr": float,
    "text lr": float,
    "optimiser": str,
    "weight decay": float,
    "steps": float,
    "batch size": float,
    "precision": str,
    "stream": str,
    "adapter": str,
    "matrices": str,
    "towers": str,
    "subspace": str,
    "keep": str,
    "sides": str,
    "protect": str,
    "trained whole": str,
    "regularisers": str,
    "memory": str,
}


def table_row(config: dict[str, Any]) -> dict[str, str | float]:
    """A run's settings by the columns of the HParams table; those that its strategy does not have are left
    out.

    Args:
        config: content of its config.yaml.
    """
    scenario, strategy = config["scenario"], config["strategy"]
    adapter, optimiser, training = strategy["adapter"], strategy["optimiser"], strategy["training"]
    low_rank = adapter if adapter["kind"] == "lowrank" else {}
    subspace = low_rank.get("subspace") if low_rank.get("subspace", {}).get("select") != "none" else None
    row = {
        "Scenario": scenario["name"],
        "Strategy": strategy["name"],
        "Seed": config["seed"],
        "model": config["model"]["name"],
        "shots": str(scenario["shots"]),
        "precision": training["precision"],
        "stream": training["stream"],
        "adapter": adapter["kind"],
        "Rank": low_rank.get("rank"),
        "matrices": ", ".join(low_rank.get("matrices", ())),
        "towers": ", ".join(adapter["towers"]),
        "trained whole": ", ".join(adapter["whole"] or ()),
        "regularisers": ", ".join(part["kind"] for part in strategy["regularisers"]),
        "memory": str((strategy["memory"] or {}).get("policy", "")),
    }
    if optimiser:
        rates = {"token lr": "tokens", "vision lr": "vision", "text lr": "text"}
        row |= {column: optimiser["rates"].get(name) for column, name in rates.items()}
        row |= {"LR": optimiser["lr"], "optimiser": optimiser["name"]}
        row |= {"weight decay": optimiser["weight_decay"], "batch size": training["batch_size"]}
        # With ``auto`` every task has its own, which its record tells.
        row |= {"steps": training["steps"]} if training["steps"] != "auto" else {}
    if subspace:
        kept = [f"{rule} {value}" for rule, value in subspace["keep"].items() if value is not None]
        row |= {"subspace": subspace["select"], "keep": ", ".join(kept), "sides": str(subspace["sides"])}
        row |= {"protect": ", ".join(subspace["protect"])}
    return {name: value for name, value in row.items() if value not in (None, "")}
