"""vaezoo score [RUN|MODEL|PRETRAINED|EXPORT]"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vaezoo.errors import VaezooError
from vaezoo.plots.output import output_suffixes
from vaezoo_cli.data_options import DataOptions, data_options
from vaezoo_cli.options import checkpoint_option, limit_option, open_export, open_run, source_argument

if TYPE_CHECKING:
    from vaezoo.evaluation.metrics import Binarize
    from vaezoo.evaluation.score import Scores

SUFFIXES = (".csv", ".npz", ".parquet")


@click.command(context_settings={"show_default": True})
@source_argument
@click.option("--nll-samples", type=int, metavar="K", help="Add -log p(x), with K samples of z per example.")
@click.option("--elbo-samples", default=10, help="Samples of z per example for -ELBO.")
@click.option("--quantile", type=float, metavar="Q", help="Mark examples above this quantile of validation examples.")
@click.option("--threshold", type=float, metavar="NATS", help="Mark examples whose -ELBO is above this instead.")
@click.option("--normal-class", metavar="NAME|INTEGER", help="Class of the normal examples, for ROC AUC.")
@click.option(
    "--binarize",
    default="auto",
    metavar="[auto|none|fixed|dynamic]",
    help="Bits instead of grey levels, as in 'vaezoo eval'.",
)
@click.option("--by-time", is_flag=True, help="Write the mean over its windows for each step of a recording.")
@limit_option
@click.option("--seed", default=0, help="Seed of bits and latents.")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps.")
@checkpoint_option
@data_options()
@click.option("--out", type=click.Path(dir_okay=False), metavar="FILE", help="A .csv, .npz or .parquet file.")
def score(
    source: str | None,
    nll_samples: int | None,
    elbo_samples: int,
    quantile: float | None,
    threshold: float | None,
    normal_class: str | None,
    binarize: Binarize,
    by_time: bool,
    limit: int | None,
    seed: int,
    device: str,
    checkpoint: str,
    data: DataOptions,
    out: str | None,
) -> None:
    """Score each example: a high -ELBO means that it does not resemble the training data.

    \b
    name            the file of the example, or its index
    y               its label, if the data have labels
    neg_elbo        -ELBO = reconstruction + kl, in nats
    reconstruction  -log p(x|z)
    kl              KL(q(z|x) || p(z))
    nll             -log p(x) by importance sampling, with --nll-samples
    anomaly         1 if neg_elbo is above the threshold, with --quantile or --threshold

    Without --out the rows are printed as CSV. --quantile 0.99 takes the threshold from the validation examples of the
    training, of which one in a hundred is above it. With labels 0 and 1, or with --normal-class, the area under the ROC
    curve of neg_elbo is shown. It needs the packages of the extra 'eval'.

    The examples of a recording are windows. --by-time writes a row for each step instead: its time, the number of its
    windows, and the mean of each score over them.

    RUN, MODEL, PRETRAINED and EXPORT are as in 'vaezoo sample'.
    """
    import vaezoo
    from vaezoo.core.result_files import require_pyarrow, write_arrays, write_csv
    from vaezoo_cli.render.evaluation import ProgressView

    if out is not None and output_suffixes(out, SUFFIXES) == (".parquet",):
        require_pyarrow()
    model = open_export(source, checkpoint) or open_run(source, checkpoint)
    examples = data.load(model)
    if by_time and examples.windows is None:
        raise VaezooError(
            f"'{examples.spec.name}' is not a recording, so its examples have no times", "leave out --by-time"
        )
    with ProgressView("examples") as progress:
        scores = vaezoo.score(
            model,
            examples,
            nll_samples=nll_samples,
            elbo_samples=elbo_samples,
            binarize=binarize,
            quantile=quantile,
            threshold=threshold,
            normal_class=normal_class,
            limit=limit,
            seed=seed,
            device=device,
            on_progress=progress.show,
        )
    columns = scores.by_time() if by_time else scores.columns()
    if out is None:
        write_csv(sys.stdout, [columns])
    else:
        write_arrays(Path(out), [columns], len(next(iter(columns.values()))))
        click.echo(out)
    for line in summary(scores):
        click.echo(line, err=True)


def summary(scores: Scores) -> list[str]:
    """Returns the lines that describe all scores together."""
    count = len(scores.neg_elbo)
    lines = [f"mean -ELBO of {count:,} examples: {scores.neg_elbo.mean():.2f} nats"]
    if scores.anomaly is not None:
        source = "" if scores.quantile is None else f", the {scores.quantile:g} quantile of {scores.valid_count:,} "
        source += "validation examples" if source else ""
        lines.append(
            f"threshold: {scores.threshold:.6g} nats{source}; above it: {int(scores.anomaly.sum()):,} of {count:,}"
        )
    return lines if scores.auc is None else [*lines, f"ROC AUC: {scores.auc:.4f}"]
