"""The graph of the most probable ids repeats the graph of a step."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vaezoo.export.greedy import greedy_graph
from vaezoo.export.tolerance import make_runner
from vaezoo.priors.base import Autoregressive

WEIGHTS = np.linspace(0.3, 4, 5, dtype=np.float32)


def step_model():
    """state_out = state + z, logits = sin(state_out + weights id), for five ids."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Add", ["state", "z"], ["state_out"]),
        helper.make_node("Cast", ["id"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["number", "last"], ["column"]),
        helper.make_node("Mul", ["column", "weights"], ["shift"]),
        helper.make_node("Add", ["state_out", "shift"], ["angle"]),
        helper.make_node("Sin", ["angle"], ["logits"]),
    ]
    inputs = [value("id", TensorProto.INT64, ["batch"])]
    inputs += [value(name, TensorProto.FLOAT, ["batch", 5]) for name in ("state", "z")]
    outputs = [value(name, TensorProto.FLOAT, ["batch", 5]) for name in ("logits", "state_out")]
    constants = {"last": np.array([1]), "weights": WEIGHTS}
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "step", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def unroll(z, loop):
    x = np.zeros((len(z), loop.length), np.int64)
    for row, of_row in zip(x, z, strict=True):
        last, state = loop.start_id, np.zeros(5, np.float32)
        for position in range(loop.length):
            state = state + of_row
            last = row[position] = np.sin(state + WEIGHTS * np.float32(last)).argmax()
            if last == loop.end_id:
                break
    return x


@pytest.mark.parametrize("end_id", [1, None])
def test_ids_are_those_of_a_loop(end_id):
    """Behind the end id is padding."""
    loop = Autoregressive(12, end_id, start_id=2, state_size=5)
    model = greedy_graph(step_model(), loop)
    onnx.checker.check_model(model, full_check=True)
    z = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    expected = unroll(z, loop)
    assert (expected[:, -1] == 0).any() and len(np.unique(expected)) == 5
    for rows in (z, z[:1]):
        np.testing.assert_array_equal(make_runner(model.SerializeToString())({"z": rows})[0], expected[: len(rows)])
