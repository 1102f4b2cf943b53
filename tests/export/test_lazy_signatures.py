"""The shortcut through PyTorch's exporter."""

import contextlib

import pytest
import torch
from onnxscript._internal import values
from onnxscript.function_libs.torch_lib import ops, registration  # noqa: F401  # ops registers the functions
from torch import nn

from vaezoo.export.lazy_signatures import lazy_signatures


def traced_functions():
    for overloads in registration.default_registry.values():
        yield from (f for f in overloads.overloads if isinstance(f, values.TracedOnnxFunction))


def test_signatures_are_the_parsed_ones():
    functions = list(traced_functions())[::20]
    parsed = [function.function_ir for function in functions]
    with lazy_signatures():
        lazy = [function.function_ir for function in functions]
    assert len(lazy) > 10
    for one, other in zip(parsed, lazy, strict=True):
        assert (one.domain, one.name) == (other.domain, other.name)
        assert [i.name for i in one.inputs] == [i.name for i in other.inputs]


def test_signatures_are_parsed_again_after_the_block():
    original = values.TracedOnnxFunction.function_ir
    with pytest.raises(ValueError, match="inside"), lazy_signatures():
        assert values.TracedOnnxFunction.function_ir is not original
        raise ValueError("inside")
    assert values.TracedOnnxFunction.function_ir is original


def test_other_versions_of_onnxscript_work(monkeypatch):
    monkeypatch.delattr(values.TracedOnnxFunction, "function_ir")
    with lazy_signatures():
        assert not hasattr(values.TracedOnnxFunction, "function_ir")


def test_graph_is_the_same():
    def graph(block):
        torch.manual_seed(0)
        with block:
            program = torch.onnx.export(nn.Linear(2, 3).eval(), (torch.ones(1, 2),), verbose=False)
        return program.model_proto.SerializeToString()

    assert graph(lazy_signatures()) == graph(contextlib.nullcontext())
