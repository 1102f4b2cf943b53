"""The element rule: when does a graph compute what its model computes? No torch here: `verify` needs none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vaezoo.errors import ParityError
from vaezoo.export.config import DType, ExportConfig
from vaezoo.export.graph_checks import check_structure, parse
from vaezoo.runtime.manifest import GRAPH_NAMES, Array, GraphName
from vaezoo.runtime.ort_session import Provider, first_line, has_runtime, open_session

BATCHES = (1, 2, 3, 7, 64)

# |graph - model| <= atol + rtol |model|. Measured on the CPU, conv-vae after its default training: at most 1.4e-6 in
# float32 and 2.0e-3 in float16.
# CUDA picks kernels by shape, so that sums run in another order; TF32 is off when graphs are compared.
TOLERANCE: Mapping[tuple[DType, Provider], tuple[float, float]] = {
    ("fp32", "cpu"): (1e-5, 1e-4),
    ("fp32", "cuda"): (1e-4, 1e-3),
    ("fp16", "cpu"): (1e-2, 1e-2),
    ("fp16", "cuda"): (1e-2, 1e-2),
}
TF32_TOLERANCE = (5e-3, 1e-2)
LEVELS: Mapping[DType, float] = {"fp32": 1.0, "fp16": 3.0}  # of 255: a sum that ends near a half may round either way

Runner = Callable[[Array], list[Array]]


@dataclass(frozen=True, slots=True)
class Case:
    """Inputs of a graph and what the model makes of them.

    Attributes:
        name: Where the inputs come from.
        inputs: `(N, ...)`.
        outputs: The model's outputs by name, `(N, ...)` each.
    """

    name: str
    inputs: Array
    outputs: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Parity:
    """The largest difference found for one output, over all batch sizes.

    Attributes:
        part: The graph, or "round trip": encoder, then decoder.
        inputs: Where the inputs come from.
        output: The output.
        max_abs: Largest absolute difference.
        limit: What the element rule allowed at that element.
        batch: The batch size where it was found.
    """

    part: str
    inputs: str
    output: str
    max_abs: float
    limit: float
    batch: int

    def as_dict(self) -> dict[str, object]:
        """Returns the fields for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Rule:
    """The tolerances for one element type and provider.

    Attributes:
        dtype: Of weights and arithmetic.
        provider: What runs the graph.
        tf32: Whether CUDA may round the factors of products to 10 bits.
    """

    dtype: DType
    provider: Provider
    tf32: bool = False

    def allowed(self, ours: Array) -> Array:
        """Returns the largest difference from each element of the model's output."""
        if ours.dtype == np.uint8:
            return np.full(ours.shape, LEVELS[self.dtype])
        if ours.dtype.kind != "f":
            return np.zeros(ours.shape)
        atol, rtol = TF32_TOLERANCE if self.tf32 else TOLERANCE[self.dtype, self.provider]
        return atol + rtol * np.abs(ours.astype(np.float64))


def runtime_name() -> str:
    """Returns what runs the graphs: onnxruntime where it is installed, else onnx's reference evaluator."""
    return "onnxruntime" if has_runtime() else "onnx.reference"


def make_runner(data: bytes, provider: Provider = "cpu") -> Runner:
    """Returns a function that runs a graph with one input: input array -> output arrays."""
    if provider == "cpu" and not has_runtime():
        import onnx
        from onnx.reference import ReferenceEvaluator

        proto = onnx.load_from_string(data)
        evaluator, name = ReferenceEvaluator(proto), proto.graph.input[0].name
        return lambda array: [np.asarray(output) for output in evaluator.run(None, {name: array})]
    session = open_session(data, provider)
    name = session.get_inputs()[0].name
    return lambda array: list(session.run(None, {name: array}))


def check_graphs(
    files: Mapping[GraphName, bytes],
    signatures: Mapping[GraphName, Mapping[str, Any]],
    cases: Mapping[GraphName, list[Case]],
    mode: str,
    form: ExportConfig,
    provider: Provider = "cpu",
) -> list[Parity]:
    """Checks both graphs: first what they are, then what they compute. Export and `verify` both pass here.

    Args:
        files: The graphs' files.
        signatures: `input` and `outputs` of each.
        cases: Inputs and what the model makes of them; see `compare_cases`.
        mode: The encoder's output that is z's mode.
        form: How the graphs should be written.
        provider: What is to run them.

    Raises:
        InputError: If a graph is damaged.
        ParityError: If a graph is not what its signature says, has another opset, draws at random or computes something
            else.
        VaezooError: If the provider cannot run here.
    """
    for part in GRAPH_NAMES:
        check_structure(part, parse(part, files[part]), signatures[part], form.opset)
    runners = {part: make_runner(files[part], provider) for part in GRAPH_NAMES}
    return compare_cases(runners, cases, mode, Rule(form.dtype, provider))


def compare_cases(
    runners: Mapping[GraphName, Runner], cases: Mapping[GraphName, list[Case]], mode: str, rule: Rule
) -> list[Parity]:
    """Compares both graphs with what the model made of the same inputs, alone and one behind the other.

    The graphs run at each size of BATCHES; the cases are repeated where they hold fewer examples. As the model's
    outputs come from one batch, an output that depends on the rest of its batch is found, too.

    Args:
        runners: What runs the graphs.
        cases: By part. The decoder's first case holds the codes of the encoder's first.
        mode: The encoder's output that is z's mode.
        rule: The tolerances.

    Returns:
        One Parity for each output and kind of inputs.

    Raises:
        ParityError: If a shape differs or an element is out of tolerance.
    """
    rows = [row for part in GRAPH_NAMES for case in cases[part] for row in _worst(case, runners[part], part, rule)]
    encoded, decoded = cases["encoder"][0], cases["decoder"][0]
    index = list(encoded.outputs).index(mode)
    both = Case(encoded.name, encoded.inputs, decoded.outputs)
    rows += _worst(both, lambda x: runners["decoder"](runners["encoder"](x)[index]), "round trip", rule)
    return rows


def _worst(case: Case, run: Runner, part: str, rule: Rule) -> Iterator[Parity]:
    worst: dict[str, Parity] = {}
    for n in BATCHES:
        repeat = np.arange(n) % len(case.inputs)
        try:
            outputs = run(case.inputs[repeat])
        except Exception as e:  # ONNX Runtime's errors have no common class
            raise ParityError(
                f"{part} fails at batch {n} on {case.name}: {first_line(e)}",
                "the model fixes its batch size or an element type somewhere: use x.shape[0] and x.dtype",
            ) from e
        for (name, ours), theirs in zip(case.outputs.items(), outputs, strict=True):
            row = compare_output(part, case.name, name, ours[repeat], theirs, rule)
            worst[name] = max(worst.get(name, row), row, key=lambda r: r.max_abs)
    yield from worst.values()


def compare_output(part: str, inputs: str, name: str, ours: Array, theirs: Array, rule: Rule) -> Parity:
    """Compares one output of the model (`ours`) and of the graph (`theirs`), `(N, ...)` each.

    Raises:
        ParityError: See `compare_cases`.
    """
    n = len(ours)
    if ours.shape != theirs.shape:
        raise ParityError(
            f"{part}: '{name}' has shape {theirs.shape} at batch {n}, the model's is {ours.shape}",
            "the model fixes its batch size somewhere: use x.shape[0] or -1",
        )
    allowed = rule.allowed(ours)
    difference = np.abs(ours.astype(np.float64) - theirs)
    excess = np.nan_to_num(difference - allowed, nan=np.inf)
    worst = np.unravel_index(np.argmax(excess), excess.shape)
    if not excess[worst] <= 0:
        place = ", ".join(str(i) for i in worst)
        raise ParityError(
            f"{part}: '{name}' at batch {n} on {inputs}, element [{place}] is {float(theirs[worst]):.6g}, "
            f"the model's {float(ours[worst]):.6g}, the limit {allowed[worst]:.1e}",
            "a model that draws at random, or whose examples depend on each other, cannot be exported",
        )
    at = np.unravel_index(np.argmax(difference), difference.shape)
    return Parity(part, inputs, name, float(difference[at]), float(allowed[at]), n)
