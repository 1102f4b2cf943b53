"""The tolerances of the parity gate, and the comparison of graphs with their model's outputs.

`verify` uses this module without torch, so it does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import cast

import numpy as np

from vaezoo.errors import ParityError
from vaezoo.export.cases import Case, Inputs, batches_of
from vaezoo.export.config import DType, ExportConfig
from vaezoo.export.graph_checks import check_structure, parse
from vaezoo.runtime.manifest import Array, GraphName, GraphSignature, ParityRow
from vaezoo.runtime.ort_session import Provider, first_line, has_runtime, open_session

# (atol, rtol): every element must satisfy |graph - model| <= atol + rtol |model|.
# Measured on the CPU, conv-vae after its default training: at most 1.4e-6 in float32 and 2.0e-3 in float16.
# CUDA chooses kernels by shape, so sums run in another order. TF32 is off when graphs are compared.
TOLERANCES: Mapping[tuple[DType, Provider], tuple[float, float]] = {
    ("fp32", "cpu"): (1e-5, 1e-4),
    ("fp32", "cuda"): (1e-4, 1e-3),
    ("fp16", "cpu"): (1e-2, 1e-2),
    ("fp16", "cuda"): (1e-2, 1e-2),
}
TF32_TOLERANCE = (5e-3, 1e-2)
# In levels of 0..255. A value that ends near a half may be rounded up by one side and down by the other.
UINT8_TOLERANCES: Mapping[DType, float] = {"fp32": 1.0, "fp16": 3.0}

# Share of whole numbers, such as a quantizer's codes, that may differ. Two codes can be equally near.
# Measured on 500 digits, vq-vae: none in float32. In float16 1.1e-3 untrained and 2.9e-4 after 150 steps. Graphs that
# give codes are float32 in fp16 exports too. Only `vaezoo bench` runs them in float16, in PyTorch.
MAX_CODE_FLIPS: Mapping[DType, float] = {"fp32": 1e-3, "fp16": 1e-2, "int8": 1e-2}

# int8: the root mean square difference from the model may be this share of the output's standard deviation over the
# same examples. For the encoder an absolute term is added, because the fields of unused latents hardly vary. It fits
# latents, which are of the order of 1. The decoder's outputs have the scale of the data, which may be tiny.
INT8_SHARE, INT8_FLOOR = 0.1, 0.01

Runner = Callable[[Inputs], list[Array]]


@dataclass(frozen=True, slots=True)
class Parity:
    """The largest difference of one output over all batch sizes.

    Attributes:
        graph: The graph, or "round trip" for the encoder followed by the decoder.
        inputs: Where the inputs come from.
        output: Name of the output.
        max_abs: Largest absolute difference.
        limit: The tolerance at that element. In int8, that of the root mean square.
        batch: The batch size at which it occurred.
        rms: The root mean square difference, in int8 only.
    """

    graph: str
    inputs: str
    output: str
    max_abs: float
    limit: float
    batch: int
    rms: float | None = None

    @property
    def difference(self) -> float:
        """What the limit applies to."""
        return self.max_abs if self.rms is None else self.rms

    def as_dict(self) -> ParityRow:
        """Returns the fields for JSON."""
        return cast("ParityRow", {name: value for name, value in asdict(self).items() if value is not None})


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The allowed differences for one dtype and provider.

    Attributes:
        dtype: Type of weights and arithmetic.
        provider: The provider that runs the graph.
        tf32: Whether CUDA may round the factors of products to 10 bits.
        given: Replaces the tolerances of dtype and provider, both atol and rtol, and of whole numbers the share that
            may differ. For bytes it is a share of 255.
    """

    dtype: DType
    provider: Provider
    tf32: bool = False
    given: float | None = None

    @property
    def code_flips(self) -> float:
        """The largest share of whole numbers that may differ. TF32 rounds as float16 does."""
        if self.given is not None:
            return self.given
        return MAX_CODE_FLIPS["fp16" if self.tf32 else self.dtype]

    def limits(self, expected: Array) -> Array:
        """Returns the largest allowed absolute difference for each element of the model's output."""
        if expected.dtype == np.uint8:
            levels = UINT8_TOLERANCES[self.dtype] if self.given is None else max(1.0, 255 * self.given)
            return np.full(expected.shape, levels)
        if expected.dtype.kind != "f":  # bools must be equal
            return np.zeros(expected.shape)
        atol, rtol = TF32_TOLERANCE if self.tf32 else TOLERANCES[self.dtype, self.provider]
        if self.given is not None:
            atol, rtol = self.given, self.given
        return atol + rtol * np.abs(expected.astype(np.float64))


def stated_tolerance(dtype: DType) -> dict[str, float | str]:
    """Returns the tolerance of floats on the CPU as the manifest states it.

    With the measure "largest", each element must satisfy `|graph - model| <= atol + rtol |model|`. With "rms", the root
    mean square of `graph - model` over a batch is at most `share std(model)`, for the encoder plus `encoder_atol`.
    """
    if dtype == "int8":
        return {"measure": "rms", "share": INT8_SHARE, "encoder_atol": INT8_FLOOR}
    atol, rtol = TOLERANCES[dtype, "cpu"]
    return {"measure": "largest", "atol": atol, "rtol": rtol}


def runtime_name() -> str:
    """Returns what runs the graphs: onnxruntime if it is installed, else onnx's reference evaluator."""
    return "onnxruntime" if has_runtime() else "onnx.reference"


def make_runner(data: bytes, provider: Provider = "cpu") -> Runner:
    """Returns a function that runs a graph: inputs by name -> output arrays."""
    if provider == "cpu" and not has_runtime():
        import onnx
        from onnx.reference import ReferenceEvaluator

        evaluator = ReferenceEvaluator(onnx.load_from_string(data))
        return lambda inputs: [np.asarray(output) for output in evaluator.run(None, dict(inputs))]
    session = open_session(data, provider)
    return lambda inputs: list(session.run(None, dict(inputs)))


def check_graphs(
    files: Mapping[GraphName, bytes],
    signatures: Mapping[GraphName, GraphSignature],
    cases: Mapping[GraphName, list[Case]],
    mode: str,
    config: ExportConfig,
    provider: Provider = "cpu",
    given: float | None = None,
) -> list[Parity]:
    """Checks the structure of all graphs, then compares their outputs. Used by export and by `verify`.

    Args:
        files: The graphs' files.
        signatures: Inputs and outputs of each graph.
        cases: Inputs and the model's outputs; see `compare_cases`.
        mode: The encoder's output that is the mode of q(z|x).
        config: How the graphs should be written.
        provider: The provider that runs them.
        given: For graphs that others derived from an export: replaces the tolerance, and any opset is accepted.

    Raises:
        InputError: If a graph is damaged.
        ParityError: If a graph differs from its signature, has another opset, contains a random operator, or computes
            something else.
        VaezooError: If the provider cannot run here.
    """
    for graph, data in files.items():
        check_structure(graph, parse(graph, data), signatures[graph], config.opset if given is None else None)
    runners = {graph: make_runner(data, provider) for graph, data in files.items()}
    return compare_cases(runners, cases, mode, Tolerance(config.dtype, provider, given=given))


def compare_cases(
    runners: Mapping[GraphName, Runner], cases: Mapping[GraphName, list[Case]], mode: str, tolerance: Tolerance
) -> list[Parity]:
    """Compares each graph, and the encoder followed by the decoder if both are there, with the model's outputs.

    The graphs run at each size of `batches_of`, and cases with fewer examples are repeated. The model's outputs come
    from one large batch. A graph whose outputs depend on the other examples of a batch therefore differs at some size.

    Args:
        runners: Functions that run the graphs.
        cases: The cases of each graph. The decoder's first case has the modes of the encoder's first as inputs.
        mode: The encoder's output that is the mode of q(z|x).
        tolerance: The allowed differences.

    Returns:
        One Parity for each output and case.

    Raises:
        ParityError: If a shape differs or an element is out of tolerance.
    """
    batches = batches_of(cases)
    rows = [
        row
        for graph, graph_cases in cases.items()
        for case in graph_cases
        for row in _largest_differences(case, runners[graph], graph, tolerance, batches)
    ]
    if not {"encoder", "decoder"} <= cases.keys():
        return rows
    case, round_trip = _round_trip(runners, cases["encoder"][0], cases["decoder"][0], mode)
    return [*rows, *_largest_differences(case, round_trip, "round trip", tolerance, batches)]


def _round_trip(runners: Mapping[GraphName, Runner], encoded: Case, decoded: Case, mode: str) -> tuple[Case, Runner]:
    """Returns the case of the encoder followed by the decoder, and a function that runs both."""
    mode_index = list(encoded.outputs).index(mode)
    # The decoder's other inputs and the model's latents travel with the rows. Their names must not be the encoder's.
    others = {f"decoder/{name}": array for name, array in decoded.inputs.items() if name != "z"}
    inputs = {**encoded.inputs, **others, "expected z": encoded.outputs[mode]}

    def run(rows: Inputs) -> list[Array]:
        z = runners["encoder"]({name: rows[name] for name in encoded.inputs})[mode_index]
        if z.dtype.kind == "i":  # where two codes are equally near, the model's is decoded
            z = rows["expected z"]
        return runners["decoder"]({"z": z, **{name.removeprefix("decoder/"): rows[name] for name in others}})

    return Case(encoded.name, inputs, decoded.outputs), run


def _largest_differences(
    case: Case, run: Runner, graph: str, tolerance: Tolerance, batches: Sequence[int]
) -> Iterator[Parity]:
    """Runs a case at each batch size and yields the largest difference of each output."""
    largest: dict[str, Parity] = {}
    for n in batches:
        index = np.arange(n) % len(case)
        try:
            outputs = run({name: array[index] for name, array in case.inputs.items()})
        except Exception as e:  # ONNX Runtime's errors have no common base class
            raise ParityError(
                f"{graph} fails at batch {n} on {case.name}: {first_line(e)}",
                "the model fixes its batch size or a dtype somewhere: use x.shape[0] and x.dtype",
            ) from e
        for (name, expected), actual in zip(case.outputs.items(), outputs, strict=True):
            spread = float(expected.astype(np.float64).std())
            row = compare_output(graph, case.name, name, expected[index], actual, tolerance, spread)
            largest[name] = max(largest.get(name, row), row, key=lambda r: r.difference)
    yield from largest.values()


def compare_output(
    graph: str,
    inputs: str,
    name: str,
    expected: Array,
    actual: Array,
    tolerance: Tolerance,
    spread: float | None = None,
) -> Parity:
    """Compares one output of the model (`expected`) with that of the graph (`actual`), `(N, ...)` each.

    Args:
        graph: The graph, for the row and the messages.
        inputs: Where the inputs come from.
        name: Name of the output.
        expected: The model's output.
        actual: The graph's output.
        tolerance: The allowed differences.
        spread: Standard deviation of the model's output over all examples, by default over these.

    Raises:
        ParityError: If a shape differs or an element is out of tolerance.
    """
    n = len(expected)
    if expected.shape != actual.shape:
        raise ParityError(
            f"{graph}: '{name}' has shape {actual.shape} at batch {n}, the model's is {expected.shape}",
            "the model fixes its batch size somewhere: use x.shape[0] or -1",
        )
    if expected.dtype.kind == "i":
        return _compare_codes(graph, inputs, name, expected, actual, tolerance.code_flips)
    if tolerance.dtype == "int8" and tolerance.given is None:
        spread = float(expected.astype(np.float64).std()) if spread is None else spread
        return _compare_rms(graph, inputs, name, expected, actual, spread)
    limits = tolerance.limits(expected)
    # Subtract in float64: uint8 would wrap around, float16 would round or overflow.
    difference = np.abs(expected.astype(np.float64) - actual)
    # An element passes if its excess is at most 0. A NaN on either side becomes an infinite excess, so that it fails.
    # The element that the message names is the one furthest beyond its own limit.
    excess = np.nan_to_num(difference - limits, nan=np.inf)
    worst = np.unravel_index(np.argmax(excess), excess.shape)
    if excess[worst] > 0:
        element = ", ".join(str(i) for i in worst)
        raise ParityError(
            f"{graph}: '{name}' at batch {n} on {inputs}, element [{element}] is {float(actual[worst]):.6g}, "
            f"the model's {float(expected[worst]):.6g}, the limit {limits[worst]:.1e}",
            "make the model deterministic and its examples independent of each other",
        )
    # What is reported is the largest absolute difference, which may be at another element than the largest excess.
    largest = np.unravel_index(np.argmax(difference), difference.shape)
    return Parity(graph, inputs, name, float(difference[largest]), float(limits[largest]), n)


def _compare_rms(graph: str, inputs: str, name: str, expected: Array, actual: Array, spread: float) -> Parity:
    """Compares an output of a graph in int8 by the root mean square of the differences; see `compare_output`."""
    difference = np.abs(expected.astype(np.float64) - actual)
    rms = float(np.sqrt((difference**2).mean()))
    limit = INT8_SHARE * spread + (INT8_FLOOR if graph == "encoder" else 0)
    if not rms <= limit:  # NaN fails
        raise ParityError(
            f"{graph}: '{name}' at batch {len(expected)} on {inputs} differs by {rms:.3g} in the root mean square, "
            f"the limit {limit:.3g} is {INT8_SHARE:.0%} of its standard deviation",
            "int8 is too coarse for this model: use --dtype fp16",
        )
    return Parity(graph, inputs, name, float(difference.max()), limit, len(expected), rms)


def _compare_codes(graph: str, inputs: str, name: str, expected: Array, actual: Array, flips: float) -> Parity:
    """Compares an output of whole numbers: all but a share of them must be equal; see `compare_output`."""
    different, limit = int((expected != actual).sum()), max(1.0, flips * expected.size)
    if different > limit or actual.dtype != expected.dtype:
        what = f"{different:,} of {expected.size:,} numbers differ"
        raise ParityError(
            f"{graph}: '{name}' at batch {len(expected)} on {inputs}: {what}",
            "make the model deterministic and its examples independent of each other",
        )
    return Parity(graph, inputs, name, float(different), limit, len(expected))
