"""The conformance suite: the behaviour that the library requires of every model, built in or third-party.

In the test of a plugin:

    from vaezoo.testing import parametrize_with_checks

    @parametrize_with_checks(["my-vae"])
    def test_conformance(spec, check):
        check(spec)

A check that does not apply to a model is skipped with a reason. A failure that the author of a model expects is named
with a reason: `parametrize_with_checks(["my-vae"], expected_failures={"kl": "the KL is that of a bound"})`.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import SkipTest

import torch

from vaezoo.errors import VaezooError, format_error, suggest
from vaezoo.registry import get_model
from vaezoo.testing.checks import CHECKS
from vaezoo.testing.examples import Check, Spec, with_likelihood

if TYPE_CHECKING:
    from pytest import MarkDecorator

__all__ = ["CHECKS", "Check", "CheckResult", "parametrize_with_checks", "run_checks", "with_likelihood"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check.

    Attributes:
        name: Name of the check.
        requirement: What it requires, in one line.
        failure: Why it failed, and what to change. None if it passed, was skipped, or failed as expected.
        skipped: Why it does not apply to the model. None if it does.
        expected: Why its failure is expected, and the failure. None if it did not fail, or nobody expects it.
    """

    name: str
    requirement: str
    failure: str | None
    skipped: str | None = None
    expected: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the check ran and did not fail."""
        return self.failure is None and self.skipped is None and self.expected is None


def check_name(check: Check) -> str:
    """Returns the name of a check, as `vaezoo check` shows it."""
    return check.__name__.removeprefix("check_")


def parametrize_with_checks(
    models: Sequence[str], *, likelihood: str | None = None, expected_failures: Mapping[str, str] | None = None
) -> MarkDecorator:
    """Returns a pytest decorator that runs a test with each `spec` of the named models and each `check`.

    pytest shows a check that does not apply as skipped, and an expected failure as xfailed. `pytest -rsx` shows the
    reasons. A check that passes although its failure is expected fails.

    Args:
        models: Names of registered models.
        likelihood: The likelihood of the data that the models are built for. By default that of the data.
        expected_failures: Check -> why its failure is expected, for all of these models.

    Raises:
        VaezooError: If there is no such model, or no such check.
    """
    import pytest

    reasons = _known(expected_failures)
    specs = {name: get_model(name) for name in models}
    if likelihood is not None:
        specs = {name: with_likelihood(spec, likelihood) for name, spec in specs.items()}
    pairs = []
    for name in models:
        for check in CHECKS:
            reason = reasons.get(check_name(check))
            marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]
            pairs.append(pytest.param(specs[name], check, id=f"{name}-{check.__name__}", marks=marks))
    return pytest.mark.parametrize(("spec", "check"), pairs)


def run_checks(
    spec: Spec, checks: Sequence[Check] = CHECKS, *, expected_failures: Mapping[str, str] | None = None
) -> Iterator[CheckResult]:
    """Runs checks on a model and yields each result at once. The global random state stays as it was.

    If `shapes` fails, the other checks are skipped, because they would fail for the same reason.

    Args:
        spec: The model.
        checks: The checks to run. All by default.
        expected_failures: Check -> why its failure is expected.

    Raises:
        VaezooError: If there is no such check.
    """
    reasons = _known(expected_failures)
    has_shapes = True
    for check in checks:
        name, requirement = check_name(check), str(check.__doc__).splitlines()[0]
        failure, skipped = _run(check, spec) if has_shapes else (None, "shapes fails")
        reason = None if skipped is not None else reasons.get(name)
        if reason is None:
            has_shapes = has_shapes and not (name == "shapes" and failure)
            yield CheckResult(name, requirement, failure, skipped)
        elif failure is None:
            text = f"it passes, but its failure is expected: {reason}. Remove it from expected_failures."
            yield CheckResult(name, requirement, text)
        else:
            yield CheckResult(name, requirement, None, None, f"{reason}: {failure}")


def _known(expected_failures: Mapping[str, str] | None) -> Mapping[str, str]:
    """Returns expected failures. Raises VaezooError if one is of no check."""
    names = [check_name(check) for check in CHECKS]
    for name in expected_failures or {}:
        if name not in names:
            raise VaezooError(f"no check named '{name}'", suggest(name, names, f"use one of {', '.join(names)}"))
    return expected_failures or {}


def _run(check: Check, spec: Spec) -> tuple[str | None, str | None]:
    """Runs one check. Returns why it failed, or None, and why it was skipped, or None."""
    with torch.random.fork_rng([]):
        try:
            check(spec)
        except SkipTest as e:
            return None, str(e)
        except AssertionError as e:
            return str(e) + _location(e.__cause__, spec), None
        except VaezooError as e:
            return e.message + _location(e, spec), None
        except Exception as e:  # the model's own code may raise anything
            return format_error(e) + _location(e, spec), None
    return None, None


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
