"""The two ONNX graphs of a VAE. They know no model: encoder x -> the posterior's fields, decoder z -> mean of p(x|z).

No random operator stands in a graph: noise is the caller's.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
import torch
from onnx import ModelProto
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, TopologicalSortPass
from torch import Tensor, nn

from vaezoo.errors import PluginError, VaezooError
from vaezoo.export.config import ExportConfig
from vaezoo.runtime.manifest import MAX_GRAPH_BYTES, GraphName
from vaezoo.runtime.ort_session import require_runtime
from vaezoo.vae import VAE, eval_mode

LEVELS = 255  # the largest value of a byte


class Encoder(nn.Module):
    """x -> the tensors of q(z|x), in the order of its fields; x is what the format says, else `(B, *shape)`."""

    def __init__(self, vae: VAE, form: ExportConfig | None = None) -> None:
        super().__init__()
        self.vae = vae
        self.uint8 = form is not None and form.uint8

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.uint8:
            x = x.permute(0, 3, 1, 2).to(torch.float32) / LEVELS
        return tuple(encoder_outputs(self.vae, x)[0].values())


class Decoder(nn.Module):
    """z `(B, *latent_shape)` -> the mean of p(x|z), `(B, *shape)` in [0, 1], or bytes if the format says so."""

    def __init__(self, vae: VAE, form: ExportConfig | None = None) -> None:
        super().__init__()
        self.vae = vae
        self.uint8 = form is not None and form.uint8

    def forward(self, z: Tensor) -> Tensor:
        mean = self.vae.likelihood.mean(self.vae.decode(z))
        return to_bytes(mean) if self.uint8 else mean


@dataclass(frozen=True, slots=True)
class Graph:
    """One exported graph.

    Attributes:
        part: Which of the two.
        data: The file's bytes, weights included.
        signature: `input` and `outputs`: name, dtype and shape of each, the first dimension being "batch".
    """

    part: GraphName
    data: bytes = field(repr=False)
    signature: Mapping[str, Any]

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return [output["name"] for output in self.signature["outputs"]]


def encoder_outputs(vae: VAE, x: Tensor) -> tuple[dict[str, Tensor], str]:
    """Returns the encoder's outputs by name, and the name of the one that is z's mode.

    The outputs are the fields of q(z|x), and `mode` besides where the mode is none of them.

    Raises:
        PluginError: If the model's posterior is no NamedTuple of tensors.
    """
    posterior = vae.encode(x)
    names: Sequence[str] = getattr(posterior, "_fields", ())
    if not isinstance(posterior, tuple) or not all(isinstance(t, Tensor) for t in posterior):
        raise PluginError(
            f"the posterior {type(posterior).__name__} is no NamedTuple of tensors", "derive it from typing.NamedTuple"
        )
    fields, mode = dict(zip(names, posterior, strict=True)), posterior.mode()
    name = next((name for name, tensor in fields.items() if tensor is mode), "mode")
    return {name: mode} | fields if name not in fields else fields, name


def export_graphs(vae: VAE, form: ExportConfig | None = None) -> dict[GraphName, Graph]:
    """Exports both graphs of a model that is on the CPU. The batch is dynamic; the weights are in the graph.

    Raises:
        UnsupportedDataError: If the format does not fit the data.
        PluginError: If the exporter cannot follow the model.
        VaezooError: If the format needs ONNX Runtime (fp16), which is not installed, or the model is too large.
    """
    form = form or ExportConfig()
    form.require(vae.data.shape)
    if form.dtype == "fp16":
        require_runtime()
    weights = sum(t.nbytes for t in (*vae.parameters(), *vae.buffers()))
    if weights > MAX_GRAPH_BYTES:
        raise VaezooError(
            f"the weights have {weights:,} bytes, one ONNX file holds {MAX_GRAPH_BYTES:,}", "export a smaller model"
        )
    with eval_mode(vae):
        # Two examples: with one, some exporter versions take the batch for a constant.
        x = torch.rand(2, *vae.data.shape)
        fields, mode = encoder_outputs(vae, x)
        names, z = tuple(fields), fields[mode].clone()  # what the decoder will be given, in its type
        if form.uint8:
            x = to_bytes(x)
        return {
            "encoder": _export("encoder", Encoder(vae, form), x, "x", names, form),
            "decoder": _export("decoder", Decoder(vae, form), z, "z", ("x_mean",), form),
        }


def to_bytes(x: Tensor) -> Tensor:
    """Returns images `(B, C, H, W)` in [0, 1] as bytes `(B, H, W, C)`."""
    return (x * LEVELS).round().clamp(0, LEVELS).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keeps PyTorch's exporter from warnings, from logging what its exception says again, and from stdout."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _export(
    part: GraphName, module: nn.Module, example: Tensor, name: str, outputs: tuple[str, ...], form: ExportConfig
) -> Graph:
    try:
        with silence():
            results = module.eval()(example)  # what is wrong with the model itself is told in plain words
            program = torch.onnx.export(
                module,
                (example,),
                input_names=[name],
                output_names=list(outputs),
                dynamic_shapes=({0: "batch"},),
                opset_version=form.opset,
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
    proto = program.model_proto if form.dtype == "fp32" else to_half(program.model_proto)
    results = results if isinstance(results, tuple) else (results,)
    signature = {
        "input": describe(name, example),
        "outputs": [describe(n, t) for n, t in zip(outputs, results, strict=True)],
    }
    return Graph(part, proto.SerializeToString(deterministic=True), signature)


def describe(name: str, tensor: Tensor) -> dict[str, object]:
    """Returns name, dtype and shape of a graph's input or output, given an example."""
    return {
        "name": name,
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": ["batch", *tensor.shape[1:]],
    }


def to_half(proto: ModelProto) -> ModelProto:
    """Returns a graph with float16 weights and arithmetic between inputs and outputs of the types it had."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = ir.from_proto(convert_float_to_float16(proto, keep_io_types=True))
    TopologicalSortPass()(model)  # the converter puts its casts last
    half: ModelProto = ir.to_proto(model)
    return half
