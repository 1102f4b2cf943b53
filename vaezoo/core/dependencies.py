"""The packages that only some evaluations need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vaezoo.errors import VaezooError, first_line


@contextmanager
def eval_dependencies() -> Iterator[None]:
    """Wraps imports of what the extra `eval` brings: where it is missing, the error says how to get it."""
    try:
        yield
    except ImportError as error:
        raise VaezooError(
            f"this evaluation needs a package that is missing: {first_line(error)}", 'pip install "vaezoo[eval]"'
        ) from error
