"""Heads beside a model: what answers for learned classes in place of their texts."""
