"""vaezoo eval [RUN|MODEL|PRETRAINED|EXPORT]"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vaezoo.errors import VaezooError
from vaezoo.plots.output import default_output_dir
from vaezoo_cli.data_options import DataOptions, data_options
from vaezoo_cli.options import (
    checkpoint_option,
    json_option,
    limit_option,
    open_export,
    open_run,
    print_json,
    source_argument,
)

if TYPE_CHECKING:
    from vaezoo.core.perceptual import LpipsFiles
    from vaezoo.evaluation.metrics import Binarize


@click.command(name="eval", context_settings={"show_default": True})
@source_argument
@click.option("--metrics", default="elbo", metavar="NAME,...", help="Metrics, see above.")
@click.option(
    "--nll-samples",
    type=int,
    help="Samples of z per example for nll. The option adds nll to --metrics.  [default: 5000]",
)
@click.option("--elbo-samples", default=10, help="Samples of z per example for elbo.")
@click.option(
    "--binarize",
    default="auto",
    metavar="[auto|none|fixed|dynamic]",
    help="Bits instead of grey levels. auto means fixed if the model was trained on random bits.",
)
@limit_option
@click.option("--inception", type=click.Path(), metavar="FILE", help="Inception weights for fid and rfid.")
@click.option("--vgg", type=click.Path(), metavar="FILE", help="torchvision's weights of VGG16 for lpips.")
@click.option("--vgg-sha256", metavar="DIGITS", help="How its SHA-256 begins.  [default: 397923af]")
@click.option("--lpips", type=click.Path(), metavar="FILE", help="The lpips package's vgg.pth for lpips.")
@click.option("--lpips-sha256", metavar="DIGITS", help="How its SHA-256 begins.  [default: a78928a0]")
@click.option("--target", metavar="COLUMN", help="Column of a table that the metric table predicts from the others.")
@click.option("--seed", default=0, help="Seed of bits and latents.")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps.")
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
    vgg: str | None,
    vgg_sha256: str | None,
    lpips: str | None,
    lpips_sha256: str | None,
    target: str | None,
    seed: int,
    device: str,
    checkpoint: str,
    data: DataOptions,
    as_json: bool,
) -> None:
    """Evaluate a model on held-out data, or on all examples of --data.

    The test split is used, or the validation split of data without a test split. --part chooses another one.

    \b
    elbo               -ELBO with reconstruction and KL, bits per dimension, active units
    nll                -log p(x) by importance sampling
    reconstructions    PSNR and SSIM
    probe              accuracy of k-NN and logistic regression on the latents
    disentanglement    MIG, FactorVAE score, DCI and SAP, for data with factors of variation
    nearest-neighbour  distance of samples from the nearest training examples
    fid                Frechet distance of samples from held-out examples, in the features of a packaged
                       classifier for 28x28 grey images, or of Inception
    rfid               Frechet distance of reconstructions from the examples, in the same features
    lpips              perceptual distance of reconstructions: LPIPS with the files --vgg and --lpips, or the
                       distance in the packaged classifier's features, which the metric's name states
    codebook           perplexity and share of used codes, for models with codes, by level
    table              distances of drawn rows of a table from held-out ones, by column and by pair; a
                       classifier that tells them apart; the nearest training rows; with --target, trees
                       trained on drawn rows and on real ones

    reconstructions, probe, disentanglement and table need the packages of the extra 'eval'.

    RUN, MODEL, PRETRAINED and EXPORT are as in 'vaezoo sample'. The metrics of a run are also saved in its folder
    eval/, where 'vaezoo compare' reads them.
    """
    import vaezoo
    from vaezoo.evaluation.evaluate import NLL_SAMPLES, check_metrics
    from vaezoo.evaluation.saved import try_to_save
    from vaezoo_cli.render.evaluation import ProgressView, render_evaluation

    names = [name.strip() for name in metrics.split(",") if name.strip()]
    if nll_samples is not None and "nll" not in names:
        names.append("nll")
    if inception is not None and not {"fid", "rfid"} & set(names):
        names.append("fid")
    files = lpips_files(vgg=vgg, lpips=lpips, vgg_sha256=vgg_sha256, lpips_sha256=lpips_sha256)
    if files is not None and "lpips" not in names:
        names.append("lpips")
    check_metrics(names)  # before data are read or downloaded
    model = open_export(source, checkpoint) or open_run(source, checkpoint)
    examples = data.load(model)
    with ProgressView("examples") as progress:
        evaluation = vaezoo.evaluate(
            model,
            examples,
            metrics=names,
            nll_samples=NLL_SAMPLES if nll_samples is None else nll_samples,
            binarize=binarize,
            elbo_samples=elbo_samples,
            limit=limit,
            inception=inception,
            lpips=files,
            target=target,
            seed=seed,
            device=device,
            on_progress=progress.show,
        )
    if isinstance(model, vaezoo.Run) and default_output_dir(model.path) == model.path:  # not in the package
        try_to_save(model.path, evaluation)
    if as_json:
        print_json(evaluation.as_dict())
    else:
        render_evaluation(evaluation)


def lpips_files(**options: str | None) -> LpipsFiles | None:
    """Returns the files of LPIPS, or None if no option names one. Raises VaezooError unless both or none are given."""
    from vaezoo.core.perceptual import LpipsFiles

    given = {name: value for name, value in options.items() if value is not None}
    if not given:
        return None
    if missing := sorted({"vgg", "lpips"} - given.keys()):
        option = next(iter(given)).replace("_", "-")
        raise VaezooError(
            f"--{option} needs --{missing[0]} as well", "give the files of LPIPS: --vgg FILE --lpips FILE"
        )
    return LpipsFiles(**given)
