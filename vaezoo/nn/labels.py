"""Labels as inputs of networks, and the model that infers them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.core.precision import to_float32
from vaezoo.data.base import Split
from vaezoo.data.spec import DataSpec
from vaezoo.gaussian_vae import init_output_bias
from vaezoo.likelihoods.base import Shape
from vaezoo.posteriors.base import Head
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.posteriors.labelled import LabelledGaussian
from vaezoo.priors.labelled import LabelledNormal
from vaezoo.vae import VAE


def with_labels(values: Tensor, y: Tensor | None, classes: tuple[int, ...]) -> Tensor:
    """Appends labels to values, one-hot, as further channels.

    Args:
        values: `(B, n, ...)`.
        y: Labels `(B,)` or `(B, factors)`. None: nothing is appended.
        classes: How many values each label has.

    Returns:
        `(B, n + sum(classes), ...)`.
    """
    if y is None:
        return values
    columns = (y.unsqueeze(1) if y.ndim == 1 else y).unbind(1)
    hot = torch.cat([F.one_hot(column, n) for column, n in zip(columns, classes, strict=True)], 1).to(values.dtype)
    planes = hot.view(*hot.shape, *[1] * (values.ndim - 2)).expand(-1, -1, *values.shape[2:])
    return torch.cat([values, planes], 1)


class InferredLabelVAE(VAE):
    """The model M2 of Kingma et al. 2014, arXiv 1406.5298: p(y) p(z) p(x|y, z) with q(y|x) q(z|x, y).

    z and the label, one-hot, lie side by side in one latent. So what the model is applied to needs no labels. A label
    may be chosen to draw from the prior.

    Args:
        data: The data to model, with one label for each example.
        latent_dim: Number of latents without the label.
        input_shape: Shape in which the networks take the features of one example.
        encoder: From features and a label to the inputs of the head.
        head: From there to q(z|x, y), a diagonal Gaussian.
        classifier: From features to the logits of q(y|x), `(B, classes)`.
        decoder: From z and a label to the parameters of p(x|y, z).
    """

    def __init__(
        self,
        data: DataSpec,
        latent_dim: int,
        input_shape: Shape,
        encoder: nn.Module,
        head: Head,
        classifier: nn.Module,
        decoder: nn.Module,
    ) -> None:
        (self.label_count,) = data.classes
        prior = LabelledNormal(latent_dim, self.label_count)
        super().__init__(data, (latent_dim + self.label_count,), prior)
        self.input_shape = input_shape
        self.encoder = encoder
        self.head = head
        self.classifier = classifier
        self.decoder = decoder

    def encode(self, x: Tensor) -> LabelledGaussian:
        features, count = self.data.features(x).reshape(-1, *self.input_shape), self.label_count
        logits = to_float32(self.classifier(features))
        labels = torch.arange(count, device=x.device).repeat(len(features))
        rows = self.head(self.encoder(with_labels(features.repeat_interleave(count, 0), labels, (count,))))
        assert isinstance(rows, DiagonalGaussian)
        mu, logvar = (values.view(-1, count, values.shape[1]) for values in rows)
        return LabelledGaussian(logits, mu, logvar)

    def decode(self, z: Tensor) -> Tensor:
        params: Tensor = self.decoder(z)
        return params

    def init_from_data(self, train: Split) -> None:
        """Overridden: initialises the decoder's output bias, as GaussianVAE does."""
        init_output_bias(self.decoder, self.likelihood, train)

    def inference_parameters(self) -> list[nn.Parameter]:
        """Overridden: q(y|x) belongs to them, too."""
        return [*super().inference_parameters(), *self.classifier.parameters()]
