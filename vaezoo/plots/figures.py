"""Charts, drawn with matplotlib, a package of the extra `plot`. Titles are never parsed as formulas."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

DPI = 120
MAX_LEGEND = 10  # labels that have their own colour in a legend; more labels get a colour scale
TERMS = {"elbo": "-ELBO", "reconstruction": "reconstruction", "kl": "KL"}
SCORE_TERMS = {"elbo": "score + KL", "reconstruction": "score"}  # where p(x|z) is a score of reconstructions

Report = Mapping[str, object]
Values: TypeAlias = npt.NDArray[Any]


def latent_scatter(
    points: Tensor,
    labels: Tensor | None,
    label_name: str,
    title: str,
    axes: tuple[str, str],
    names: Sequence[str] = (),
) -> bytes:
    """Draws points, coloured by label if there are labels.

    Args:
        points: `(N, 2)`.
        labels: `(N,)`, or None for points of one colour.
        label_name: Title of the legend or of the colour scale.
        title: Title of the chart.
        axes: Names of the two axes.
        names: The name of each label, or none.

    Returns:
        A PNG file.
    """
    figure = Figure(figsize=(7, 6), dpi=DPI, layout="constrained")
    ax = figure.add_subplot(aspect="equal", adjustable="datalim")
    distinct = [] if labels is None else torch.unique(labels).tolist()
    if labels is None:
        x, y = points.T.numpy()
        ax.scatter(x, y, s=8, alpha=0.7, linewidths=0, color="C0")
    elif len(distinct) <= MAX_LEGEND:
        for number, label in enumerate(distinct):
            x, y = points[labels == label].T.numpy()
            ax.scatter(
                x, y, s=8, alpha=0.7, linewidths=0, color=f"C{number}", label=names[label] if names else str(label)
            )
        ax.legend(title=label_name, markerscale=2.5, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    else:
        x, y = points.T.numpy()
        collection = ax.scatter(x, y, s=8, alpha=0.7, linewidths=0, c=labels.numpy())
        figure.colorbar(collection, label=label_name)
    ax.set_title(title, fontsize=11, parse_math=False)
    ax.set_xlabel(axes[0])
    ax.set_ylabel(axes[1])
    return _png(figure)


def learning_curves(reports: Sequence[Report], title: str, *, is_score: bool = False) -> bytes:
    """Draws -ELBO, reconstruction and KL over the steps. Returns a PNG file.

    Args:
        reports: The lines of the log.
        title: Title of the chart.
        is_score: Whether the reconstruction term is a score, so that there is no ELBO and no unit.
    """
    labels = TERMS | SCORE_TERMS if is_score else TERMS
    terms = [term for term in TERMS if any(term in report for report in reports)]
    figure = Figure(figsize=(4 * len(terms), 3.4), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=11, parse_math=False)
    for number, term in enumerate(terms, 1):
        ax = figure.add_subplot(1, len(terms), number)
        for split, style in (("train", "C0."), ("valid", "C1o")):
            _curve(ax, reports, term, split, style)
        ax.set_title(labels[term], fontsize=10)
        ax.set_xlabel("step")
        ax.grid(alpha=0.3)
        if number == 1:
            ax.set_ylabel("per example" if is_score else "nats per example")
            ax.legend(frameon=False)
    return _png(figure)


def compared_curves(groups: Sequence[tuple[str, Sequence[Sequence[Report]]]], terms: Sequence[str]) -> bytes:
    """Draws metrics of the validation split over the steps, the runs of a group in one colour. Returns a PNG file.

    Args:
        groups: The label of each group, and the reports of its runs.
        terms: The metrics.
    """
    figure = Figure(figsize=(4 * len(terms), 3.4 + 0.2 * len(groups)), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, len(terms), squeeze=False)[0]
    for ax, term in zip(axes, terms, strict=True):
        for number, (_, logs) in enumerate(groups):
            for log in logs:
                _curve(ax, log, term, "valid", f"C{number % 10}o")
        ax.set_title(TERMS.get(term, term), fontsize=10, parse_math=False)
        ax.set_xlabel("step")
        ax.grid(alpha=0.3)
    lines = [Line2D([], [], color=f"C{number % 10}") for number in range(len(groups))]
    legend = figure.legend(lines, [label for label, _ in groups], loc="outside lower center", frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return _png(figure)


def series_panels(
    mean: Values, width: Values | None, given: Values | None, title: str, names: Sequence[str] = ()
) -> bytes:
    """Draws series, one panel for each, with a line for each channel. Returns a PNG file.

    Args:
        mean: The lines, `(N, channels, time)`.
        width: Half the height of the band around each line, or None.
        given: Points to draw besides, or None.
        title: Title of the chart.
        names: The names of the channels, or none.
    """
    columns = max(1, math.ceil(math.sqrt(len(mean))))
    rows = -(-len(mean) // columns)
    figure = Figure(figsize=(1 + 2.4 * columns, 1.2 + 1.6 * rows), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=11, parse_math=False)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
    time = range(mean.shape[2])
    for i, ax in enumerate(panels):
        if i >= len(mean):
            ax.set_axis_off()
            continue
        for c, line in enumerate(mean[i]):
            colour = f"C{c % 10}"
            ax.plot(time, line, colour, linewidth=1.2, label=names[c] if names else f"channel {c}")
            if width is not None:
                ax.fill_between(time, line - width[i, c], line + width[i, c], color=colour, alpha=0.2, linewidth=0)
            if given is not None:
                ax.plot(time, given[i, c], ".", color=colour, markersize=3, alpha=0.6)
        ax.grid(alpha=0.3)
    if mean.shape[1] <= MAX_LEGEND and (names or mean.shape[1] > 1):
        handles, labels = figure.axes[0].get_legend_handles_labels()
        legend = figure.legend(handles, labels, loc="outside lower center", frameon=False, ncols=4)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return _png(figure)


def _curve(ax: Axes, reports: Sequence[Report], term: str, split: str, style: str) -> None:
    selected = [report for report in reports if report.get("split") == split and term in report]
    if not selected:  # pretrained models only keep the reports of the validation split
        return
    sign = -1 if term == "elbo" else 1
    values = [sign * float(str(report[term])) for report in selected]
    steps = [int(str(report["step"])) for report in selected]
    marker_size = 3 if "o" in style or len(selected) == 1 else 0
    ax.plot(steps, values, f"{style}-", markersize=marker_size, linewidth=1.5, label=split)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
