"""The Avalanche side: experiences, the training strategy and its plugins. The only room that imports
Avalanche."""

import warnings

with warnings.catch_warnings():
    # On import Avalanche's GEM plugin warns that no QP solver is installed, which nothing here needs.
    warnings.simplefilter("ignore")
    import avalanche.training  # noqa: F401
