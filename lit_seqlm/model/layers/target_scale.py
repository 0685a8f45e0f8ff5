"""Between a label in its own unit and the number near one that a network predicts."""

# N, B = sequences, K = targets, C = covariates

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lit_seqlm.errors import UserError

SMALLEST_SPREAD = 1e-10  # of a target over its largest label: less is rounding


class TargetScale(nn.Module):
    """raw = std * z + mean + covariates @ slope + intercept, for each target, in float64.

    A total energy of -400 Ha that counts to 0.001 Ha does not fit in float32, but what is left of it
    after least squares on the counts of atoms does (compare atomisation energies). Before `fit`, and
    after it for a target that is not residualised, slope and intercept are zero. The numbers are
    buffers, so a checkpoint holds them, and they stay float64 whatever the model is cast to.
    """

    slope_CK: Tensor
    intercept_K: Tensor
    mean_K: Tensor
    std_K: Tensor

    def __init__(self, num_targets: int, num_covariates: int):
        super().__init__()
        zeros_K = torch.zeros(num_targets, dtype=torch.float64)
        slope_CK = torch.zeros(num_covariates, num_targets, dtype=torch.float64)
        self.register_buffer("slope_CK", slope_CK)
        self.register_buffer("intercept_K", zeros_K.clone())
        self.register_buffer("mean_K", zeros_K.clone())
        self.register_buffer("std_K", torch.ones_like(zeros_K))

    @torch.no_grad()
    def fit(
        self,
        labels_NK: Tensor,
        covariates_NC: Tensor | None,
        residualise: bool | Sequence[bool] | Tensor,
        names: Sequence[str] = (),
    ) -> None:
        """Estimate all four from training labels; a missing one (NaN) counts nowhere.

        Args:
            labels_NK: in the data's own units.
            covariates_NC: without a missing value; null where the scale has none.
            residualise: for each target, or for all, whether least squares on the covariates comes first.
            names: of the targets, for messages; else their indices are told.

        Raises:
            UserError: a target has no label, an infinite one, or nothing left
                to learn: all its labels are equal, or a linear function of the covariates.
        """
        labels_NK = labels_NK.double().cpu()
        num_targets = len(self.mean_K)
        assert labels_NK.shape == (len(labels_NK), num_targets), labels_NK.shape
        wanted_K = torch.as_tensor(residualise).cpu().expand(num_targets)
        if covariates_NC is None:
            assert not wanted_K.any(), "a target is residualised, but there are no covariates"
            covariates_NC = labels_NK.new_zeros(len(labels_NK), len(self.slope_CK))
        covariates_NC = covariates_NC.double().cpu()
        assert covariates_NC.shape == (len(labels_NK), len(self.slope_CK)), covariates_NC.shape
        for target in range(num_targets):
            present_N = ~labels_NK[:, target].isnan()
            label_N = _usable(labels_NK[present_N, target], _called(names, target))
            line_C1 = torch.zeros(len(self.slope_CK) + 1, dtype=torch.float64)
            rest_N = label_N
            if wanted_K[target]:
                line_C1 = _least_squares(covariates_NC[present_N], label_N)
                rest_N = label_N - covariates_NC[present_N] @ line_C1[:-1] - line_C1[-1]
            spread = _spread(rest_N, label_N, _called(names, target))
            self.slope_CK[:, target] = line_C1[:-1]
            self.intercept_K[target] = line_C1[-1]
            self.mean_K[target], self.std_K[target] = rest_N.mean(), spread

    def to_scaled(self, labels_BK: Tensor, covariates_BC: Tensor | None = None) -> Tensor:
        """z, float64; NaN stays NaN."""
        return (labels_BK.double() - self._offset(covariates_BC)) / self.std_K

    def to_raw(self, scaled_BK: Tensor, covariates_BC: Tensor | None = None) -> Tensor:
        """Values in the data's own units, float64."""
        return scaled_BK.double() * self.std_K + self._offset(covariates_BC)

    def spread_to_raw(self, sigma_BK: Tensor) -> Tensor:
        """Standard deviations in the data's own units, float64."""
        return sigma_BK.double() * self.std_K

    def _offset(self, covariates_BC: Tensor | None) -> Tensor:
        constant_K = self.mean_K + self.intercept_K
        if covariates_BC is None:
            assert not self.slope_CK.any(), "this scale is residualised and needs covariates"
            return constant_K
        return covariates_BC.double() @ self.slope_CK + constant_K

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """Move the buffers to where `fn` moves them, and leave them float64."""
        exact = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in exact.items():
            moved = self._buffers[name]
            if buffer is not None and moved is not None and moved.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(moved.device)
        return self


class ProbabilityScale(nn.Module):
    """The same interface for classes: a network predicts a logit, and raw is its probability."""

    def __init__(self, num_targets: int, num_covariates: int):
        super().__init__()
        self.num_targets, self.num_covariates = num_targets, num_covariates

    def fit(
        self,
        labels_NK: Tensor,
        covariates_NC: Tensor | None,
        residualise: bool | Sequence[bool] | Tensor,
        names: Sequence[str] = (),
    ) -> None:
        """Nothing to estimate.

        Raises:
            UserError: a target has no label or one that is neither 0 nor 1.
        """
        for target in range(self.num_targets):
            label_N = labels_NK[:, target]
            label_N = label_N[~label_N.isnan()]
            if not len(label_N):
                raise UserError(
                    f"{_called(names, target)} has no label in the training rows: leave it out"
                )
            odd_N = label_N[(label_N != 0) & (label_N != 1)]
            if len(odd_N):
                raise UserError(
                    f"{_called(names, target)} has the label {float(odd_N[0]):g}: classes are 0 and 1, and "
                    "an empty cell where unknown. Is this a regression?"
                )

    def to_scaled(self, labels_BK: Tensor, covariates_BC: Tensor | None = None) -> Tensor:
        """Labels as they are, float64."""
        return labels_BK.double()

    def to_raw(self, scaled_BK: Tensor, covariates_BC: Tensor | None = None) -> Tensor:
        """Probabilities of class 1, float64."""
        return scaled_BK.double().sigmoid()


def _called(names: Sequence[str], target: int) -> str:
    return f"target {names[target] if names else target}"


def _usable(label_N: Tensor, target: str) -> Tensor:
    """The labels themselves, if there are any and all are finite."""
    if not len(label_N):
        raise UserError(f"{target} has no label in the training rows: leave it out")
    if not label_N.isfinite().all():
        raise UserError(f"{target} has an infinite label in the training rows")
    return label_N


def _least_squares(covariates_NC: Tensor, label_N: Tensor) -> Tensor:
    """Slopes and intercept (C + 1); the shortest solution where covariates depend on each other."""
    ones_N1 = covariates_NC.new_ones(len(covariates_NC), 1)
    inputs = torch.cat([covariates_NC, ones_N1], dim=1)
    return torch.linalg.lstsq(inputs, label_N[:, None], driver="gelsd").solution[:, 0]


def _spread(rest_N: Tensor, label_N: Tensor, target: str) -> Tensor:
    """Standard deviation of what is left to learn."""
    spread = rest_N.std(correction=0)
    if spread <= SMALLEST_SPREAD * label_N.abs().max():
        raise UserError(
            f"{target} leaves nothing to learn: its {len(label_N)} training labels are "
            f"all {float(label_N[0]):g}, or a linear function of the covariates. Leave it out."
        )
    return spread
