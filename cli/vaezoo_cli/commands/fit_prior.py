"""vaezoo fit-prior [RUN|MODEL|PRETRAINED]"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from vaezoo_cli.options import (
    checkpoint_option,
    json_option,
    open_run,
    option_names_as_typed,
    parse_options,
    print_json,
)

if TYPE_CHECKING:
    from vaezoo.objectives.fit_prior import Codes

SETTINGS = ("steps", "batch_size", "lr", "seed", "codes")


@click.command(context_settings={"show_default": True})
@click.argument("source", required=False, metavar="[RUN|MODEL|PRETRAINED]")
@click.option("--kind", default="gmm", metavar="NAME", help="One of the kinds above.")
@click.option("-o", "options", multiple=True, metavar="NAME=VALUE", help="Option of the kind, see above.")
@click.option("--codes", default="draws", metavar="[draws|means]", help="Fit to draws of q(z|x), or to its modes.")
@click.option("--steps", type=int, help="Optimizer steps of a kind that is trained.  [default: 3000]")
@click.option("--batch-size", type=int, help="Its examples per step.  [default: that of the run]")
@click.option("--lr", type=float, help="Its learning rate at the start.  [default: 0.001]")
@click.option("--seed", default=0, help="Seed of the draws and of the fit.")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps.")
@click.option("--data", metavar="PATH", help="The data of the run, if they have moved.")
@click.option("--data-dir", type=click.Path(), metavar="FOLDER", help="Folder of the standard data sets.")
@click.option("--out", type=click.Path(), metavar="FOLDER", help="New run folder.  [default: runs/MODEL-DATA-KIND-N]")
@checkpoint_option
@json_option
def fit_prior(
    source: str | None,
    kind: str,
    options: tuple[str, ...],
    codes: Codes,
    steps: int | None,
    batch_size: int | None,
    lr: float | None,
    seed: int,
    device: str,
    data: str | None,
    data_dir: str | None,
    out: str | None,
    checkpoint: str,
    as_json: bool,
) -> None:
    """Fit a density to the codes of a trained model, as its new prior.

    The result is a new run. Its other weights are those of the old run, bit for bit.

    \b
    gmm             a mixture of Gaussians        -o components=10 -o covariance=full|diagonal
    kde             a kernel around each code     -o kernels=2000 -o bandwidth=NUMBER
    exemplar        q(z|x) of training examples   -o exemplars=2000 -o variance=NUMBER
    flow            affine couplings, trained     -o couplings=8 -o hidden=128
    vae             a second VAE, trained         -o hidden=512
    riemannian      uniform on a manifold         -o centroids=100 -o rho=NUMBER -o proposals=16
    autoregressive  a causal transformer, trained, for the codes of models such as vq-vae
                                                  -o hidden=128 -o layers=4

    gmm and riemannian need the packages of the extra 'eval'. A model that is given labels gets a density for each
    label.

    RUN is a run folder. MODEL means its newest run. PRETRAINED is a name that 'vaezoo pretrained' shows.
    """
    import vaezoo
    from vaezoo.core import distributed
    from vaezoo_cli.commands.train import summary
    from vaezoo_cli.render.train import TrainingView

    run = open_run(source, checkpoint)
    with (
        option_names_as_typed(SETTINGS),
        TrainingView(silent=not distributed.is_primary()) as view,
    ):
        fitted = vaezoo.fit_prior(
            run,
            kind,
            options=parse_options(options),
            codes=codes,
            steps=steps,
            batch_size=batch_size,
            lr=lr,
            seed=seed,
            device=device,
            data=data,
            data_dir=data_dir,
            out=out,
            on_start=view.start,
            on_report=view.report,
        )
    if not distributed.is_primary():
        return
    assert fitted.prior_fit is not None
    if as_json:
        print_json(summary(fitted) | {"prior": asdict(fitted.prior_fit)})
    else:
        view.finish_fit(fitted, run)
