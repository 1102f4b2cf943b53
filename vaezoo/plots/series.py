"""Charts of series: samples and reconstructions, with the spread of p(x|z) as a band around the mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from vaezoo.core.dependencies import plot_dependencies
from vaezoo.errors import VaezooError, one_line
from vaezoo.plots.output import PlotResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vaezoo.plots.loaded_model import LoadedModel
    from vaezoo.plots.request import PlotRequest

    Values = NDArray[Any]

DRAWS = 64  # of p(x|z), whose standard deviation is the band
BAND = 2  # standard deviations
MAX_PANELS = 64


class Curves(NamedTuple):
    """Series to draw, in the units of the data.

    Attributes:
        mean: The means of p(x|z), `(N, channels, time)`.
        deviation: The standard deviation of draws from p(x|z), or None if nothing can be drawn.
        given: The examples that were reconstructed, or None.
    """

    mean: Values
    deviation: Values | None
    given: Values | None = None


def samples(request: PlotRequest, y: Values | None) -> PlotResult:
    """Draws series sampled from the prior."""
    model, count = request.model, checked_count(request.count)
    z = model.prior_latents(count, request.seed, y)

    def decode(seed: int, *, draw: bool) -> Iterator[Values]:
        return model.decode(z, seed, y, draw=draw, resolution=request.resolution)

    return chart(model, spread(decode, request.seed), "samples from the prior")


def reconstructions(request: PlotRequest) -> PlotResult:
    """Draws examples with their reconstructions."""
    from vaezoo.evaluation.outputs import iter_reconstructions
    from vaezoo.runtime.manifest import scaling_of

    model = request.model
    examples = request.load_examples().limited(checked_count(request.count))

    def decode(seed: int, *, draw: bool) -> Iterator[Values]:
        return iter_reconstructions(model.model, examples.split, draw=draw, seed=seed, resolution=request.resolution)

    given = scaling_of(model.data).invert(examples.split.batch(slice(None)).x.numpy())
    return chart(model, spread(decode, request.seed)._replace(given=given), "examples (dots) and reconstructions")


def checked_count(count: int) -> int:
    """Returns a number of series, if a chart has room for them."""
    if count > MAX_PANELS:
        raise VaezooError(f"-n {count} is too large for charts of series", f"give 1 to {MAX_PANELS}")
    return count


def spread(decode: Callable[..., Iterator[Values]], seed: int) -> Curves:
    """Returns the means of p(x|z) and the standard deviation of draws from it.

    Args:
        decode: Yields means, or draws for a seed, of the same latents.
        seed: Seed of the draws.
    """
    import numpy as np

    mean = np.concatenate([*decode(seed, draw=False)])
    try:
        draws = [np.concatenate([*decode(seed + i, draw=True)]) for i in range(DRAWS)]
    except VaezooError:  # a score has no distribution, and some exports hold its mean alone
        return Curves(mean, None)
    return Curves(mean, np.std(draws, axis=0))


def chart(model: LoadedModel, curves: Curves, what: str) -> PlotResult:
    """Draws one panel for each series."""
    with plot_dependencies():
        from vaezoo.plots import figures
    from vaezoo.runtime.manifest import column_names

    band = f", band: {BAND} standard deviations of p(x|z)" if curves.deviation is not None else ", means alone"
    title = f"{one_line(model.folder.name)}\n{what}{band}"
    width = None if curves.deviation is None else BAND * curves.deviation
    content = figures.series_panels(curves.mean, width, curves.given, title, column_names(model.data))
    return PlotResult(model.folder, {".png": content})
