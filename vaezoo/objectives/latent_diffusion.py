"""The objective of latent diffusion's autoencoders: a likelihood, a perceptual and an adversarial loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vaezoo.core import distributed
from vaezoo.core.options import require_positive
from vaezoo.core.perceptual import (
    LpipsFiles,
    Network,
    PerceptualDistance,
    check_digits,
    load_classifier,
    load_lpips,
    misfit,
)
from vaezoo.data.base import Batch
from vaezoo.data.spec import DataSpec
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.likelihoods.laplace import Laplace
from vaezoo.objectives.base import LossOutput, Objective, ObjectivePart, StepContext
from vaezoo.objectives.elbo import elbo_terms, kl_with_free_bits
from vaezoo.objectives.patch_discriminator import PatchDiscriminator, check_patches, hinge
from vaezoo.objectives.vq import perplexities
from vaezoo.posteriors.base import Shape
from vaezoo.vae import VAE

MAX_ADAPTIVE, ADAPTIVE_EPSILON = 1e4, 1e-4  # as in the code of taming-transformers


@dataclass(frozen=True, kw_only=True)
class LatentDiffusionPart(ObjectivePart):
    """Likelihood, weighted KL, perceptual and adversarial loss, as the autoencoders of latent diffusion have them.

    Attributes:
        beta: Weight of the KL.
        perceptual: The network of the perceptual loss. lenet: the packaged classifier of digits, on grey images. lpips:
            VGG16, from two files. none: there is no such loss.
        perceptual_weight: Weight of the perceptual loss.
        vgg: File of torchvision's weights of VGG16, for lpips.
        vgg_sha256: How its SHA-256 begins, with at least eight digits.
        lpips: File of the weights that the lpips package has for VGG16, for lpips.
        lpips_sha256: How its SHA-256 begins, with at least eight digits.
        weight: Weight of the adversarial loss. 0: there is no discriminator.
        start: The first step with an adversarial loss. The published configurations have 50001.
        channels: Channels of the discriminator's first convolution.
        layers: Number of the discriminator's convolutions of stride 2.

    Raises:
        VaezooError: If a value is out of range, or files and network do not fit together.
    """

    part = "latent-diffusion"
    formula = (
        r"\mathcal{L} = \mathbb{E}_{q(z \mid x)}[-\log p(x \mid z)] + w_p\,\frac{n}{2b}\,d(x, \hat x)"
        r" + \beta\,\mathrm{KL}(q(z \mid x) \,\|\, p(z)) - w\,a\,\mathbb{E}[D(\hat x)]"
    )
    beta: float = 1e-6
    perceptual: Literal["lenet", "lpips", "none"] = "lenet"
    perceptual_weight: float = 1.0
    vgg: str | None = None
    vgg_sha256: str = "397923af"
    lpips: str | None = None
    lpips_sha256: str = "a78928a0"
    weight: float = 0.5
    start: int = 10_000
    channels: int = 64
    layers: int = 3

    def __post_init__(self) -> None:
        require_positive("objective.channels", self.channels)
        require_positive("objective.layers", self.layers)
        for name in ("beta", "perceptual_weight", "weight", "start"):
            if getattr(self, name) < 0:
                raise VaezooError(f"objective.{name} is {getattr(self, name):g}", "give at least 0")
        files = {"vgg": self.vgg, "lpips": self.lpips}
        if self.perceptual == "lpips" and None in files.values():
            what = "objective.perceptual=lpips needs the files objective.vgg and objective.lpips"
            raise VaezooError(what, "give both, or objective.perceptual=lenet")
        given = [name for name, file in files.items() if file is not None]
        if self.perceptual != "lpips" and given:
            what = f"objective.{given[0]} has no effect with objective.perceptual={self.perceptual}"
            raise VaezooError(what, "leave it out, or give objective.perceptual=lpips")
        for name in ("vgg_sha256", "lpips_sha256"):
            check_digits(f"objective.{name}", getattr(self, name))

    def build(self, data: DataSpec, latent_shape: Shape) -> LatentDiffusion:
        """Builds the objective.

        Raises:
            UnsupportedDataError: If the data are no images in [0, 1], or these are too small.
        """
        if len(data.shape) != 3 or data.kind != "unit":
            what = f"objective={self.part} compares images in [0, 1], and '{data.name}' has shape {data.shape}"
            raise UnsupportedDataError(f"{what} and kind {data.kind}", "use objective=elbo")
        if self.perceptual != "none":
            check_perceptual(data, self.perceptual)
        if self.weight > 0:
            check_patches(data.name, data.shape[1:], self.layers)
        return LatentDiffusion(self, data)


def check_perceptual(data: DataSpec, network: Network) -> None:
    """Raises UnsupportedDataError if a network of the perceptual loss does not take such images."""
    if (takes := misfit(network, data.shape)) is not None:
        what = f"objective.perceptual={network} takes {takes}, not {data.shape}"
        raise UnsupportedDataError(what, "use objective.perceptual=none")


class LatentDiffusion(Objective):
    """The loss of Rombach et al. 2022, arXiv 2112.10752, appendix G, as in their code (LPIPSWithDiscriminator).

        L = -log p(x|z) + w_p D/(2b) d(x, x^) + beta KL - start(t) w a E[discriminator(x^)]
        a = |dL_rec / dW| / (|dL_adv / dW| + 1e-4), at most 1e4

    x^ is the mean of p(x|z), d the perceptual distance, D the number of pixel values. W is the last weight of the
    decoder. L_rec are the first two terms, L_adv is -E[discriminator(x^)], and a has no gradient. The discriminator
    minimises the hinge loss. Both losses are 0 before the step `start`.

    Their reconstruction is the absolute error of pixels from -1 to 1, divided by a scale e^s, plus s. This is
    -log p(x|z) of a Laplace distribution of pixels from 0 to 1 with b = e^s / 2. So `--likelihood laplace:0.5` is
    theirs with s = 0, where their code starts and, as it gives s to no optimizer, stays. `laplace:learned` trains it.
    With another likelihood 1/(2b) is 1.

    Theirs updates the discriminator after the autoencoder, on new reconstructions. Here both losses are of one pass.

    Args:
        options: The options.
        data: The images.
    """

    def __init__(self, options: LatentDiffusionPart, data: DataSpec) -> None:
        super().__init__()
        self.options = options
        self.dims = data.dims
        self.distance = load_classifier() if options.perceptual == "lenet" else None
        self.discriminator: PatchDiscriminator | None = None
        self.monitor = "weighted_elbo"
        if options.weight > 0:
            self.discriminator = PatchDiscriminator(data.shape[0], options.channels, options.layers)
            self.monitor = None  # images that look better have a larger error, so no metric tells the best checkpoint

    def prepare(self) -> None:
        """Overridden: reads the files of the perceptual loss."""
        if self.options.perceptual == "lpips" and self.distance is None:
            self.distance = self._load_lpips()

    def _load_lpips(self) -> PerceptualDistance:
        options = self.options
        assert options.vgg is not None and options.lpips is not None
        digits = {"vgg_sha256": options.vgg_sha256, "lpips_sha256": options.lpips_sha256}
        return load_lpips(LpipsFiles(vgg=options.vgg, lpips=options.lpips, **digits))

    def parameter_groups(self, vae: VAE) -> dict[str, list[nn.Parameter]]:
        groups = {"vae": list(vae.parameters())}
        return groups | ({"discriminator": list(self.discriminator.parameters())} if self.discriminator else {})

    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        terms = elbo_terms(vae, batch)
        mean = vae.likelihood.mean(terms.params)
        perceptual = self.perceptual_loss(vae, batch.x, mean).mean()
        reconstruction = terms.reconstruction.mean() + perceptual
        kl = kl_with_free_bits(terms.kl_terms, step.free_bits)
        loss = terms.with_auxiliary(reconstruction + self.options.beta * step.kl_weight * kl)
        metrics = {**terms.metrics, **perplexities(terms.z, vae.latent_levels), "perceptual": perceptual.detach()}
        metrics["weighted_elbo"] = -(reconstruction.detach() + self.options.beta * metrics["kl"])
        if self.discriminator is None:
            return LossOutput({"vae": loss}, metrics)
        real, fake = (self.discriminator(2 * images - 1) for images in (batch.x, mean))
        adversarial, discriminator = -fake.mean(), hinge(real, fake)
        active = (step.global_step >= self.options.start).to(loss.dtype)
        weight = active * self.options.weight * adaptive_weight(reconstruction, adversarial, last_weight(vae))
        losses = {"vae": loss + weight * adversarial, "discriminator": active * discriminator}
        extra = {"adversarial": adversarial, "adversarial_weight": weight, "discriminator": discriminator}
        return LossOutput(losses, metrics | {name: value.detach() for name, value in extra.items()})

    def perceptual_loss(self, vae: VAE, x: Tensor, mean: Tensor) -> Tensor:
        """Returns the weighted perceptual loss of each example, `(B,)`, in nats."""
        self.prepare()
        if self.distance is None:
            return x.new_zeros(len(x))
        likelihood = vae.likelihood
        precision = torch.exp(-likelihood.log_scale) / 2 if isinstance(likelihood, Laplace) else 1.0
        weight = self.options.perceptual_weight * self.dims * precision
        loss: Tensor = weight * self.distance(x, mean)
        return loss


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, parameter: Tensor) -> Tensor:
    """Returns how many times larger the gradient of the reconstruction is than that of the adversarial loss, `()`.

    Esser et al. 2021, arXiv 2012.09841, equation 7. The gradients are those of the batch of all processes. Without
    gradients, as in an evaluation, it is 0.

    Args:
        reconstruction: A loss, `()`.
        adversarial: A loss, `()`.
        parameter: What the gradients are taken by.
    """
    if not torch.is_grad_enabled():
        return torch.zeros_like(reconstruction)
    norms = [
        distributed.dist_mean(torch.autograd.grad(loss, parameter, retain_graph=True)[0]).norm()
        for loss in (reconstruction, adversarial)
    ]
    ratio: Tensor = norms[0] / (norms[1] + ADAPTIVE_EPSILON)
    return ratio.clamp(max=MAX_ADAPTIVE).detach()


def last_weight(vae: VAE) -> Tensor:
    """Returns the weight of the decoder's last layer. Raises VaezooError if the model has no module `decoder`."""
    decoder = getattr(vae, "decoder", None)
    weights = [p for p in decoder.parameters() if p.dim() > 1] if isinstance(decoder, nn.Module) else []
    if not weights:
        raise VaezooError(f"{type(vae).__name__} has no module 'decoder' with weights", "use objective.weight=0")
    return weights[-1]
