"""vaezoo compare RUN..."""

from __future__ import annotations

import csv
import sys

import click

from vaezoo.errors import VaezooError
from vaezoo.plots.output import output_suffixes
from vaezoo_cli.options import json_option, print_json


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--metric", "names", multiple=True, metavar="NAME", help="A metric to show.  [default: all]")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV on stdout.")
@click.option("--out", type=click.Path(dir_okay=False), metavar="FILE", help="Draw the learning curves as a PNG file.")
@json_option
def compare(runs: tuple[str, ...], names: tuple[str, ...], as_csv: bool, out: str | None, as_json: bool) -> None:
    """Compare runs, or the runs of a sweep.

    Runs that differ in nothing but their seed are one row, with mean and standard deviation. The metrics are those of
    the end of the training (elbo, reconstruction, kl) and those that 'vaezoo eval' saved.

    RUN is a run folder, or a folder that holds run folders, such as that of a sweep.
    """
    import vaezoo
    from vaezoo_cli.render.compare import render_comparison

    if as_csv and as_json:
        raise VaezooError("--csv and --json both say what to print", "give one of them")
    output_suffixes(out, (".png",))
    comparison = vaezoo.compare(runs, names)
    if out:
        draw(comparison, names, out)
    if as_json:
        print_json(comparison.as_dict())
    elif as_csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows(comparison.rows())
    else:
        render_comparison(comparison, next_step=None)
    if out:
        click.echo(f"written  {out}", err=True)


def draw(comparison: object, names: tuple[str, ...], out: str) -> None:
    """Draws the validation curves of all runs, those of a group in one colour."""
    from pathlib import Path

    from vaezoo.core.atomic import write_file
    from vaezoo.evaluation.compare import Comparison
    from vaezoo.plots.figures import compared_curves
    from vaezoo.training.run_writer import LOG, read_log

    assert isinstance(comparison, Comparison)
    groups = comparison.groups
    # A prior that was fitted without training steps has no curve.
    with_log = [(group.label, [Path(run) for run in group.runs if (Path(run) / LOG).exists()]) for group in groups]
    curves = [(label, [read_log(run) for run in runs]) for label, runs in with_log if runs]
    if not curves:
        raise VaezooError("none of the runs has learning curves", "leave out --out")
    logged = {name for _, logs in curves for log in logs for report in log for name in report}
    terms = [name for name in names if name in logged] or ["elbo", "reconstruction", "kl"]
    write_file(Path(out), compared_curves(curves, terms))
