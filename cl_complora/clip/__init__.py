"""CLIP: load any open_clip model, open its linear maps for low-rank updates, classify with a text head,
export."""
