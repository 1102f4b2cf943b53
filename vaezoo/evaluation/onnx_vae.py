"""An exported folder as a VAE, for what is computed of models."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo.data.base import DataSpec
from vaezoo.errors import UnsupportedDataError
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.runtime import OnnxVAE
from vaezoo.vae import VAE

LEAST, MOST = 2**-25, 1 - 2**-24  # the means next to 0 and 1 that ONNX Runtime gives


class OnnxModuleVAE(VAE):
    """The graphs of an export, run in ONNX Runtime on the CPU.

    A decoder's graph gives means; their logits, which a likelihood takes, are as precise as the means are. ONNX
    Runtime's sigmoid has an error of 3e-8, and is 0 from -18 on, now and then before: logits beyond 17 are equal.

    Args:
        model: The opened export.

    Raises:
        UnsupportedDataError: If its files do not hold all that a likelihood needs: a posterior that is not Gaussian, a
            prior or a sigma of the model's own, or images rounded to bytes.
    """

    def __init__(self, model: OnnxVAE) -> None:
        described = model.manifest["data"]
        data = DataSpec(name=described["name"], shape=tuple(described["shape"]), likelihood=described["likelihood"])
        family, _, sigma = data.likelihood.partition(":")
        lacking = {
            "its images are rounded to bytes": model.dtype == "uint8",
            "its posterior is no diagonal Gaussian": model.outputs != DiagonalGaussian._fields,
            "the prior is the model's own": model.manifest["prior"] != "standard-normal",
            "its likelihood is not given by the mean": family == "continuous-bernoulli"
            or sigma in ("learned", "optimal"),
        }
        if reasons := [reason for reason, holds in lacking.items() if holds]:
            raise UnsupportedDataError(f"the export cannot be evaluated: {', '.join(reasons)}", "evaluate the run")
        super().__init__(data, model.latent_shape)
        self.model = model

    def encode(self, x: Tensor) -> DiagonalGaussian:
        fields = self.model.encode(x.numpy())
        return DiagonalGaussian(*(torch.from_numpy(fields[name]) for name in DiagonalGaussian._fields))

    def decode(self, z: Tensor) -> Tensor:
        return torch.logit(torch.from_numpy(self.model.decode(z.numpy())).clamp(LEAST, MOST))
