"""Logistic regression on frozen image features, its C chosen on images that it was not fitted to."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...clip.heads.linear import AffineHead, PairedHead
from .fitting import Fitted, FittingToAll, Shots
from .logistic import NEVER, OnDevice, ScikitLearn, solver_of

# Where nothing can be held out (a class of one shot), the value of the grid that is nearest to this one: of
# rows of length 1, and of longer ones as much less as their squares are more, which regularises them alike.
USUAL_C = 10.0


class LinearProbeFitting(FittingToAll, supports_distributed=False):
    """Logistic regression with the value of the grid that has the lowest cross-entropy on held-out images. A
    class without a training image is never answered.

    These are the validation images of the task, or those of a stratified cross-validation on the shots. (Of
    few images accuracy is too coarse a number to choose by.) Where one head is for all tasks, they are the
    validation images of all tasks so far, or parts of all shots so far.
    """

    @property
    def chooses(self) -> bool:
        """As in the base class."""
        return len(self.settings.c) > 1

    def fit_to(self, names: tuple[str, ...], features: Tensor, labels: Tensor, shots: Shots) -> Fitted:
        """As in the base class."""
        width, count = features.shape[1], len(names)
        there = labels.bincount(minlength=count).cpu() > 0
        if int(there.sum()) == 1:
            weight, bias, chosen = torch.zeros(count, width), torch.full((count,), NEVER), None
            bias[there] = 0.0
        else:
            kind = solver_of(features, count)
            grid = sorted(self.settings.c)
            alike = self._class_weights(labels, count)
            if len(grid) > 1:
                chosen = self._chosen(kind, grid, features, labels, names, shots, alike)
            else:
                chosen = grid[0]
            fitted = kind.fitted(chosen, features, labels, count, weights=alike[labels])
            weight, bias = fitted.coefficients()
        form = PairedHead if width > shots.texts.shape[1] else AffineHead
        head = form(
            classes=names, share=1.0, weight=weight.float().to(features), bias=bias.float().to(features)
        )
        return Fitted(head, weight.numel() + bias.numel(), {"c": chosen})

    def _class_weights(self, labels: Tensor, count: int) -> Tensor:
        """w of every class, ``(K,)``: exactly 1 where shots are even, and where there are none."""
        shots = labels.bincount(minlength=count).double()
        if not self.settings.balanced:
            return torch.ones_like(shots)
        present = int((shots > 0).sum())
        return torch.where(shots > 0, len(labels) / (present * shots), 1.0)

    def _chosen(
        self,
        kind: type[ScikitLearn] | type[OnDevice],
        grid: Sequence[float],
        x: Tensor,
        y: Tensor,
        names: tuple[str, ...],
        shots: Shots,
        alike: Tensor,
    ) -> float:
        validation_x, validation_y = self.held(shots)
        if len(validation_y):
            rounds = [(x, y, validation_x, validation_y)]
        else:
            rounds = [
                (x[fit], y[fit], x[held], y[held]) for fit, held in parts(y, self.settings.folds, shots.seed)
            ]
        if not rounds:
            usual = USUAL_C / float(x.square().sum(1).mean())
            return min(grid, key=lambda c: abs(math.log(c / usual)))
        models: list[ScikitLearn | OnDevice | None] = [None] * len(rounds)
        best, lowest = grid[0], math.inf
        for c in grid:
            loss = 0.0
            for place, (fit_x, fit_y, held_x, held_y) in enumerate(rounds):
                models[place] = kind.fitted(c, fit_x, fit_y, len(names), models[place], alike[fit_y])
                losses = models[place].losses(held_x, held_y)
                loss += float((losses * alike[held_y].to(losses)).sum())
            if loss >= lowest:
                break  # it has one lowest place, and what lies beyond it takes longest
            best, lowest = c, loss
        return best


def parts(labels: Tensor, most: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Places of the images to fit to and of those held out, of every part of a stratified cross-validation.

    Args:
        labels: ``(N,)`` classes of the images; classes without any have no say.
        most: parts; as many as the smallest class has images, where these are fewer.
        seed: of the draw.

    Returns:
        The parts; none where a class has a single image: held out it would ask about a class that was never
        seen, and without it the choice would be that of the larger classes.
    """
    from sklearn.model_selection import StratifiedKFold

    own = labels.cpu().numpy()
    shots = labels.bincount()
    fewest = int(shots[shots > 0].min())
    if fewest < 2:
        return []
    folds = StratifiedKFold(min(most, fewest), shuffle=True, random_state=seed % 2**32)
    return [(torch.from_numpy(fit), torch.from_numpy(held)) for fit, held in folds.split(own, own)]
