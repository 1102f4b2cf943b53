"""The reference model of train_throughput.py: two networks as a tutorial would write them, and their data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vaezoo import Dataset, VaezooError, load_data

LR = 1e-3
PIXELS = 28 * 28
HIDDEN, CHANNELS = 512, (32, 64)
LATENT_DIM = {"mlp": 20, "conv": 16}
MODELS: dict[str, tuple[str, dict[str, object]]] = {
    "mlp": ("mlp-vae", {"latent_dim": LATENT_DIM["mlp"], "hidden": (HIDDEN,)}),
    "conv": ("conv-vae", {"latent_dim": LATENT_DIM["conv"]}),
}
LOGVAR_BOUND = 10.0  # vaezoo bounds log-variances in the same way, so the bound is part of the network


@dataclass(frozen=True, kw_only=True)
class Job:
    """The task of one worker process.

    Attributes:
        backend: Name of the backend, a key of `baselines.BACKENDS`.
        network: "mlp" or "conv".
        batch: Images per step.
        device: "cpu" or "cuda".
        threads: Number of PyTorch's threads.
        data: "mnist" or "digits".
        data_dir: Folder of torchvision's MNIST.
        warm_up: Steps before the first turn. The mean loss of the last 50 is compared between backends.
        seconds: Length of a turn.
    """

    backend: str
    network: str
    batch: int
    device: str
    threads: int
    data: str
    data_dir: str | None
    warm_up: int
    seconds: float


class PlainVAE(nn.Module):
    """The network in plain PyTorch. A call returns logits, means and log-variances."""

    def __init__(self, network: str) -> None:
        super().__init__()
        latent = LATENT_DIM[network]
        first, second = CHANNELS
        if network == "mlp":
            self.encoder = nn.Sequential(
                nn.Flatten(), nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * latent)
            )
            self.decoder = nn.Sequential(
                nn.Linear(latent, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, PIXELS), nn.Unflatten(1, (1, 28, 28))
            )
        else:
            self.encoder = nn.Sequential(
                nn.Conv2d(1, first, 4, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(first, second, 4, stride=2, padding=1),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(second * 7 * 7, 2 * latent),
            )
            self.decoder = nn.Sequential(
                nn.Linear(latent, second * 7 * 7),
                nn.ReLU(),
                nn.Unflatten(1, (second, 7, 7)),
                nn.ConvTranspose2d(second, first, 4, stride=2, padding=1),
                nn.ReLU(),
                nn.ConvTranspose2d(first, 1, 4, stride=2, padding=1),
            )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the posterior's means and log-variances, each `(B, latent)`."""
        mu, raw = self.encoder(x).chunk(2, dim=1)
        return mu, LOGVAR_BOUND * torch.tanh(raw / LOGVAR_BOUND)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.encode(x)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.decoder(z), mu, logvar


def negative_elbo(vae: PlainVAE, x: Tensor) -> Tensor:
    """Returns the negative ELBO in nats per image."""
    logits, mu, logvar = vae(x)
    reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    return (reconstruction + kl(mu, logvar)) / len(x)


def tutorial_loss(vae: PlainVAE, x: Tensor) -> Tensor:
    """Returns the negative ELBO as most tutorials compute it: a sigmoid, then the cross-entropy."""
    logits, mu, logvar = vae(x)
    reconstruction = F.binary_cross_entropy(torch.sigmoid(logits), x, reduction="sum")
    return (reconstruction + kl(mu, logvar)) / len(x)


def kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """Returns the KL divergence to the standard normal, summed over the batch, in nats."""
    return -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())


def count_parameters(model: nn.Module) -> int:
    """Returns the number of weights."""
    return sum(p.numel() for p in model.parameters())


def flops_per_image(network: str) -> int:
    """Returns the operations of the products and convolutions of the forward and backward passes.

    The gradient of the image is not computed, so it is not counted.
    """
    images = 2
    vae, x = PlainVAE(network), torch.rand(images, 1, 28, 28)
    with FlopCounterMode(display=False) as counter:
        negative_elbo(vae, x).backward()
    return int(counter.get_total_flops()) // images


def choose_data(data_dir: Path | None) -> str:
    """Returns "mnist" if the folder contains it, else "digits". Nothing is downloaded."""
    return "mnist" if data_dir is not None and (data_dir / "MNIST" / "raw").is_dir() else "digits"


def load_dataset(job: Job, likelihood: str | None = None) -> Dataset:
    """Loads the data set of a job. The likelihood is by default that of the data.

    Raises:
        VaezooError: If its images are not grey images of 28x28 pixels.
    """
    data = load_data(job.data, data_dir=job.data_dir, likelihood=likelihood)
    if data.spec.shape != (1, 28, 28):
        raise VaezooError(f"data set '{job.data}' has shape {data.spec.shape}", "use a data set of shape (1, 28, 28)")
    return data


def load_bytes(job: Job) -> Tensor:
    """Returns the training images of a job as bytes, `(N, 1, 28, 28)`."""
    return load_dataset(job).train.gather(slice(None)).x
