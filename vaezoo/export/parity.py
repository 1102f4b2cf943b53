"""The proof that a graph computes what its model computes: a gate, not a warning."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from vaezoo.errors import ParityError
from vaezoo.export.graphs import Decoder, Encoder, Graph, Part
from vaezoo.vae import VAE

BATCHES = (1, 2, 3, 7, 64)
ATOL, RTOL = 1e-5, 1e-4  # float32 on the CPU; measured on these models: below 2e-6
SPREAD = 3.0  # latents are drawn from a normal of this standard deviation: further out than the prior's

Runner = Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class Parity:
    """The largest difference found for one output, over all batch sizes.

    Attributes:
        part: The graph.
        output: The output.
        max_abs: Largest absolute difference.
        limit: What `|graph - model| <= atol + rtol |model|` allowed at that element.
    """

    part: Part
    output: str
    max_abs: float
    limit: float

    def as_dict(self) -> dict[str, object]:
        """Returns the fields for JSON."""
        return asdict(self)


def runtime_name() -> str:
    """Returns what runs the graphs: onnxruntime where it is installed, else onnx's reference evaluator."""
    return "onnxruntime" if importlib.util.find_spec("onnxruntime") else "onnx.reference"


def make_runner(graph: Graph) -> Runner:
    """Returns a function that runs a graph on the CPU: input array -> output arrays."""
    if runtime_name() == "onnx.reference":
        evaluator = ReferenceEvaluator(onnx.load_from_string(graph.data))
        return lambda array: list(evaluator.run(None, {graph.input: array}))
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(graph.data, options, providers=["CPUExecutionProvider"])
    return lambda array: list(session.run(None, {graph.input: array}))


def check_parity(vae: VAE, graphs: Mapping[Part, Graph]) -> list[Parity]:
    """Compares both graphs with the model, on the CPU, at several batch sizes.

    Args:
        vae: The model, on the CPU.
        graphs: Its graphs.

    Returns:
        One Parity for each output.

    Raises:
        ParityError: If a declared shape fixes the batch, a shape differs, or an element is out of tolerance.
    """
    generator = torch.Generator().manual_seed(0)
    inputs: dict[Part, tuple[Callable[[int], Tensor], torch.nn.Module]] = {
        "encoder": (lambda n: torch.rand((n, *vae.data.shape), generator=generator), Encoder(vae).eval()),
        "decoder": (lambda n: SPREAD * torch.randn((n, *vae.latent_shape), generator=generator), Decoder(vae).eval()),
    }
    rows: list[Parity] = []
    for part, (draw, module) in inputs.items():
        graph = graphs[part]
        check_declared_shapes(graph)
        run = make_runner(graph)
        worst: dict[str, Parity] = {}
        for n in BATCHES:
            x = draw(n)
            with torch.no_grad():
                expected = module(x)
            expected = expected if isinstance(expected, tuple) else (expected,)
            for name, ours, theirs in zip(graph.outputs, expected, run(x.numpy()), strict=True):
                row = compare(part, name, n, ours.numpy(), theirs)
                worst[name] = max(worst.get(name, row), row, key=lambda r: r.max_abs)
        rows += worst.values()
    return rows


def check_declared_shapes(graph: Graph) -> None:
    """Raises ParityError unless each input and output declares a free first dimension and fixed others."""
    proto = onnx.load_from_string(graph.data).graph
    for value in (*proto.input, *proto.output):
        dims = value.type.tensor_type.shape.dim
        shown = ", ".join(d.dim_param or str(d.dim_value) for d in dims)
        if not dims or dims[0].dim_param != "batch" or any(d.dim_param for d in dims[1:]):
            raise ParityError(
                f"{graph.part}: '{value.name}' has shape [{shown}], its first dimension alone should be free",
                "the model fixes its batch size somewhere: use x.shape[0] or -1",
            )


def compare(part: Part, name: str, batch: int, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> Parity:
    """Compares one output of the model (`ours`) and of the graph (`theirs`); see `check_parity`."""
    if ours.shape != theirs.shape:
        raise ParityError(
            f"{part}: '{name}' has shape {theirs.shape} at batch {batch}, the model's is {ours.shape}",
            "the model fixes its batch size somewhere: use x.shape[0] or -1",
        )
    difference = np.abs(ours.astype(np.float64) - theirs)
    excess = difference - (ATOL + RTOL * np.abs(ours))
    worst = np.unravel_index(np.argmax(np.nan_to_num(excess, nan=np.inf)), excess.shape)
    if not excess[worst] <= 0:
        place = ", ".join(str(i) for i in worst)
        raise ParityError(
            f"{part}: '{name}' at batch {batch}, element [{place}] "
            f"is {theirs[worst]:.6g}, the model's {ours[worst]:.6g}",
            "nothing was saved; a model that draws at random in encode or decode cannot be exported",
        )
    at = np.unravel_index(np.argmax(difference), difference.shape)
    return Parity(part, name, float(difference[at]), float(ATOL + RTOL * abs(ours[at])))
