"""The likelihood of tables whose real columns have modes (Xu et al. 2019, arXiv 1907.00503, section 4.2).

A variational Gaussian mixture is fitted to each real column of the training part. A value then is a mode k and its
place alpha = (x - m_k) / (4 s_k) within the mode. The decoder gives the probabilities of the modes and one place a, and
each column has its own learned sigma:

    p(x|z) = sum_k p(k|z) N(x; m_k + 4 s_k tanh(a), (4 s_k sigma)^2)

The published code draws a mode for each value, and maximises log p(k|z) + log p(alpha|z) for it. The sum over the modes
is the density of x itself. Its ELBO is a bound on log p(x) in the units of x, and never below the published one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vaezoo.core.dependencies import table_dependencies
from vaezoo.likelihoods.base import Likelihood, Shape
from vaezoo.likelihoods.table import LOG_2PI, model_columns

if TYPE_CHECKING:
    from vaezoo.data.base import Split

MODES = 10  # at most; the mixture leaves out those that it does not need
MIN_WEIGHT = 0.005  # of a mode, as in the published code
WIDTH = 4.0  # standard deviations of a mode that alpha = 1 stands for
MIN_SIGMA, MAX_SIGMA, FIRST_SIGMA = 0.01, 1.0, 0.1  # of alpha, as in the published code
MIN_SCALE = 1e-3  # of a mode of standardized data
FIT_ROWS = 10_000  # evenly spaced rows that mixtures are fitted to
OFF = -1e4  # the logit of a mode that a column does not have; float16 holds it


class ModeTable(Likelihood):
    """Columns that are independent given z: real ones with modes, and categories. NaN is a missing cell.

    `params` hold, side by side, the logits of the modes and the raw place of each real column, and k logits for each
    column of k categories.

    Args:
        columns: As in `vaezoo.likelihoods.table.model_columns`.

    Attributes:
        log_weights: Logarithms of the weights of the modes, `(real columns, MODES)`.
        means: Their means, in the units of x.
        scales: Their standard deviations.
    """

    kinds = ("table",)

    def __init__(self, columns: tuple[str, ...]) -> None:
        super().__init__()
        parsed = model_columns(columns)
        self.sizes = tuple(column.size for column in parsed)
        self.may_miss = tuple(column.may_miss for column in parsed)
        self.real = [i for i, size in enumerate(self.sizes) if not size]
        first = torch.full((len(self.real), MODES), OFF)
        first[:, :1] = 0.0
        self.register_buffer("log_weights", first)
        self.register_buffer("means", torch.zeros(len(self.real), MODES))
        self.register_buffer("scales", torch.ones(len(self.real), MODES))
        self.log_weights: Tensor
        self.means: Tensor
        self.scales: Tensor
        self.log_sigma = nn.Parameter(torch.full((len(self.real),), math.log(FIRST_SIGMA)))

    def init_from_data(self, train: Split) -> None:
        """Overridden: fits the modes of each real column.

        Raises:
            VaezooError: If scikit-learn is not installed.
        """
        x = train.subsample(FIT_ROWS).x
        for row, column in enumerate(self.real):
            values = x[:, column].double()
            weights, means, scales = fit_modes(values[~values.isnan()])
            count = len(weights)
            self.log_weights[row] = OFF
            self.log_weights[row, :count], self.means[row, :count], self.scales[row, :count] = (
                weights.log().float(),
                means.float(),
                scales.float(),
            )

    def params_shape(self, shape: Shape) -> Shape:
        return (sum(size or MODES + 1 for size in self.sizes),)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        missing, terms, row = x.isnan(), [], 0
        x = x.masked_fill(missing, 0)
        for i, (size, p) in enumerate(zip(self.sizes, self._columns(params), strict=True)):
            if size:
                terms.append(torch.log_softmax(p, 1).gather(1, x[:, i : i + 1].long()).squeeze(1))
                continue
            log_p, means, deviations = self._mixture(row, p)
            square = ((x[:, i : i + 1] - means) / deviations).square()
            terms.append(torch.logsumexp(log_p - 0.5 * (square + LOG_2PI) - deviations.log(), 1))
            row += 1
        return torch.stack(terms, 1).masked_fill(missing, 0).sum(1)

    def mean(self, params: Tensor) -> Tensor:
        columns, row = [], 0
        for size, p in zip(self.sizes, self._columns(params), strict=True):
            if size:
                columns.append(p.argmax(1).to(p.dtype))
                continue
            log_p, means, _ = self._mixture(row, p)
            columns.append((log_p.exp() * means).sum(1))
            row += 1
        return torch.stack(columns, 1)

    def sample(self, params: Tensor) -> Tensor:
        columns, row = [], 0
        for size, p in zip(self.sizes, self._columns(params), strict=True):
            if size:
                columns.append(torch.multinomial(torch.softmax(p, 1), 1).squeeze(1).to(p.dtype))
                continue
            log_p, means, deviations = self._mixture(row, p)
            mode = torch.multinomial(log_p.exp(), 1)
            noise = torch.randn_like(p[:, 0])
            columns.append(means.gather(1, mode).squeeze(1) + deviations.gather(1, mode).squeeze(1) * noise)
            row += 1
        return torch.stack(columns, 1)

    def outputs(self, params: Tensor) -> dict[str, Tensor]:
        """Overridden: the means of real columns and the probabilities of categories, side by side.

        `mode_probabilities`, `mode_means` and `deviations` are those of the modes of real columns, if there are any,
        `(B, real columns, MODES)` each. They give p(x|z).
        """
        columns: list[Tensor] = []
        modes: list[tuple[Tensor, Tensor, Tensor]] = []
        for size, p in zip(self.sizes, self._columns(params), strict=True):
            if size:
                columns.append(torch.softmax(p, 1))
                continue
            log_p, means, deviations = self._mixture(len(modes), p)
            modes.append((log_p.exp(), means, deviations))
            columns.append((modes[-1][0] * means).sum(1, keepdim=True))
        outputs = {"columns": torch.cat(columns, 1)}
        if modes:
            names = ("mode_probabilities", "mode_means", "deviations")
            outputs |= {
                name: torch.stack(parts, 1) for name, parts in zip(names, zip(*modes, strict=True), strict=True)
            }
        return outputs

    @property
    def features_size(self) -> int:
        """How many numbers `normalize` returns for a row."""
        columns = zip(self.sizes, self.may_miss, strict=True)
        return sum(size or MODES + 1 + may_miss for size, may_miss in columns)

    def normalize(self, x: Tensor) -> Tensor:
        """Returns rows by mode, as a network takes them, `(B, features_size)`.

        A real column becomes the probabilities of its modes given x, and the place of x within them. The published
        code draws one mode instead. Categories are one-hot. A missing cell is all zeros.
        """
        missing, features, row = x.isnan(), [], 0
        x = x.masked_fill(missing, 0)
        for i, (size, may_miss) in enumerate(zip(self.sizes, self.may_miss, strict=True)):
            observed = (~missing[:, i : i + 1]).to(x.dtype)
            if size:
                features.append(nn.functional.one_hot(x[:, i].long(), size).to(x.dtype) * observed)
                continue
            place = (x[:, i : i + 1] - self.means[row]) / (WIDTH * self.scales[row])
            log_joint = self.log_weights[row] - 0.5 * (WIDTH * place).square() - self.scales[row].log()
            probabilities = torch.softmax(log_joint, 1)
            alpha = (probabilities * place).sum(1, keepdim=True).clamp(-1, 1)
            features += [probabilities * observed, alpha * observed, *([observed] if may_miss else [])]
            row += 1
        return torch.cat(features, 1)

    def _mixture(self, row: int, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns log probabilities, means and deviations of the modes of a real column, `(B, MODES)` each."""
        has_mode = self.log_weights[row] > 0.5 * OFF
        log_p = torch.log_softmax(torch.where(has_mode, p[:, :-1], OFF), 1)
        width = WIDTH * self.scales[row]
        sigma = self.log_sigma[row].clamp(math.log(MIN_SIGMA), math.log(MAX_SIGMA)).exp()
        return log_p, self.means[row] + width * torch.tanh(p[:, -1:]), (width * sigma).expand_as(log_p)

    def _columns(self, params: Tensor) -> tuple[Tensor, ...]:
        return torch.split(params, [size or MODES + 1 for size in self.sizes], 1)


def fit_modes(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fits a variational Gaussian mixture, as the published code does. It is deterministic.

    Args:
        values: `(N,)`, float64.

    Returns:
        Weights, means and standard deviations of the modes with a weight above MIN_WEIGHT.

    Raises:
        VaezooError: If scikit-learn is not installed.
    """
    with table_dependencies("the modes of a table's columns"):
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import BayesianGaussianMixture
    import warnings

    mixture = BayesianGaussianMixture(
        n_components=min(MODES, len(set(values.tolist()))),
        weight_concentration_prior_type="dirichlet_process",
        weight_concentration_prior=0.001,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # its modes are good enough after 100 iterations
        mixture.fit(values.unsqueeze(1).numpy())
    kept = mixture.weights_ > MIN_WEIGHT
    weights = torch.from_numpy(mixture.weights_[kept])
    scales = torch.from_numpy(mixture.covariances_[kept, 0, 0]).sqrt().clamp(min=MIN_SCALE)
    return weights / weights.sum(), torch.from_numpy(mixture.means_[kept, 0]), scales
