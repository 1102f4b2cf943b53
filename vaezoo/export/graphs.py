"""The two ONNX graphs of a VAE. They know no model: encoder x -> the posterior's fields, decoder z -> mean of p(x|z).

No random operator stands in a graph: noise is the caller's.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import onnx
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn

from vaezoo.errors import PluginError, VaezooError
from vaezoo.vae import VAE

Part = Literal["encoder", "decoder"]
OPSET = 18  # the exporter's own; all providers have kernels for it
OPSETS = range(18, 24)


class Encoder(nn.Module):
    """x `(B, *shape)` -> the tensors of q(z|x), in the order of its fields."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(posterior_fields(self.vae, x).values())


class Decoder(nn.Module):
    """z `(B, *latent_shape)` -> the mean of p(x|z), `(B, *shape)` in [0, 1]."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, z: Tensor) -> Tensor:
        return self.vae.likelihood.mean(self.vae.decode(z))


@dataclass(frozen=True, slots=True)
class Graph:
    """One exported graph.

    Attributes:
        part: Which of the two.
        data: The file's bytes, weights included.
        input: Name of the input.
        outputs: Names of the outputs.
    """

    part: Part
    data: bytes = field(repr=False)
    input: str
    outputs: tuple[str, ...]


def posterior_fields(vae: VAE, x: Tensor) -> dict[str, Tensor]:
    """Returns the tensors of q(z|x) by name.

    Raises:
        PluginError: If the model's posterior is no NamedTuple of tensors.
    """
    posterior = vae.encode(x)
    names: Sequence[str] = getattr(posterior, "_fields", ())
    if not isinstance(posterior, tuple) or not all(isinstance(t, Tensor) for t in posterior):
        raise PluginError(
            f"the posterior {type(posterior).__name__} is no NamedTuple of tensors", "derive it from typing.NamedTuple"
        )
    return dict(zip(names, posterior, strict=True))


def export_graphs(vae: VAE, opset: int = OPSET) -> dict[Part, Graph]:
    """Exports both graphs of a model that is on the CPU. The batch is dynamic; the weights are in the graph.

    Raises:
        VaezooError: If the opset is out of range.
        PluginError: If the exporter cannot follow the model.
    """
    if opset not in OPSETS:
        raise VaezooError(f"opset {opset} is out of range", f"use {OPSETS.start} to {OPSETS.stop - 1}")
    training = vae.training
    vae.eval()
    try:
        # Two examples: with one, some exporter versions take the batch for a constant.
        x, z = torch.rand(2, *vae.data.shape), torch.randn(2, *vae.latent_shape)
        with torch.no_grad():
            fields = tuple(posterior_fields(vae, x))
        return {
            "encoder": _export("encoder", Encoder(vae), x, "x", fields, opset),
            "decoder": _export("decoder", Decoder(vae), z, "z", ("x_mean",), opset),
        }
    finally:
        vae.train(training)


@contextlib.contextmanager
def silent_logs() -> Iterator[None]:
    """Keeps PyTorch's exporter from logging what its exception says again."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _export(part: Part, module: nn.Module, example: Tensor, name: str, outputs: tuple[str, ...], opset: int) -> Graph:
    try:
        with warnings.catch_warnings(), silent_logs(), torch.no_grad():
            warnings.simplefilter("ignore")
            module.eval()(example)  # what is wrong with the model itself is told in plain words
            program = torch.onnx.export(
                module,
                (example,),
                input_names=[name],
                output_names=list(outputs),
                dynamic_shapes=({0: "batch"},),
                opset_version=opset,
                verbose=False,
            )
    except Exception as e:  # the exporter's errors have no common class
        cause = e.__cause__ or e  # the exporter's own message tells of its stages, the cause what was wrong
        reason = f"{type(cause).__name__}: {cause}".splitlines()[0]
        raise PluginError(
            f"the {part} cannot be exported: {reason}", "take an operation that PyTorch's ONNX exporter follows"
        ) from cause
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)  # it holds source lines and paths of this machine
    program.model.producer_name, program.model.producer_version = "vaezoo", None
    proto = program.model_proto
    produced = next(o.version for o in proto.opset_import if o.domain == "")
    if produced != opset:
        raise VaezooError(f"asked for opset {opset}, the exporter produced {produced}", f"use --opset {produced}")
    onnx.checker.check_model(proto, full_check=True)
    return Graph(part, proto.SerializeToString(deterministic=True), name, outputs)
