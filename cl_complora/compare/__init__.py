"""Many runs, one table: sweeps on validation shots, the chosen settings tested, differences with their
uncertainty.

Nothing is imported here: the package's name is also that of a function of ``cl_complora``.
"""
