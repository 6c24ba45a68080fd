"""A run: one scenario × one strategy × one seed."""
