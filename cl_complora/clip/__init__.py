"""CLIP: load any open_clip model, open its linear maps for low-rank updates, classify with a text head,
export."""

from .deferred_imports import deferred

# transformers with the hub's client: it computes with what it imports from there, which a stand-in cannot.
with deferred("timm", "torch._dynamo", "huggingface_hub", "transformers"):
    import open_clip  # noqa: F401
