"""Changes to a graph between PyTorch's exporter and the file: names, the opset, the IR version."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import onnx
import onnx_ir as ir
from onnx import ModelProto, helper

from vaezoo.errors import VaezooError, first_line

EXPORTED = 18  # the lowest opset that PyTorch's exporter writes for every operator
AXES_BECAME_INPUTS = {f"Reduce{kind}" for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod")}
AXES_BECAME_INPUTS |= {"ReduceSumSquare"}
# Attributes that operators got in opset 18, with the value that does what earlier opsets do.
DEFAULTS = {"Resize": {"antialias": 0, "keep_aspect_ratio_policy": "stretch"}}


def output_names(outputs: Collection[str], inputs: Collection[str]) -> dict[str, str]:
    """Returns the name that each output has in a graph. One that is also an input's name gets the suffix `_out`.

    Args:
        outputs: Names of the outputs, such as the fields of a posterior.
        inputs: Names of the graph's inputs.
    """
    names = {}
    for name in outputs:
        apart = name
        while apart in inputs or (apart != name and apart in outputs):
            apart += "_out"
        names[name] = apart
    return names


def set_names(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Names the inputs and outputs of a graph. Values inside the graph that have one of these names get another."""
    _separate_outputs(model.graph)
    ends = [*model.graph.inputs, *model.graph.outputs]
    names = [*inputs, *outputs]
    taken = {value.name for value in _values(model)} | set(names)
    for value in _values(model):
        if value.name in names and not any(value is end for end in ends):
            number = next(n for n in range(1, len(taken) + 2) if f"{value.name}_{n}" not in taken)
            value.name = f"{value.name}_{number}"
            taken.add(value.name)
    for value, name in zip(ends, names, strict=True):
        value.name = name


def _separate_outputs(graph: ir.Graph) -> None:
    """Makes each output a value of its own, which an input, a weight or another output is not."""
    for index, value in enumerate(graph.outputs):
        if value.producer() is None or any(value is earlier for earlier in graph.outputs[:index]):
            node = ir.node("Identity", [value])
            node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
            graph.append(node)
            graph.outputs[index] = node.outputs[0]


def _values(model: ir.Model) -> Iterator[ir.Value]:
    """Yields all values of a graph and of its branches."""
    for graph in model.graphs():
        yield from graph.inputs
        yield from list(graph.initializers.values())
        for node in graph:
            yield from node.outputs


def lower_opset(model: ir.Model, opset: int) -> None:
    """Turns a graph of opset 18 into one of an earlier opset, with the operators as they were there.

    An operator that this cannot change stays. `check_operators` reports it.
    """
    for node in list(model.graph.all_nodes()):
        attributes = node.attributes
        for name, value in DEFAULTS.get(node.op_type, {}).items():
            if name in attributes and attributes[name].value == value:
                attributes.pop(name)
        if node.op_type == "Split" and _has_equal_parts(node):
            attributes.pop("num_outputs", None)
        if node.op_type in AXES_BECAME_INPUTS:
            _axes_to_attribute(node)
    model.graph.opset_imports[""] = opset


def _has_equal_parts(node: ir.Node) -> bool:
    """Tells whether all outputs of a Split have one size, which is what it does without further inputs."""
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    sizes = [value.shape[axis] if value.shape is not None else None for value in node.outputs]
    return all(isinstance(size, int) and size == sizes[0] for size in sizes)


def _axes_to_attribute(node: ir.Node) -> None:
    """Moves the axes of a reduction from its second input to an attribute, if they are constants."""
    if len(node.inputs) < 2 or node.inputs[1] is None:
        return
    axes = ir.convenience.get_const_tensor(node.inputs[1])
    if axes is not None:
        node.attributes["axes"] = ir.AttrInt64s("axes", axes.numpy().tolist())
        node.attributes.pop("noop_with_empty_axes", None)
        node.resize_inputs(1)


def check_operators(name: str, proto: ModelProto, opset: int) -> None:
    """Raises VaezooError if a graph has an operator, or an attribute of one, that its opset does not have."""
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as e:  # the checker and the shape inference raise errors of their own
        reason = first_line(e)
        raise VaezooError(f"the {name} cannot be written for opset {opset}: {reason}", f"use --opset {EXPORTED}") from e


def lowest_ir_version(proto: ModelProto) -> int:
    """Returns the lowest version of the file format that a graph's opset allows. Old runtimes refuse later ones."""
    return min(int(proto.ir_version), helper.find_min_ir_version_for(list(proto.opset_import), ignore_unknown=True))
