"""vaezoo eval"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vaezoo_cli.data_options import DataOptions, data_options
from vaezoo_cli.options import checkpoint_option, json_option, open_export, open_run, print_json, source_argument

if TYPE_CHECKING:
    from vaezoo.evaluation.metrics import Binarize


@click.command(name="eval", context_settings={"show_default": True})
@source_argument
@click.option("--metrics", default="elbo", metavar="A,B", help="Groups of figures: see above.")
@click.option(
    "--nll-samples", type=int, metavar="S", help="Latents an example of nll; adds nll to --metrics  [default: 5000]"
)
@click.option("--elbo-samples", default=10, help="Latents an example of bound.")
@click.option("--binarize", default="auto", metavar="HOW", help="none, fixed, dynamic; auto: fixed if trained on bits.")
@click.option("--limit", type=int, metavar="N", help="Take N of the held-out examples  [default: all]")
@click.option("--inception", type=click.Path(), metavar="FILE", help="Weights for frechet; adds it to --metrics.")
@click.option("--seed", default=0, help="Determines bits and latents.")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps.")
@checkpoint_option
@data_options()
@json_option
def eval_command(
    source: str | None,
    metrics: str,
    nll_samples: int | None,
    elbo_samples: int,
    binarize: Binarize,
    limit: int | None,
    inception: str | None,
    seed: int,
    device: str,
    checkpoint: str,
    choice: DataOptions,
    as_json: bool,
) -> None:
    """Evaluate a model on data that training never saw: the test part, or the validation part.

    \b
    bound            -ELBO with its parts, z sampled; bits per dimension; active units
    nll              the likelihood, by importance sampling
    reconstructions  PSNR and SSIM
    codes            how well k-NN and logistic regression tell the labels by the codes
    factors          MIG, FactorVAE score, DCI, SAP, where the data have factors of variation
    samples          how near samples come to training examples
    frechet          Frechet distance of samples, and of training examples, from held-out ones, in the features of a
                     packaged classifier for 28x28 grey images, or of Inception

    reconstructions, codes and factors need scikit-learn and torchmetrics: pip install "vaezoo[eval]".

    RUN is a run folder; a model's name means its newest run; nothing means the newest run of all. PRETRAINED is a
    name that 'vaezoo pretrained' lists. EXPORT is a folder that 'vaezoo export' wrote.
    """
    import vaezoo
    from vaezoo.evaluation.evaluate import NLL_SAMPLES, check_metrics
    from vaezoo_cli.render.evaluation import Counter, render_evaluation
    from vaezoo_cli.sources import data_of_export

    chosen = [name.strip() for name in metrics.split(",") if name.strip()]
    if nll_samples is not None and "nll" not in chosen:
        chosen.append("nll")
    if inception is not None and "fid" not in chosen:
        chosen.append("fid")
    check_metrics(chosen)  # before data are read, or downloaded
    opened = open_export(source, checkpoint) or open_run(source, checkpoint)
    dataset = choice.named()
    if isinstance(opened, vaezoo.Run):
        dataset = dataset or opened.load_data(choice.data_dir)
    else:
        dataset = dataset or data_of_export(Path(source or ""), opened, choice.data_dir)
    with Counter("examples") as counter:
        evaluation = vaezoo.evaluate(
            opened,
            dataset,
            metrics=chosen,
            nll_samples=NLL_SAMPLES if nll_samples is None else nll_samples,
            binarize=binarize,
            elbo_samples=elbo_samples,
            limit=limit,
            inception=inception,
            seed=seed,
            device=device,
            on_progress=counter.show,
        )
    if as_json:
        print_json(evaluation.as_dict())
    else:
        render_evaluation(evaluation)
