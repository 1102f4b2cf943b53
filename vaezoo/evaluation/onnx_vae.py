"""An adapter that lets metrics evaluate an export as a VAE."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo.data.base import DataSpec
from vaezoo.errors import UnsupportedDataError
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.runtime import OnnxVAE
from vaezoo.vae import VAE

MIN_MEAN, MAX_MEAN = 2**-25, 1 - 2**-24  # the means closest to 0 and 1 that ONNX Runtime's sigmoid returns


class OnnxModuleVAE(VAE):
    """The graphs of an export, run by ONNX Runtime on the CPU.

    A decoder graph returns means, but a likelihood needs their logits. The logits are as precise as the means. ONNX
    Runtime's sigmoid has an error of 3e-8. It returns 0 below -18, and sometimes a little above. Means are therefore
    clamped, and logits beyond 17 become equal.

    Args:
        model: The opened export.

    Raises:
        UnsupportedDataError: If the files lack something that a likelihood needs. This is so for a posterior that is
            not Gaussian, another prior, a learned sigma, and images rounded to bytes.
    """

    def __init__(self, model: OnnxVAE) -> None:
        record = model.manifest["data"]
        data = DataSpec(name=record["name"], shape=tuple(record["shape"]), likelihood=record["likelihood"])
        family, _, sigma = data.likelihood.partition(":")
        obstacles = {
            "its images are rounded to bytes": model.dtype == "uint8",
            "its posterior is not a diagonal Gaussian": model.outputs != DiagonalGaussian._fields,
            "its prior is not the standard normal": model.manifest["prior"] != "standard-normal",
            "its likelihood needs more than the mean": family == "continuous-bernoulli"
            or sigma in ("learned", "optimal"),
        }
        if reasons := [reason for reason, holds in obstacles.items() if holds]:
            raise UnsupportedDataError(f"the export cannot be evaluated: {', '.join(reasons)}", "evaluate the run")
        super().__init__(data, model.latent_shape)
        self.model = model

    def encode(self, x: Tensor) -> DiagonalGaussian:
        fields = self.model.encode(x.numpy())
        return DiagonalGaussian(*(torch.from_numpy(fields[name]) for name in DiagonalGaussian._fields))

    def decode(self, z: Tensor) -> Tensor:
        return torch.logit(torch.from_numpy(self.model.decode(z.numpy())).clamp(MIN_MEAN, MAX_MEAN))
