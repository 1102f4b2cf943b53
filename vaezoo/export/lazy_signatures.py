"""A shortcut through PyTorch's exporter, which halves the time of an export.

For each export, onnxscript parses the source of a thousand functions, to list their domains. The exporter does not read
that list. Here a function is parsed when something other than its domain is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from onnxscript._internal import values


class LazySignature:
    """The signature of a function of onnxscript.

    Args:
        function: The function.
        parse: Returns its parsed signature.
    """

    def __init__(self, function: Any, parse: Callable[[Any], Any]) -> None:
        self._function, self._parse = function, parse

    @property
    def domain(self) -> str:
        """The domain of the function, as in the parsed signature."""
        return str(self._function.opset.domain)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parse(self._function), name)


@contextmanager
def lazy_signatures() -> Iterator[None]:
    """Parses no signatures within the block, unless they are read. Without effect if onnxscript has changed."""
    traced = getattr(values, "TracedOnnxFunction", None)
    original = getattr(traced, "function_ir", None)
    if traced is None or not isinstance(original, property) or original.fget is None:
        yield
        return
    parse = original.fget
    traced.function_ir = property(lambda function: LazySignature(function, parse))
    try:
        yield
    finally:
        traced.function_ir = original
