"""The embedded world: a procedural source of image–caption pairs, the CLIP pretrained on it, and few-shot
domains."""

from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
"""Weights, config, tokenizer vocabulary and model card of the embedded CLIP."""
