"""Plots with axes: the latents of examples, and learning curves."""

from __future__ import annotations

from vaezoo.core.dependencies import plot_dependencies
from vaezoo.errors import InputError, VaezooError, one_line
from vaezoo.plots.output import PlotResult
from vaezoo.plots.request import PlotRequest
from vaezoo.plots.selection import label_column, label_names, require_labels


def latents(request: PlotRequest) -> PlotResult:
    """Draws the latents of held-out examples, coloured by label if they have labels.

    More than two dimensions are projected onto two.
    """
    from vaezoo.evaluation.latents import encode, principal_plane

    with plot_dependencies():  # before the work
        from vaezoo.plots import figures

    run, data = request.run(drawn=False), request.load_examples()
    split = data.split
    if split.y is not None or request.factor is not None:
        require_labels(split, data.spec.name, request.factor)
    selected = split.subsample(request.count)
    codes = encode(run.vae, selected.batch(slice(None))).flatten(1)
    if codes.shape[1] < 2:
        raise VaezooError(
            "a plot of latents needs 2 latent dimensions, but this model has 1", "train with -o latent_dim=2"
        )
    points, axes, content = codes, ("z0", "z1"), "codes"
    if codes.shape[1] > 2:
        points, shares = principal_plane(codes)
        axes = (f"component 1 ({shares[0]:.0%} of the variance)", f"component 2 ({shares[1]:.0%})")
        content = f"2 principal components of {codes.shape[1]} latent dimensions"
    part = "" if data.part == "all" else f"{data.part} "
    title = f"{one_line(run.path.name)}\n{content}, {len(selected):,} {part}examples"
    label_name = "label" if request.factor is None else f"factor {request.factor}"
    labels = None if selected.y is None else label_column(selected, request.factor)
    names = label_names(data.spec, request.factor)
    return PlotResult(run.path, {".png": figures.latent_scatter(points, labels, label_name, title, axes, names)})


def learning_curves(request: PlotRequest) -> PlotResult:
    """Draws -ELBO, reconstruction and KL during the training."""
    from vaezoo.likelihoods.base import ReconstructionScore
    from vaezoo.training.run_writer import LOG, read_log

    with plot_dependencies():
        from vaezoo.plots import figures

    run = request.run(drawn=False)
    path, is_score = run.path, isinstance(run.vae.likelihood, ReconstructionScore)
    reports = read_log(path)
    if not reports:
        raise InputError(f"{path / LOG} has no reports yet", "wait for the first report")
    return PlotResult(path, {".png": figures.learning_curves(reports, one_line(path.name), is_score=is_score)})
