"""Float16 graphs whose activations exceed the range of float16."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from vaezoo import DataSpec, create_model, export_onnx, runtime, verify_onnx
from vaezoo.errors import ParityError
from vaezoo.export import graphs as graph_module
from vaezoo.export.config import ExportConfig
from vaezoo.export.graphs import export_graphs
from vaezoo.export.half import LARGEST, largest_values, to_float16, wide_nodes
from vaezoo.export.parity import check_parity

FP16 = ExportConfig(dtype="fp16")


def overflowing(factor=1e6):
    """An mlp-vae that computes the same as before, by way of values that float16 does not have."""
    torch.manual_seed(0)
    vae = create_model("mlp-vae", DataSpec(name="x", shape=(1, 8, 8)), {"hidden": "16,16", "latent_dim": 4}).eval()
    layers = [layer for layer in vae.decoder.modules() if isinstance(layer, torch.nn.Linear)]
    with torch.no_grad():  # relu(f x) / f = relu(x)
        layers[0].weight *= factor
        layers[0].bias *= factor
        layers[1].weight /= factor
    return vae


def test_a_layer_that_overflows_stays_float32():
    vae = overflowing()
    graphs = export_graphs(vae, FP16)
    check_parity(vae, graphs, FP16)
    kept = graphs["decoder"].float32
    assert not graphs["encoder"].float32
    assert {entry["operator"] for entry in kept} <= {"Gemm", "MatMul", "Add", "Relu"} and len(kept) >= 3
    assert max(entry["largest"] for entry in kept) > 65504
    proto = onnx.load_from_string(graphs["decoder"].data)
    types = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    assert TensorProto.FLOAT16 in types.values()  # the layers after it
    assert len({node.output[0] for node in proto.graph.node}) == len(proto.graph.node)


def test_without_the_rule_the_gate_fails(monkeypatch):
    vae = overflowing()
    monkeypatch.setattr(graph_module, "calibration_feeds", lambda *args: [])
    monkeypatch.setattr("vaezoo.export.half.LARGEST", 1e30)
    with pytest.raises(ParityError):
        check_parity(vae, export_graphs(vae, FP16), FP16)


def types_of(graph):
    return {tensor.data_type for tensor in onnx.load_from_string(graph.data).graph.initializer}


@pytest.mark.parametrize("name", ["residual-vq-vae", "fsq-vae"])
def test_an_encoder_of_codes_stays_float32(name):
    """So the codes are those of the float32 graph, bit for bit. The decoder is halved."""
    torch.manual_seed(0)
    options = {"channels": "4,8", "residual_blocks": 0}
    vae = create_model(name, DataSpec(name="x", shape=(1, 8, 8)), options).eval()
    half = export_graphs(vae, FP16, ["encoder", "decoder"])
    assert TensorProto.FLOAT16 not in types_of(half["encoder"]) and TensorProto.FLOAT16 in types_of(half["decoder"])
    assert half["encoder"].data == export_graphs(vae, parts=["encoder"])["encoder"].data
    check_parity(vae, half, FP16)


def test_usual_layers_are_all_float16():
    graphs = export_graphs(overflowing(1.0), FP16)
    assert not any(graph.float32 for graph in graphs.values())


@pytest.mark.slow
def test_manifest_lists_the_layers(tmp_path):
    result = export_onnx(overflowing(), tmp_path / "export", dtype="fp16")
    listed = result.manifest["float32"]
    assert list(listed) == ["decoder"] and {*listed["decoder"][0]} == {"node", "operator", "largest"}
    assert verify_onnx(result.path).parity
    assert f"{len(listed['decoder'])} nodes of decoder.onnx stay float32" in (result.path / "README.md").read_text()
    assert np.isfinite(runtime.load(result.path).sample(50)).all()
    assert "float32" not in export_onnx(overflowing(1.0), tmp_path / "export", dtype="fp16").manifest


def network(nodes, outputs=("y",), constants=None):
    """A graph from x `(batch, 2)` to outputs of that shape."""
    shape = ["batch", 2]
    graph = helper.make_graph(
        [helper.make_node(op, inputs, [output], name=name) for op, inputs, output, name in nodes],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs],
        [numpy_helper.from_array(np.float32(value), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def run(proto, x):
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})


CONSTANTS = {"large": 1e6, "small": 1e-6, "one": 1.0}
WIDE = [
    ("Mul", ["x", "large"], "a", "up"),
    ("Add", ["a", "a"], "b", "twice"),  # a value with several readers, as before a residual block
    ("Sub", ["b", "a"], "c", "difference"),
    ("Mul", ["c", "small"], "d", "down"),
    ("Add", ["d", "one"], "y", "last"),
]
X = np.array([[1.0, -2.0], [0.5, 3.0]], np.float32)


def test_large_values_between_float32_nodes_are_not_cast():
    proto = network(WIDE, constants=CONSTANTS)
    (expected,) = run(proto, X)
    half, kept = to_float16(network(WIDE, constants=CONSTANTS), [{"x": X}])
    assert [entry["node"] for entry in kept] == ["up", "twice", "difference", "down"]
    onnx.checker.check_model(half, full_check=True)
    np.testing.assert_allclose(run(half, X)[0], expected, rtol=2e-3)


def test_large_inputs_and_outputs():
    nodes = [("Mul", ["x", "one"], "a", "same"), ("Mul", ["a", "large"], "y", "up")]
    x = np.array([[1e5, -2e5]], np.float32)
    (expected,) = run(network(nodes, constants=CONSTANTS), x)
    half, kept = to_float16(network(nodes, constants=CONSTANTS), [{"x": x}])
    assert len(kept) == 2 and [value.name for value in half.graph.output] == ["y"]
    onnx.checker.check_model(half, full_check=True)
    np.testing.assert_allclose(run(half, x)[0], expected, rtol=1e-6)


def test_largest_values():
    x = np.array([[3.0, -np.inf], [-7.0, 1.0]] * 9, np.float32)
    largest = largest_values(network([("Mul", ["x", "one"], "y", "")], constants=CONSTANTS), [{"x": x}])
    assert largest == {"x": 7.0, "y": 7.0}  # a mask of infinities stays what it is
    assert largest_values(network(WIDE, constants=CONSTANTS), []) == {}


def test_values_near_the_limit_count():
    nodes = [("Mul", ["x", "one"], "y", "same")]
    x = np.array([[LARGEST * 1.01, 0.0]], np.float32)
    assert len(wide_nodes(network(nodes, constants=CONSTANTS), [{"x": x}])) == 1
    assert wide_nodes(network(nodes, constants=CONSTANTS), [{"x": x * 0.9}]) == []
