"""The Avalanche side: experiences, the training strategy and its plugins. The only room that imports
Avalanche."""

import warnings

from ..clip.deferred_imports import deferred
from .avalanche_home import avalanche_reads_only

with (
    warnings.catch_warnings(),
    avalanche_reads_only(),
    deferred("torchmetrics", "matplotlib", "wandb", "qpsolvers", "gdown"),
):
    # On import Avalanche's GEM plugin warns that no QP solver is installed, which nothing here needs.
    warnings.simplefilter("ignore")
    import avalanche.training  # noqa: F401
