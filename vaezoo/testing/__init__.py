"""The conformance suite: the behaviour that the library requires of every model, built in or third-party.

In the test of a plugin:

    from vaezoo.testing import parametrize_with_checks

    @parametrize_with_checks(["my-vae"])
    def test_conformance(spec, check):
        check(spec)
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vaezoo.errors import VaezooError, format_error
from vaezoo.registry import get_model
from vaezoo.testing.checks import CHECKS, Check, Spec

if TYPE_CHECKING:
    from pytest import MarkDecorator

__all__ = ["CHECKS", "Check", "CheckResult", "parametrize_with_checks", "run_checks"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check.

    Attributes:
        name: Name of the check.
        requirement: What it requires, in one line.
        failure: Why it failed, and what to change. None if it passed.
    """

    name: str
    requirement: str
    failure: str | None


def parametrize_with_checks(models: Sequence[str]) -> MarkDecorator:
    """Returns a pytest decorator that runs a test with each `spec` of the named models and each `check`."""
    import pytest

    specs = {name: get_model(name) for name in models}
    pairs = [pytest.param(specs[n], c, id=f"{n}-{c.__name__}") for n in models for c in CHECKS]
    return pytest.mark.parametrize(("spec", "check"), pairs)


def run_checks(spec: Spec, checks: Sequence[Check] = CHECKS) -> Iterator[CheckResult]:
    """Runs checks on a model and yields each result at once. The global random state stays as it was.

    Args:
        spec: The model.
        checks: The checks to run. All by default.
    """
    for check in checks:
        with torch.random.fork_rng([]):
            failure = _failure(check, spec)
        yield CheckResult(check.__name__.removeprefix("check_"), str(check.__doc__).splitlines()[0], failure)


def _failure(check: Check, spec: Spec) -> str | None:
    """Runs one check and returns why it failed, or None."""
    try:
        check(spec)
    except AssertionError as e:
        return str(e) + _location(e.__cause__, spec)
    except VaezooError as e:
        return e.message + _location(e, spec)
    except Exception as e:  # the model's own code may raise anything
        return format_error(e) + _location(e, spec)
    return None


def _location(error: BaseException | None, spec: Spec) -> str:
    """Returns where in the model's own file an error was raised, ` (file.py:43 in decode)`, or an empty text."""
    code = inspect.unwrap(spec.build)
    file = inspect.getsourcefile(code) if inspect.isclass(code) or inspect.isfunction(code) else None
    while error is not None:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        if frames:
            return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name})"
        error = error.__cause__
    return ""
