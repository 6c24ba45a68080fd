"""Multinomial logistic regression, the same objective by two solvers.

    min  mean_i −w_i log softmax(W x_i + b)_{y_i} + ‖W‖² / (2 C N),   w_i = 1 unless told otherwise

scikit-learn's computes on the CPU. For some hundred classes and thousands of images that takes minutes, and
a GPU seconds: there L-BFGS of torch stands in its place.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:  # takes a second, which most strategies have no use for
    from sklearn.linear_model import LogisticRegression

MOST_STEPS = 1000
# Logit, and logarithm of the probability, of a class that has no image to be fitted to.
NEVER = -1e4
# scikit-learn's: the largest entry of the gradient at which it ends.
_TOLERANCE = 1e-4
# Products a gradient, images × width × classes, from which a GPU is asked: below it the CPU is done before a
# hundred small programs have been launched, and one thread is before several have found each other.
LARGE = 10**8


def solver_of(x: Tensor, classes: int) -> type[ScikitLearn] | type[OnDevice]:
    """What fits so many classes to features, ``N × D``, the sooner."""
    return OnDevice if x.is_cuda and _is_large(x, classes) else ScikitLearn


def _is_large(x: Tensor, classes: int) -> bool:
    return x.numel() * classes >= LARGE


@dataclass(frozen=True)
class ScikitLearn:
    """scikit-learn's, on the CPU."""

    model: LogisticRegression
    classes: int

    @classmethod
    def fitted(
        cls,
        c: float,
        x: Tensor,
        y: Tensor,
        classes: int,
        before: ScikitLearn | None = None,
        weights: Tensor | None = None,
    ) -> ScikitLearn:
        """A regression.

        Args:
            c: C, the inverse of the penalty's strength.
            x, y: ``N × D``, and ``(N,)`` in 0 … K − 1.
            classes: K.
            before: with a smaller C; begins where it ended.
            weights: w, ``(N,)``.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits

        model = LogisticRegression(C=c, max_iter=MOST_STEPS, warm_start=True)
        if before is not None:
            model.coef_, model.intercept_ = before.model.coef_.copy(), before.model.intercept_.copy()
            model.classes_ = before.model.classes_
        # Products and losses have threads of their own, which wait by spinning: sixteen and sixteen of them
        # on sixteen cores took more than a minute for what one does in seconds.
        alone = threadpool_limits(1, user_api="openmp" if _is_large(x, classes) else "blas")
        with alone, warnings.catch_warnings():
            # A regression that is not quite at its end answers like one that is.
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)  # of one shot each
            own = None if weights is None else weights.double().cpu().numpy()
            return cls(model.fit(x.double().cpu().numpy(), y.cpu().numpy(), own), classes)

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy of every image, ``(N,)``."""
        logp = self._of_all(torch.from_numpy(self.model.predict_log_proba(x.double().cpu().numpy())).mT).mT
        return -logp.gather(1, y.cpu()[:, None])[:, 0]

    def coefficients(self) -> tuple[Tensor, Tensor]:
        """W, ``K × D``, and b, ``(K,)``."""
        weight, bias = torch.from_numpy(self.model.coef_), torch.from_numpy(self.model.intercept_)
        if len(bias) == 1:  # of two classes, the difference
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        return self._of_all(weight, 0.0), self._of_all(bias)

    def _of_all(self, rows: Tensor, of_others: float = NEVER) -> Tensor:
        """A row for every class, where scikit-learn has those of which there are images alone."""
        whole = rows.new_full((self.classes, *rows.shape[1:]), of_others)
        whole[torch.from_numpy(self.model.classes_)] = rows
        return whole


@dataclass(frozen=True)
class OnDevice:
    """L-BFGS in 64 bits where the features lie.

    Attributes:
        both: W and b, ``K × (D + 1)`` with b last.
    """

    both: Tensor

    @classmethod
    def fitted(
        cls,
        c: float,
        x: Tensor,
        y: Tensor,
        classes: int,
        before: OnDevice | None = None,
        weights: Tensor | None = None,
    ) -> OnDevice:
        """As in the other, but for two classes, whose difference that penalises."""
        x = x.double()
        both = before.both.clone() if before is not None else x.new_zeros(classes, x.shape[1] + 1)
        both.requires_grad_()
        solver = torch.optim.LBFGS(
            [both],
            max_iter=MOST_STEPS,
            max_eval=2 * MOST_STEPS,
            tolerance_grad=_TOLERANCE,
            tolerance_change=0,
            history_size=10,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            solver.zero_grad()
            penalty = both[:, :-1].square().sum() / (2 * c * len(y))
            each = F.cross_entropy(x @ both[:, :-1].mT + both[:, -1], y, reduction="none")
            value = (each if weights is None else each * weights).mean() + penalty
            value.backward()
            return value

        with torch.enable_grad():
            solver.step(loss)
        return cls(both.detach())

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        """As in the other."""
        weight, bias = self.coefficients()
        return F.cross_entropy(x.double() @ weight.mT + bias, y, reduction="none")

    def coefficients(self) -> tuple[Tensor, Tensor]:
        """As in the other."""
        return self.both[:, :-1], self.both[:, -1]
