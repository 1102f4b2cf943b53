"""int8: 8-bit weights and activations, calibrated on held-out examples.

The method is ONNX Runtime's static quantization in QDQ format. Half of a run's held-out examples calibrate the ranges
of the activations. The graphs are compared with the model on the other half.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import onnx
from onnx import ModelProto

from vaezoo.data.base import Batch
from vaezoo.errors import VaezooError
from vaezoo.export.calibration import calibration_inputs
from vaezoo.export.cases import example_count
from vaezoo.export.config import ExportConfig
from vaezoo.export.graphs import Graph, graph_modules, silence
from vaezoo.export.rewrites import lowest_ir_version
from vaezoo.posteriors.base import map_tensors
from vaezoo.runtime.manifest import Array, GraphName
from vaezoo.runtime.ort_session import require_runtime
from vaezoo.vae import VAE, eval_mode

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # the operators that are quantized
MIN_EXAMPLES = 16
FLOAT16 = "use --dtype fp16"


def check_suitable(vae: VAE, examples: Batch | None) -> Batch:
    """Returns the held-out examples of a run, if a model and they are suitable for int8.

    Raises:
        VaezooError: If they are not. The message says why.
    """
    require_runtime()
    if examples is None or len(examples.x) < MIN_EXAMPLES:
        count = 0 if examples is None else len(examples.x)
        hint = f"{FLOAT16}, or in Python export_onnx(..., examples=...)"
        raise VaezooError(f"int8 needs {MIN_EXAMPLES} held-out examples, and there are {count}", hint)
    if vae.autoregressive is not None or vae.data.kind == "tokens":
        raise VaezooError("int8 is not for ids that are drawn one by one: each error changes all that follow", FLOAT16)
    with eval_mode(vae):
        if not vae.infer(map_tensors(examples, lambda tensor: tensor[:1])).mode().is_floating_point():
            raise VaezooError("int8 is not for codes: a rounding error chooses another code", FLOAT16)
    return examples


def halves(examples: Batch) -> tuple[Batch, Batch]:
    """Returns the examples for calibration, and those on which graphs are compared with the model."""
    return map_tensors(examples, lambda tensor: tensor[::2]), map_tensors(examples, lambda tensor: tensor[1::2])


def quantize_graphs(
    vae: VAE, graphs: Mapping[GraphName, Graph], config: ExportConfig, examples: Batch
) -> dict[GraphName, Graph]:
    """Returns float32 graphs with encoder and decoder in int8. Inputs, outputs and the prior stay float32.

    Args:
        vae: The model.
        graphs: Its graphs in float32.
        config: How they are written.
        examples: Real data, for calibration.

    Raises:
        VaezooError: If a graph has no operator with weights.
    """
    quantized = dict(graphs)
    with eval_mode(vae), silence():
        for name, module in graph_modules(vae, config, list(graphs)).items():
            if name in ("encoder", "decoder"):
                parts = split_rows(examples, example_count(vae.shapes))
                feeds = chain(*(calibration_inputs(vae, name, module, part, seed=i) for i, part in enumerate(parts)))
                proto = quantize(name, onnx.load_from_string(graphs[name].data), list(feeds))
                quantized[name] = replace(graphs[name], data=proto.SerializeToString(deterministic=True))
    return quantized


def quantize(name: GraphName, proto: ModelProto, feeds: Sequence[Mapping[str, Array]]) -> ModelProto:
    """Returns a graph in int8, calibrated on some inputs."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds: Iterator[Mapping[str, Array]] = iter(feeds)

        def get_next(self) -> dict[str, Array] | None:
            feed = next(self.feeds, None)
            return None if feed is None else dict(feed)

    if not any(node.op_type in WEIGHTED for node in proto.graph.node):
        raise VaezooError(f"int8 does nothing for the {name}: it has no layer with weights", "use --dtype fp32")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "int8.onnx"
        quantize_static(
            proto,
            file,
            Reader(),
            op_types_to_quantize=list(WEIGHTED),
            per_channel=True,
            # Unsigned activations and 7 bits of each weight: on processors without VNNI, sums of 8 bits saturate.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        result: ModelProto = onnx.load(file)
    result.producer_name, result.producer_version = "vaezoo", ""
    result.ir_version = lowest_ir_version(result)
    return result


def split_rows(examples: Batch, rows: int) -> list[Batch]:
    """Returns the examples in parts, so that memory stays bounded."""
    starts = range(0, len(examples.x), rows)
    return [map_tensors(examples, lambda tensor, i=i: tensor[i : i + rows]) for i in starts]  # type: ignore[misc]
