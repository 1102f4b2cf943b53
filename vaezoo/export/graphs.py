"""The two ONNX graphs of a VAE: the encoder maps x to the fields of q(z|x), the decoder maps z to the mean of p(x|z).

The graphs contain no random operator: the caller draws the noise.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir
import torch
from onnx import ModelProto
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, TopologicalSortPass
from torch import Tensor, nn

from vaezoo.errors import PluginError, VaezooError
from vaezoo.export.config import ExportConfig
from vaezoo.runtime.manifest import MAX_GRAPH_BYTES, GraphName, GraphSignature, TensorSignature
from vaezoo.runtime.ort_session import require_runtime
from vaezoo.vae import VAE, eval_mode

MAX_UINT8 = 255


class Encoder(nn.Module):
    """Maps x to the tensors of q(z|x), in the order of its fields.

    x is `(B, *shape)` in [0, 1], or uint8 `(B, H, W, C)` if the config says so.
    """

    def __init__(self, vae: VAE, config: ExportConfig | None = None) -> None:
        super().__init__()
        self.vae = vae
        self.uint8 = config is not None and config.uint8

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.uint8:
            x = x.permute(0, 3, 1, 2).to(torch.float32) / MAX_UINT8
        return tuple(encoder_outputs(self.vae, x)[0].values())


class Decoder(nn.Module):
    """Maps z `(B, *latent_shape)` to the mean of p(x|z).

    The mean is `(B, *shape)` in [0, 1], or uint8 `(B, H, W, C)` if the config says so.
    """

    def __init__(self, vae: VAE, config: ExportConfig | None = None) -> None:
        super().__init__()
        self.vae = vae
        self.uint8 = config is not None and config.uint8

    def forward(self, z: Tensor) -> Tensor:
        mean = self.vae.likelihood.mean(self.vae.decode(z))
        return to_uint8(mean) if self.uint8 else mean


@dataclass(frozen=True, slots=True)
class Graph:
    """One exported graph.

    Attributes:
        name: "encoder" or "decoder".
        data: The file's bytes, weights included.
        signature: Name, dtype and shape of the input and of each output. The first dimension is "batch".
    """

    name: GraphName
    data: bytes = field(repr=False)
    signature: GraphSignature

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return [output["name"] for output in self.signature["outputs"]]


def encoder_outputs(vae: VAE, x: Tensor) -> tuple[dict[str, Tensor], str]:
    """Returns the encoder's outputs by name, and the name of the output that is the mode of q(z|x).

    The outputs are the fields of q(z|x). If the mode is not one of them, it becomes an additional output `mode`.

    Raises:
        PluginError: If the model's posterior is not a NamedTuple of tensors.
    """
    posterior = vae.encode(x)
    names: Sequence[str] = getattr(posterior, "_fields", ())
    if not isinstance(posterior, tuple) or not all(isinstance(t, Tensor) for t in posterior):
        raise PluginError(
            f"the posterior {type(posterior).__name__} is not a NamedTuple of tensors",
            "derive it from typing.NamedTuple",
        )
    fields, mode = dict(zip(names, posterior, strict=True)), posterior.mode()
    name = next((name for name, tensor in fields.items() if tensor is mode), "mode")
    return {name: mode} | fields if name not in fields else fields, name


def export_graphs(vae: VAE, config: ExportConfig | None = None) -> dict[GraphName, Graph]:
    """Exports both graphs of a model on the CPU, with a dynamic batch size and with the weights inside.

    Raises:
        UnsupportedDataError: If the config does not fit the data.
        PluginError: If the exporter cannot trace the model.
        VaezooError: If fp16 needs ONNX Runtime, which is not installed, or if the model is too large.
    """
    config = config or ExportConfig()
    config.check_shape(vae.data.shape)
    if config.dtype == "fp16":
        require_runtime()
    weights = sum(t.nbytes for t in (*vae.parameters(), *vae.buffers()))
    if weights > MAX_GRAPH_BYTES:
        raise VaezooError(
            f"the weights have {weights:,} bytes, one ONNX file holds {MAX_GRAPH_BYTES:,}", "export a smaller model"
        )
    with eval_mode(vae):
        # Two examples: with one, some versions of the exporter treat the batch size as a constant.
        x = torch.rand(2, *vae.data.shape)
        fields, mode = encoder_outputs(vae, x)
        names, z = tuple(fields), fields[mode].clone()  # the mode has the type that the decoder will get
        if config.uint8:
            x = to_uint8(x)
        return {
            "encoder": _export("encoder", Encoder(vae, config), x, "x", names, config),
            "decoder": _export("decoder", Decoder(vae, config), z, "z", ("x_mean",), config),
        }


def to_uint8(x: Tensor) -> Tensor:
    """Returns images `(B, C, H, W)` in [0, 1] as uint8 `(B, H, W, C)`."""
    return (x * MAX_UINT8).round().clamp(0, MAX_UINT8).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Suppresses the exporter's warnings, its prints, and its logs, which repeat what its exception says."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _export(
    name: GraphName, module: nn.Module, example: Tensor, input_name: str, outputs: tuple[str, ...], config: ExportConfig
) -> Graph:
    try:
        with silence():
            results = module.eval()(example)  # an error of the model itself is clearer without the exporter
            program = torch.onnx.export(
                module,
                (example,),
                input_names=[input_name],
                output_names=list(outputs),
                dynamic_shapes=({0: "batch"},),
                opset_version=config.opset,
                verbose=False,
            )
    except Exception as e:  # the exporter's errors have no common base class
        cause = e.__cause__ or e  # the exporter's message lists its stages, the cause says what was wrong
        reason = f"{type(cause).__name__}: {cause}".splitlines()[0]
        raise PluginError(
            f"the {name} cannot be exported: {reason}", "use operations that PyTorch's ONNX exporter supports"
        ) from cause
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)  # they hold source lines and paths of this machine
    program.model.producer_name, program.model.producer_version = "vaezoo", None
    proto = program.model_proto if config.dtype == "fp32" else to_float16(program.model_proto)
    results = results if isinstance(results, tuple) else (results,)
    signature: GraphSignature = {
        "input": tensor_signature(input_name, example),
        "outputs": [tensor_signature(n, t) for n, t in zip(outputs, results, strict=True)],
    }
    return Graph(name, proto.SerializeToString(deterministic=True), signature)


def tensor_signature(name: str, tensor: Tensor) -> TensorSignature:
    """Returns name, dtype and shape of a graph's input or output, given an example."""
    return {
        "name": name,
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": ["batch", *tensor.shape[1:]],
    }


def to_float16(proto: ModelProto) -> ModelProto:
    """Returns the graph with float16 weights and arithmetic. Inputs and outputs keep their types."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = ir.from_proto(convert_float_to_float16(proto, keep_io_types=True))
    TopologicalSortPass()(model)  # the converter appends its casts at the end
    half: ModelProto = ir.to_proto(model)
    return half
