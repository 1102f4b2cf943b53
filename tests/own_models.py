"""Models of a package of its own, each of a kind that no simple built-in model is of.

The fixture `own_models` of conftest.py registers them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo import VAE, DataSpec, DiagonalGaussian, ModelSpec, UnsupportedDataError
from vaezoo.posteriors.gaussian import LOG_2PI
from vaezoo.priors.base import Autoregressive, Prior


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of all models here."""

    latent_dim: int = 3


def one_hot(data: DataSpec, y: Tensor) -> Tensor:
    """Returns labels as one-hot vectors side by side, `(B, sum(classes))`."""
    columns = y.unsqueeze(1) if y.ndim == 1 else y
    pairs = zip(columns.unbind(1), data.classes, strict=True)
    return torch.cat([F.one_hot(column, count).float() for column, count in pairs], 1)


class LabelPrior(Prior):
    """A normal distribution around a mean for each label."""

    inputs = ("y",)

    def __init__(self, data: DataSpec, latent_dim: int) -> None:
        super().__init__()
        self.data = data
        self.noise_shape = (latent_dim,)
        self.means = nn.Linear(sum(data.classes), latent_dim, bias=False)

    def from_noise(self, noise: Tensor, *given: Tensor) -> Tensor:
        return noise + self.means(one_hot(self.data, given[0]))

    def log_prob(self, z: Tensor, *given: Tensor) -> Tensor:
        noise = z - self.means(one_hot(self.data, given[0]))
        return -0.5 * (noise.square() + LOG_2PI).sum(1)


class ConditionalVAE(VAE):
    """q(z|x, y), p(x|z, y) and, with `prior`, p(z|y)."""

    encoder_inputs = ("x", "y")
    decoder_inputs = ("y",)

    def __init__(self, config: Config, data: DataSpec, *, prior: bool = False) -> None:
        if not data.classes:
            raise UnsupportedDataError("the model needs labels", "give data with labels")
        super().__init__(data, (config.latent_dim,), LabelPrior(data, config.latent_dim) if prior else None)
        labels = sum(data.classes)
        self.encoder = nn.Linear(math.prod(data.features_shape) + labels, 2 * config.latent_dim)
        self.decoder = nn.Linear(config.latent_dim + labels, math.prod(data.params_shape))

    def encode(self, x: Tensor, y: Tensor) -> DiagonalGaussian:
        features = torch.cat([self.data.features(x).flatten(1), one_hot(self.data, y)], 1)
        return DiagonalGaussian.from_raw(*self.encoder(features).chunk(2, 1))

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        return self.decoder(torch.cat([z, one_hot(self.data, y)], 1)).unflatten(1, self.data.params_shape)


class TwoLevelPrior(Prior):
    """p(z2) is standard normal, p(z1|z2) normal with a mean and a scale from z2. z is [z1, z2]."""

    def __init__(self, levels: tuple[int, int]) -> None:
        super().__init__()
        self.levels = levels
        self.noise_shape = (sum(levels),)
        self.network = nn.Sequential(nn.Linear(levels[1], 8), nn.Tanh(), nn.Linear(8, 2 * levels[0]))

    def lower(self, z2: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian.from_raw(*self.network(z2).chunk(2, 1))

    def from_noise(self, noise: Tensor, *given: Tensor) -> Tensor:
        noise1, z2 = noise.split(self.levels, 1)
        mu, logvar = self.lower(z2)
        return torch.cat([mu + torch.exp(0.5 * logvar) * noise1, z2], 1)

    def log_prob(self, z: Tensor, *given: Tensor) -> Tensor:
        z1, z2 = z.split(self.levels, 1)
        return self.lower(z2).log_prob(z1) - 0.5 * (z2.square() + LOG_2PI).sum(1)


class TwoLevels(VAE):
    """A Gaussian posterior over both levels of a hierarchy."""

    LEVELS = (2, 3)

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(data, (sum(self.LEVELS),), TwoLevelPrior(self.LEVELS))
        self.encoder = nn.Linear(data.dims, 2 * sum(self.LEVELS))
        self.decoder = nn.Linear(sum(self.LEVELS), data.dims)

    def encode(self, x: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian.from_raw(*self.encoder(x.flatten(1)).chunk(2, 1))

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z).unflatten(1, self.data.shape)


def before(ids: Tensor, table: nn.Embedding) -> Tensor:
    """Returns for each position the mean of the embeddings of the ids before it, `(B, T, D)`."""
    total = table(ids).cumsum(1)
    places = torch.arange(1, ids.shape[1] + 1, device=ids.device).float().view(1, -1, 1)
    return F.pad(total / places, (0, 0, 1, 0))[:, :-1]


class Sentences(VAE):
    """Token ids. The decoder sees z and the ids before each position."""

    decoder_inputs = ("x",)
    END = 1

    def __init__(self, config: Config, data: DataSpec) -> None:
        if data.kind != "tokens":
            raise UnsupportedDataError("the model needs tokens", "give texts")
        super().__init__(data, (config.latent_dim,))
        self.autoregressive = Autoregressive(data.shape[0], self.END)
        self.encoder = nn.Linear(math.prod(data.features_shape), 2 * config.latent_dim)
        self.table = nn.Embedding(data.vocabulary, 6)
        self.latents = nn.Linear(config.latent_dim, 6)
        self.logits = nn.Linear(6, data.vocabulary)

    def encode(self, x: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian.from_raw(*self.encoder(self.data.features(x).flatten(1)).chunk(2, 1))

    def decode(self, z: Tensor, x: Tensor) -> Tensor:
        return self.logits(torch.tanh(before(x, self.table) + self.latents(z).unsqueeze(1)))


class Codes(NamedTuple):
    """All probability on one row of codes."""

    codes: Tensor

    def rsample(self) -> Tensor:
        return self.codes

    def log_prob(self, z: Tensor) -> Tensor:
        return torch.zeros(len(z), device=z.device)

    def mode(self) -> Tensor:
        return self.codes


class CodePrior(Prior):
    """Codes that are drawn one by one."""

    def __init__(self, length: int, codes: int) -> None:
        super().__init__()
        self.autoregressive = Autoregressive(length)
        self.table = nn.Embedding(codes, 6)
        self.logits = nn.Linear(6, codes)

    def id_logits(self, z: Tensor, *given: Tensor) -> Tensor:
        return self.logits(before(z, self.table))

    def log_prob(self, z: Tensor, *given: Tensor) -> Tensor:
        return torch.log_softmax(self.id_logits(z), 2).gather(2, z.unsqueeze(2)).flatten(1).sum(1)


class CodeVAE(VAE):
    """Each latent is the index of the largest of some numbers. The encoder is not trained."""

    CODES = 5

    def __init__(self, config: Config, data: DataSpec) -> None:
        super().__init__(data, (config.latent_dim,), CodePrior(config.latent_dim, self.CODES))
        self.register_buffer("weight", torch.randn(config.latent_dim * self.CODES, data.dims))
        self.table = nn.Embedding(self.CODES, 4)
        self.decoder = nn.Linear(4 * config.latent_dim, data.dims)

    def encode(self, x: Tensor) -> Codes:
        return Codes(F.linear(x.flatten(1), self.weight).unflatten(1, (-1, self.CODES)).argmax(2))

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(self.table(z).flatten(1)).unflatten(1, self.data.shape)


def prior_of_labels(config: Config, data: DataSpec) -> ConditionalVAE:
    """Builds a conditional model whose prior depends on the labels, too."""
    return ConditionalVAE(config, data, prior=True)


def spec(build) -> ModelSpec:
    """Returns the ModelSpec of a model here."""
    return ModelSpec(config=Config(), build=build, summary="a test", reference="none")


MODELS = {
    "own-conditional": "CONDITIONAL",
    "own-label-prior": "LABEL_PRIOR",
    "own-two-levels": "TWO_LEVELS",
    "own-sentences": "SENTENCES",
    "own-codes": "CODES",
}
CONDITIONAL, LABEL_PRIOR, TWO_LEVELS = spec(ConditionalVAE), spec(prior_of_labels), spec(TwoLevels)
SENTENCES, CODES = spec(Sentences), spec(CodeVAE)
