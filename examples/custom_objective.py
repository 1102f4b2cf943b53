"""Trains a network of one's own with an objective of one's own, without a plugin and without a run folder.

The objective is that of MMD-VAE (Zhao et al. 2017, arXiv 1706.02262). It replaces the KL by the maximum mean
discrepancy (MMD) between the latents of a batch and samples from the prior.

    python examples/custom_objective.py --steps 1000
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vaezoo import VAE, Batch, GaussianVAE, LossOutput, Objective, Report, StepContext, TrainConfig, Trainer, load_data
from vaezoo.objectives.elbo import elbo_terms


class MMDVAE(Objective):
    """The reconstruction and a weighted MMD.

    With several processes the MMD is that of each process's share of the batch.

    Args:
        weight: Weight of the MMD against the reconstruction, which is in nats.
    """

    def __init__(self, weight: float = 500.0) -> None:
        super().__init__()
        self.weight = weight

    def parameter_groups(self, vae: VAE) -> dict[str, list[nn.Parameter]]:
        return {"vae": list(vae.parameters())}

    def forward(self, vae: VAE, batch: Batch, step: StepContext) -> LossOutput:
        terms = elbo_terms(vae, batch)
        mmd = squared_mmd(terms.z, vae.prior.sample(len(batch.x)))
        loss = terms.reconstruction.mean() + self.weight * step.kl_weight * mmd
        return LossOutput({"vae": loss}, terms.metrics | {"mmd": mmd.detach()})


def squared_mmd(a: Tensor, b: Tensor) -> Tensor:
    """Returns the squared MMD of two samples `(B, latent)` under a Gaussian kernel, `()`."""
    return kernel(a, a).mean() + kernel(b, b).mean() - 2 * kernel(a, b).mean()


def kernel(a: Tensor, b: Tensor) -> Tensor:
    """Returns exp(-|a - b|^2 / latent) for all pairs, `(B, B)`."""
    square = (a.unsqueeze(1) - b.unsqueeze(0)).square().sum(2)
    return torch.exp(-square / a.shape[1])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Trains an MMD-VAE on the packaged digits.")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--latent-dim", type=int, default=8)
    parser.add_argument("--out", default="mmd-vae.safetensors", help="where the weights are written")
    args = parser.parse_args(arguments)

    data = load_data("digits")
    torch.manual_seed(0)  # of the initial weights
    encoder = nn.Sequential(
        nn.Flatten(), nn.Linear(data.spec.dims, 256), nn.ReLU(), nn.Linear(256, 2 * args.latent_dim)
    )
    decoder = nn.Sequential(
        nn.Linear(args.latent_dim, 256),
        nn.ReLU(),
        nn.Linear(256, data.spec.dims),
        nn.Unflatten(1, data.spec.shape),
    )
    vae = GaussianVAE(data.spec, args.latent_dim, encoder, decoder)
    vae.init_from_data(data.train)  # the decoder starts with the data mean

    config = TrainConfig(steps=args.steps, kl_warmup=args.steps // 5)
    Trainer(vae, MMDVAE(), data, config, on_report=show).fit()
    save_file(vae.state_dict(), args.out)
    print(f"written {args.out}")


def show(report: Report) -> None:
    """Prints the validation metrics after each epoch."""
    if report.split == "valid":
        print(f"step {report.step} of {report.steps}: " + ", ".join(f"{k} {v:.3f}" for k, v in report.metrics.items()))


if __name__ == "__main__":
    main()
