"""Logistic regression on frozen image features, its C chosen on images that it was not fitted to."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from ...clip.heads.linear import AffineHead
from .fitting import Fitted, FittingToAll, Shots

# Where nothing can be held out (one shot a class), the value of the grid that is nearest to this one.
USUAL_C = 10.0
MOST_STEPS = 1000


class LinearProbeFitting(FittingToAll, supports_distributed=False):
    """scikit-learn's LogisticRegression with the value of the grid that has the lowest cross-entropy on
    held-out images.

    These are the validation images of the task, or those of a stratified cross-validation on the shots. (Of
    few images accuracy is too coarse a number to choose by.)
    """

    def fit_to(self, names: tuple[str, ...], features: Tensor, labels: Tensor, shots: Shots) -> Fitted:
        """As in the base class."""
        x, y = features.double().cpu().numpy(), labels.cpu().numpy()
        width = x.shape[1]
        if len(names) == 1:
            weight, bias, chosen = np.zeros((1, width)), np.zeros(1), None
        else:
            grid = sorted(self.settings.c)
            chosen = self._chosen(grid, x, y, names, shots) if len(grid) > 1 else grid[0]
            weight, bias = _coefficients(_fitted(chosen, x, y), len(names))
        head = AffineHead(
            classes=names,
            share=1.0,
            weight=torch.from_numpy(weight).float().to(features),
            bias=torch.from_numpy(bias).float().to(features),
        )
        return Fitted(head, weight.size + bias.size, {"c": chosen})

    def _chosen(
        self, grid: Sequence[float], x: np.ndarray, y: np.ndarray, names: tuple[str, ...], shots: Shots
    ) -> float:
        fewest = int(np.bincount(y, minlength=len(names)).min())
        if len(shots.validation_labels):
            own = np.array([names.index(name) for name in shots.names])
            held_out = shots.validation_features.double().cpu().numpy()
            rounds = [(x, y, held_out, own[shots.validation_labels.cpu().numpy()])]
        elif fewest >= 2:
            parts = StratifiedKFold(
                min(self.settings.folds, fewest), shuffle=True, random_state=shots.seed % 2**32
            )
            rounds = [(x[fit], y[fit], x[held], y[held]) for fit, held in parts.split(x, y)]
        else:
            return min(grid, key=lambda c: abs(math.log(c / USUAL_C)))
        models: list[LogisticRegression | None] = [None] * len(rounds)
        best, lowest = grid[0], math.inf
        for c in grid:
            loss = 0.0
            for place, (fit_x, fit_y, held_x, held_y) in enumerate(rounds):
                models[place] = _fitted(c, fit_x, fit_y, models[place])
                loss -= models[place].predict_log_proba(held_x)[np.arange(len(held_y)), held_y].sum()
            if loss >= lowest:
                break  # it has one lowest place, and what lies beyond it takes longest
            best, lowest = c, loss
        return best


def _fitted(
    c: float, x: np.ndarray, y: np.ndarray, before: LogisticRegression | None = None
) -> LogisticRegression:
    """A regression, beginning where the one with a smaller C ended."""
    model = LogisticRegression(C=c, max_iter=MOST_STEPS, warm_start=True)
    if before is not None:
        model.coef_, model.intercept_ = before.coef_.copy(), before.intercept_.copy()
        model.classes_ = before.classes_
    with warnings.catch_warnings():
        # A regression that is not quite at its end answers like one that is.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)  # of one shot each
        return model.fit(x, y)


def _coefficients(model: LogisticRegression, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weight ``K × D`` and bias ``(K,)``; of two classes scikit-learn keeps the difference alone."""
    weight, bias = model.coef_, model.intercept_
    if classes == 2:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias
