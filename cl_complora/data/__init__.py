"""Data: sources, few-shot draws, pixels, and the embedded world."""
