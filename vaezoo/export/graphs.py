"""The ONNX graphs of a VAE. `VAE.graphs` declares what they compute, so the exporter knows no model.

By default encoder.onnx maps x to the tensors of q(z|x), decoder.onnx maps z to the mean of p(x|z), and prior.onnx maps
noise to z. The graphs contain no random operator: the caller draws the noise.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from onnx import ModelProto, ValueInfoProto
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Generator, Tensor, nn

from vaezoo import vae as contracts
from vaezoo.data.base import Batch
from vaezoo.errors import PluginError, UnsupportedDataError, VaezooError
from vaezoo.export.calibration import calibration_feeds
from vaezoo.export.cases import example_count
from vaezoo.export.config import ExportConfig
from vaezoo.export.front_end import FrontEnd
from vaezoo.export.greedy import greedy_graph
from vaezoo.export.half import to_float16
from vaezoo.export.lazy_signatures import lazy_signatures
from vaezoo.export.rewrites import (
    EXPORTED,
    check_operators,
    lower_opset,
    lowest_ir_version,
    output_names,
    set_names,
)
from vaezoo.export.translations import TRANSLATIONS
from vaezoo.posteriors.base import map_tensors, named_outputs
from vaezoo.runtime.manifest import (
    MAX_GRAPH_BYTES,
    Float32Node,
    GraphName,
    GraphSignature,
    TensorSignature,
)
from vaezoo.runtime.ort_session import require_runtime
from vaezoo.vae import VAE, eval_mode, example_batch

MAX_UINT8 = 255


class GraphModule(nn.Module):
    """One graph of a VAE as a module, from its inputs to its outputs, in their order.

    If the config says uint8, x and x_mean are uint8 `(B, H, W, C)`. If it says waveform, x is `(B, samples)`. Otherwise
    they are as the model has them.

    Args:
        vae: The model.
        name: Name of the graph.
        graph: What `VAE.graphs` declares. By default the graph of that name.
        config: How the graphs are written.
    """

    def __init__(
        self, vae: VAE, name: GraphName, graph: contracts.Graph | None = None, config: ExportConfig | None = None
    ) -> None:
        super().__init__()
        self.vae = vae
        self.graph = vae.graphs()[name] if graph is None else graph
        self.uint8 = config is not None and config.uint8
        self.returns_images = self.uint8 and name == "decoder"
        self.front_end = FrontEnd(vae.data) if config is not None and config.waveform else None

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...] | Tensor:
        outputs = tuple(self.named(*inputs).values())
        return outputs if len(outputs) > 1 else outputs[0]

    def named(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Returns the outputs by name."""
        if self.uint8:
            named = dict(zip(self.graph.names, inputs, strict=True))
            if "x" in named:
                named["x"] = named["x"].permute(0, 3, 1, 2).to(torch.float32) / MAX_UINT8
            inputs = tuple(named.values())
        if self.front_end is not None:
            named = dict(zip(self.graph.names, inputs, strict=True))
            inputs = tuple(self.front_end(t) if n == "x" else t for n, t in named.items())
        outputs = self.graph.run(*inputs)
        names = output_names(outputs, self.graph.names)
        returns_images = self.returns_images
        return {names[n]: to_uint8(t) if returns_images and n == "x_mean" else t for n, t in outputs.items()}

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """Returns the inputs for a batch of data."""
        waveforms: Tensor | None = None
        if self.front_end is not None:  # latents for the decoder are those of the waveforms that the encoder gets
            waveforms = self.front_end.waveforms(batch.x)
            batch = batch._replace(x=self.front_end(waveforms))
        named = zip(self.graph.names, self.graph.inputs(batch), strict=True)
        return tuple(self._as_x(t, waveforms) if name == "x" else t.clone() for name, t in named)

    def _as_x(self, x: Tensor, waveforms: Tensor | None) -> Tensor:
        """Returns examples as the graph takes them."""
        if waveforms is not None:
            return waveforms
        return to_uint8(x) if self.uint8 else x.clone()


@dataclass(frozen=True, slots=True)
class Graph:
    """One exported graph.

    Attributes:
        name: Its name.
        data: The file's bytes, weights included.
        signature: Name, dtype and shape of each input and output. The first dimension is "batch". Another text is the
            name of a free size.
        float32: The nodes of a float16 graph that stay float32, because their values are too large.
    """

    name: GraphName
    data: bytes = field(repr=False)
    signature: GraphSignature
    float32: Sequence[Float32Node] = ()

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return [output["name"] for output in self.signature["outputs"]]


def graph_modules(
    vae: VAE, config: ExportConfig, parts: Collection[GraphName] | None = None
) -> dict[GraphName, GraphModule]:
    """Returns graphs of a model, by default all, as modules in evaluation mode.

    Raises:
        VaezooError: If the model has no such graph.
    """
    graphs = vae.graphs()
    parts = graphs if parts is None else parts
    if not parts or (unknown := [name for name in parts if name not in graphs]):
        what = f"there is no part '{unknown[0]}'" if parts else "no part is given"
        raise VaezooError(what, f"the parts of this model are {', '.join(graphs)}")
    return {name: GraphModule(vae, name, graph, config).eval() for name, graph in graphs.items() if name in parts}


def mode_name(vae: VAE) -> str:
    """Returns the name of the encoder's output that is the mode of q(z|x).

    Raises:
        PluginError: If the model's posterior is not a NamedTuple.
    """
    with torch.no_grad():
        outputs, mode = named_outputs(vae.infer(example_batch(vae.data, 1, Generator().manual_seed(0))))
    return output_names(outputs, vae.graphs()["encoder"].names)[mode]


def export_graphs(
    vae: VAE,
    config: ExportConfig | None = None,
    parts: Sequence[GraphName] | None = None,
    examples: Batch | None = None,
) -> dict[GraphName, Graph]:
    """Exports graphs of a model on the CPU, with a dynamic batch size and with the weights inside.

    Args:
        vae: The model.
        config: How the graphs are written.
        parts: Names of the graphs, by default all that the model has.
        examples: Real data. With generated examples, they show which layers stay float32 in fp16.

    Raises:
        UnsupportedDataError: If the config does not fit the data.
        PluginError: If the exporter cannot trace the model.
        VaezooError: If the model has no such part, an operator that the opset lacks, or too many weights, or if fp16
            needs ONNX Runtime, which is not installed.
    """
    config = config or ExportConfig()
    config.check_shape(vae.data.shape)
    if config.uint8 and (vae.data.kind != "unit" or vae.data.offset):
        scale = vae.data.scaling.name
        raise UnsupportedDataError(f"the data were scaled by {scale}, so they have no 8-bit form", "leave out --uint8")
    if config.dtype == "fp16":
        require_runtime()
    weights = sum(t.nbytes for t in (*vae.parameters(), *vae.buffers()))
    if weights > MAX_GRAPH_BYTES:
        raise VaezooError(
            f"the weights have {weights:,} bytes, one ONNX file holds {MAX_GRAPH_BYTES:,}", "export a smaller model"
        )
    with eval_mode(vae):
        mode_name(vae)  # a posterior that cannot be exported is reported before the exporter runs
        # Two examples: with one, some versions of the exporter treat the batch size as a constant.
        generator = Generator().manual_seed(0)
        batches = [example_batch(vae.data, 2, generator, shape) for shape in vae.shapes]
        modules = graph_modules(vae, config, parts)
        count = example_count(vae.shapes)
        real = [] if examples is None else [map_tensors(examples, lambda tensor: tensor[:count])]
        samples = [*real, *batches]
        return {name: _export(name, module, batches, config, samples) for name, module in modules.items()}


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
    name: GraphName, module: GraphModule, batches: Sequence[Batch], config: ExportConfig, samples: Sequence[Batch]
) -> Graph:
    """Exports one graph. Sizes in which the batches differ are free. The samples show the range of its values."""
    names = module.graph.names
    try:
        with silence(), lazy_signatures():
            # An error of the model itself is clearer without the exporter.
            examples = [module.inputs(batch) for batch in batches]
            examples += [more(batches[0]) for more in module.graph.more]
            results = [module.named(*example) for example in examples]
            free = [free_axes(n, tensors) for n, tensors in zip(names, zip(*examples, strict=True), strict=True)]
            proto = _repeat(module, batches, config) or _trace(module, examples[0], free, list(results[0]), config)
    except VaezooError:
        raise
    except Exception as e:  # the exporter's errors have no common base class
        cause = e.__cause__ or e  # the exporter's message lists its stages, the cause says what was wrong
        reason = f"{type(cause).__name__}: {cause}".splitlines()[0]
        raise PluginError(
            f"the {name} cannot be exported: {reason}", "use operations that PyTorch's ONNX exporter supports"
        ) from cause
    if config.opset < EXPORTED:
        check_operators(name, proto, config.opset)
    float32: list[Float32Node] = []
    if config.dtype == "fp16" and name != "prior" and not gives_codes(results[0]):
        proto, float32 = to_float16(proto, calibration_feeds(name, module, samples))
    outputs = [
        tensor_signature(n, [result[n] for result in results], axis_names(value))
        for n, value in zip(results[0], proto.graph.output, strict=True)
    ]
    inputs = [
        input_signature(n, tensors, axes)
        for n, tensors, axes in zip(names, zip(*examples, strict=True), free, strict=True)
    ]
    signature: GraphSignature = {"inputs": inputs, "outputs": outputs}
    return Graph(name, proto.SerializeToString(deterministic=True), signature, float32)


def _trace(
    module: GraphModule,
    example: tuple[Tensor, ...],
    free: Sequence[dict[int, str]],
    outputs: Sequence[str],
    config: ExportConfig,
) -> ModelProto:
    """Returns a graph in the config's opset, in float32, with the names of its inputs and outputs."""
    program = torch.onnx.export(
        module,
        example,
        dynamic_shapes=(tuple(free),),
        opset_version=max(config.opset, EXPORTED),
        custom_translation_table=TRANSLATIONS,
        verbose=False,
    )
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)  # they hold source lines and paths of this machine
    program.model.producer_name, program.model.producer_version = "vaezoo", None
    set_names(program.model, module.graph.names, outputs)
    if config.opset < EXPORTED:
        lower_opset(program.model, config.opset)
    proto: ModelProto = program.model_proto
    proto.ir_version = lowest_ir_version(proto)
    return proto


def _repeat(module: GraphModule, batches: Sequence[Batch], config: ExportConfig) -> ModelProto | None:
    """Returns the graph of most probable ids if the module is one, made from that of a single step."""
    vae, name = module.vae, module.graph.repeats
    if not name:
        return None
    assert vae.autoregressive is not None
    step = GraphModule(vae, name).eval()
    example = step.inputs(batches[0])
    outputs = list(step.named(*example))
    return greedy_graph(_trace(step, example, [{0: "batch"}] * len(example), outputs, config), vae.autoregressive)


def gives_codes(outputs: Mapping[str, Tensor]) -> bool:
    """Tells whether a graph chooses whole numbers, such as codes. It then stays float32 in fp16, as the prior does.

    Which component or code is chosen is not continuous in the noise or the features. Measured on residual-vq-vae and
    500 digits: with an encoder in float16, 0.3 % of the codes differ, and as many if only the quantizer is float32.
    Features that are rounded to float16 once still change 0.2 %.
    """
    return any(output.dtype == torch.int64 for output in outputs.values())


def free_axes(name: str, examples: Sequence[Tensor]) -> dict[int, str]:
    """Returns the names of the axes of an input that are free: the batch, and those in which the examples differ."""
    axes = {0: "batch"}
    for axis in range(1, examples[0].ndim):
        if len({tensor.shape[axis] for tensor in examples}) > 1:
            first = 1 if examples[0].dtype == torch.uint8 else 2  # bytes have their channels last
            place = {first: "height", first + 1: "width"}.get(axis, "") if examples[0].ndim == 4 else ""
            place = place or f"length{axis}"
            axes[axis] = place if name == "x" else f"{name}_{place}"
    return axes


def axis_names(value: ValueInfoProto) -> dict[int, str]:
    """Returns the names that the exporter gave to the free axes of an output."""
    dims = value.type.tensor_type.shape.dim
    return {axis: dim.dim_param for axis, dim in enumerate(dims) if dim.dim_param}


def tensor_signature(name: str, examples: Sequence[Tensor], free: Mapping[int, str]) -> TensorSignature:
    """Returns name, dtype and shape of a graph's input or output, given an example of each size."""
    first = examples[0]
    differ = {0} | {axis for axis in range(first.ndim) if len({tensor.shape[axis] for tensor in examples}) > 1}
    shape: list[str | int] = [free.get(axis, n) if axis in differ else n for axis, n in enumerate(first.shape)]
    return {"name": name, "dtype": str(first.dtype).removeprefix("torch."), "shape": shape}


def input_signature(name: str, examples: Sequence[Tensor], free: Mapping[int, str]) -> TensorSignature:
    """As `tensor_signature`. A free size is a multiple of the greatest common divisor of the examples' sizes.

    Sequences of ids have any length, because they grow id by id.
    """
    signature = tensor_signature(name, examples, free)
    if examples[0].dtype == torch.int64:
        return signature
    divisors = {free[axis]: math.gcd(*(tensor.shape[axis] for tensor in examples)) for axis in free if axis > 0}
    if multiples := {size: divisor for size, divisor in divisors.items() if divisor > 1}:
        signature["multiples"] = multiples
    return signature
