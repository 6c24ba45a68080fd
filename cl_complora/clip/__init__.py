"""CLIP: load any open_clip model, open its linear maps for low-rank updates, classify with a text head,
export."""

from .deferred_imports import deferred

with deferred("timm", "torch._dynamo", "huggingface_hub"):
    import open_clip  # noqa: F401
