"""A run: one scenario × one strategy × one seed.

Nothing is imported here: the package's name is also that of a function of ``cl_complora``.
"""
