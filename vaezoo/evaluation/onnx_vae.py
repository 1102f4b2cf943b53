"""An adapter that lets metrics evaluate an export as a VAE."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from vaezoo.core.options import construct
from vaezoo.data.spec import DataSpec
from vaezoo.errors import UnsupportedDataError
from vaezoo.evaluation.onnx_tables import ExportedTable
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.runtime import OnnxVAE
from vaezoo.runtime.generate import draws_rows, needs_only_mean
from vaezoo.vae import VAE

MIN_MEAN, MAX_MEAN = 2**-25, 1 - 2**-24  # the means closest to 0 and 1 that ONNX Runtime's sigmoid returns


class OnnxModuleVAE(VAE):
    """The graphs of an export, run by ONNX Runtime on the CPU.

    A decoder graph of texts returns logits. Others return means, but a likelihood needs their logits. These are as
    precise as the means. ONNX Runtime's sigmoid has an error of 3e-8. It returns 0 below -18, and sometimes a little
    above. Means are therefore clamped, and logits beyond 17 become equal.

    Args:
        model: The opened export.

    Raises:
        UnsupportedDataError: If the files lack something that a likelihood needs. This is so for a posterior that is
            not Gaussian or lacks a part, another prior, images rounded to bytes, and every likelihood but `bernoulli`,
            those of tables and counts, `categorical` of texts, and a `gaussian` or `laplace` whose scale is a number.
    """

    def __init__(self, model: OnnxVAE) -> None:
        if missing := sorted({"encoder", "decoder"} - model.sessions.keys()):
            raise UnsupportedDataError(f"the export has no {missing[0]}", "export the run without --parts")
        kind, likelihood = model.data["kind"], model.data["likelihood"]
        gives_rows, gives_logits = draws_rows(model), (kind, likelihood) == ("tokens", "categorical")
        is_complete = gives_rows or gives_logits  # the decoder's outputs give p(x|z)
        obstacles = {
            f"data of kind {kind} need more than the decoder's output": not is_complete
            and kind not in ("unit", "real"),
            "its sizes are free": any(isinstance(n, str) for n in model.latent_shape),
            "its encoder takes waveforms": model.manifest["format"].get("waveform", False),
            "its images are rounded to bytes": model.dtype == "uint8",
            "its posterior is not a diagonal Gaussian": model.outputs != DiagonalGaussian._fields,
            "it leaves out a part of the posterior": bool(model.manifest.get("left_out")),
            "its prior is not the standard normal": model.manifest["prior"] != "standard-normal",
            "its likelihood needs more than the mean": not (is_complete or needs_only_mean(likelihood)),
        }
        if reasons := [reason for reason, holds in obstacles.items() if holds]:
            raise UnsupportedDataError(f"the export cannot be evaluated: {', '.join(reasons)}", "evaluate the run")
        super().__init__(
            construct(DataSpec, cast("dict[str, object]", model.data)), tuple(model.manifest["latent_shape"])
        )
        self.model = model
        self.table: ExportedTable | None = None
        self.gives_params = gives_rows and kind == "count"
        if gives_rows and kind == "table":
            outputs = {tensor["name"]: tensor["shape"] for tensor in model.manifest["graphs"]["decoder"]["outputs"]}
            modes = int(outputs["mode_means"][2]) if "mode_means" in outputs else 1
            self.table = self.likelihood = ExportedTable(self.data.columns, modes)
        graphs = model.manifest["graphs"]
        self.encoder_inputs = tuple(tensor["name"] for tensor in graphs["encoder"]["inputs"])
        # Coordinates are those of the data's resolution.
        names = (tensor["name"] for tensor in graphs["decoder"]["inputs"][1:])
        self.decoder_inputs = tuple(name for name in names if name != "coordinates")

    def encode(self, x: Tensor, y: Tensor | None = None) -> DiagonalGaussian:
        fields = self.model.encode(x.numpy(), None if y is None else y.numpy())
        return DiagonalGaussian(*(torch.from_numpy(fields[name]) for name in DiagonalGaussian._fields))

    def decode(self, z: Tensor, *given: Tensor) -> Tensor:
        named = {name: tensor.numpy() for name, tensor in zip(self.decoder_inputs, given, strict=True)}
        if self.table is not None:
            return self.table.to_params(self.model.run("decoder", {"z": z.numpy(), **named}))
        if self.gives_params:
            outputs = self.model.run("decoder", {"z": z.numpy(), **named})
            params = self.likelihood.params_of_outputs({key: torch.from_numpy(v) for key, v in outputs.items()})
            assert params is not None
            return params
        mean = torch.from_numpy(self.model.decode(z.numpy(), named.get("y"), x=named.get("x")))
        return torch.logit(mean.clamp(MIN_MEAN, MAX_MEAN)) if self.data.kind == "unit" else mean
