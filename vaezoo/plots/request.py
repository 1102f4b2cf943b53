"""What to draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from vaezoo.plots.loaded_model import LoadedModel, require_drawable

if TYPE_CHECKING:
    from vaezoo.data.inference import Examples
    from vaezoo.training.run import Run


@dataclass(frozen=True, kw_only=True)
class PlotRequest:
    """What to draw. Each kind of plot uses some of the fields.

    Attributes:
        model: The run or export. An export is drawn only by the kinds that say so.
        load_examples: Loads the examples to draw.
        count: Number of images, pairs, values or examples.
        seed: Seed of latents, or of the choice of held-out images.
        dims: Latent dimensions of traversals. None means all.
        label: The label of an attribute vector, its number or the name of its class.
        factor: Index of the label, if each example has several.
        suffixes: Suffixes of the files to draw.
        resolution: Height and width of the images of a decoder of coordinates. None means those of the data.
        in_order: Whether pairs are those of the examples in their order. If not, they are random.
    """

    model: LoadedModel
    load_examples: Callable[[], Examples]
    count: int
    seed: int = 0
    dims: Sequence[int] | None = None
    label: str | None = None
    factor: int | None = None
    suffixes: tuple[str, ...] = (".png",)
    resolution: tuple[int, int] | None = None
    in_order: bool = False

    def run(self, *, drawn: bool = True) -> Run:
        """Returns the run.

        Args:
            drawn: Whether it must have been trained on images or series.

        Raises:
            UnsupportedDataError: If it was trained on other data, but `drawn` is set.
        """
        if drawn:
            require_drawable(self.model)
        return cast("Run", self.model.model)
