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
    """scikit-learn's LogisticRegression with the value of the grid that is most often right on held-out
    images.

    These are the validation images of the task, or those of a stratified cross-validation on the shots; equal
    accuracies are decided by the lower cross-entropy.
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
            weight, bias = _coefficients(_fitted([chosen], x, y)[0], len(names))
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
        right, loss = np.zeros(len(grid)), np.zeros(len(grid))
        for fit_x, fit_y, held_x, held_y in rounds:
            for place, model in enumerate(_fitted(grid, fit_x, fit_y)):
                shares = model.predict_log_proba(held_x)
                right[place] += (shares.argmax(1) == held_y).sum()
                loss[place] -= shares[np.arange(len(held_y)), held_y].sum()
        return grid[min(range(len(grid)), key=lambda place: (-right[place], loss[place]))]


def _fitted(grid: Sequence[float], x: np.ndarray, y: np.ndarray) -> list[LogisticRegression]:
    """One regression for every C, ascending; each begins where the one before it ended."""
    found: list[LogisticRegression] = []
    with warnings.catch_warnings():
        # A regression that is not quite at its end answers like one that is.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)  # of one shot each
        for c in grid:
            model = LogisticRegression(C=c, max_iter=MOST_STEPS, warm_start=True)
            if found:
                model.coef_, model.intercept_ = found[-1].coef_.copy(), found[-1].intercept_.copy()
                model.classes_ = found[-1].classes_
            found.append(model.fit(x, y))
    return found


def _coefficients(model: LogisticRegression, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weight ``K × D`` and bias ``(K,)``; of two classes scikit-learn keeps the difference alone."""
    weight, bias = model.coef_, model.intercept_
    if classes == 2:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias
