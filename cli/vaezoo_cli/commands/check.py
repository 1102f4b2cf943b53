"""vaezoo check MODEL"""

from __future__ import annotations

from pathlib import Path

import click

from vaezoo.errors import PluginError, VaezooError
from vaezoo_cli.options import json_option, print_json


@click.command()
@click.argument("model")
@click.option("--likelihood", metavar="NAME", help="Check the model on data with this likelihood.")
@json_option
def check(model: str, likelihood: str | None, as_json: bool) -> None:
    """Run the conformance suite on a model.

    The checks cover shapes, gradients, densities, determinism, state and ONNX parity. Checks that do not apply to the
    model are skipped, with the reason. A plugin runs the same suite in its tests.
    """
    from vaezoo.registry import get_model
    from vaezoo.testing import run_checks, with_likelihood

    try:
        spec = get_model(model)
    except PluginError:
        raise
    except VaezooError as e:  # the name is unknown
        folder = Path(f"vaezoo-{model}")  # where `new-plugin` writes the package of a model
        known = (folder / "pyproject.toml").is_file()
        install = f"install it first: pip install -e {folder}"
        e.hint = install if known else f"{e.hint}; a model of your own is found once its package is installed"
        raise
    if likelihood is not None:
        spec = with_likelihood(spec, likelihood)
    results = []
    for result in run_checks(spec):
        results.append(result)
        if not as_json:
            from vaezoo_cli.render.check import render_check

            render_check(result)
    if as_json:
        print_json([{"check": r.name, "passed": r.passed, "skipped": r.skipped, "failure": r.failure} for r in results])
    failed = [r.name for r in results if r.failure is not None]
    if failed:
        raise PluginError(
            f"model '{model}' fails {len(failed)} of {len(results)} checks: {', '.join(failed)}",
            "fix the first failure first; the same checks in pytest show whole tracebacks",
        )
