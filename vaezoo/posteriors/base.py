"""Posterior, the protocol of q(z|x), and functions that work on every posterior."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn

from vaezoo.errors import PluginError, VaezooError

Shape = tuple[int, ...]
Density = Literal["none", "of draws", "everywhere"]


@runtime_checkable
class Posterior(Protocol):
    """q(z|x) for a batch: a NamedTuple. Each row of its tensors belongs to one example.

    Its tensors are the outputs of encoder.onnx. A field may also be a module, such as a normalizing flow or the upper
    levels of a hierarchy, or a number. It belongs to no example and is not an output.

    z is one tensor. The levels of a hierarchy lie side by side in it. The codes of a quantizer are int64.

    Four more methods are optional:

    - `rsample_and_log_prob() -> (z, log q(z|x))` replaces `log_prob` if the density is known only of z that were drawn
      here, as behind an inverse autoregressive flow.
    - `outputs() -> dict[str, Tensor]` replaces the fields as outputs of encoder.onnx. Its first entry is the mode.
    - `scaled(scale, shift) -> Posterior` returns the distribution of `(z - shift) * scale`, for exports that fold it.
    - `proposal() -> Posterior` returns a wider distribution for importance sampling. One is needed where q(z|x) may
      have no draws in a part of the space that counts for p(x).
    """

    def rsample(self) -> Tensor:
        """Draws z, `(B, *latent_shape)`. Gradients reach the fields (reparameterization)."""

    def log_prob(self, z: Tensor, /) -> Tensor:
        """Returns log q(z|x), `(B,)`, in nats. Raises VaezooError if there is no density."""

    def mode(self) -> Tensor:
        """Returns the most probable z, or a point near it, `(B, *latent_shape)`. It is deterministic."""


class JointDensity(Protocol):
    """A model whose log p(x, z) a posterior may follow."""

    def log_joint(self, z: Tensor, x: Tensor, y: Tensor | None) -> Tensor:
        """Returns log p(x|z) + log p(z), `(B,)`, in nats, for latents and the examples that they belong to."""


class Head(nn.Module, ABC):
    """The last part of an encoder: it makes q(z|x) from the output of a network.

    Attributes:
        inputs: The shape of the network's output for one example.
        left_out: What of q(z|x) the graph of an encoder leaves out, in sentences for users. Empty: nothing.
    """

    inputs: Shape
    left_out: str = ""

    @abstractmethod
    def forward(self, h: Tensor) -> Posterior:
        """Returns q(z|x) for the network's output `(B, *inputs)`."""

    def follow(self, posterior: Posterior, model: JointDensity, x: Tensor, y: Tensor | None) -> Posterior:
        """Returns q(z|x) where it depends on p(x, z), too. By default it does not, and stays as it is.

        Args:
            posterior: What `forward` returned.
            model: Gives log p(x, z).
            x: The examples.
            y: Their labels, or None.
        """
        return posterior


class PosteriorPart(ABC):
    """A choice of q(z|x) for composed models: a frozen dataclass of options that makes a Head.

    Attributes:
        part: Its name, as in its entry point of the group `vaezoo.posteriors`.
        formula: What it is in LaTeX, for the page of a model. Empty: none is shown.
        density: Where log q(z|x) is known: nowhere, at z that were drawn from q, or everywhere.
        is_diagonal_gaussian: Whether q(z|x) is a DiagonalGaussian, which some priors mix.
        follows_joint: Whether its head implements `follow`, which takes gradients of the decoder.
    """

    part: ClassVar[str]
    formula: ClassVar[str] = ""
    density: ClassVar[Density] = "everywhere"
    is_diagonal_gaussian: ClassVar[bool] = False
    follows_joint: ClassVar[bool] = False

    @property
    def space(self) -> str:
        """Where z lies. It may depend on options. A class attribute of this name is enough where it does not."""
        return "real"

    def decoder_scale(self, latent_shape: Shape) -> float:
        """Returns what z is multiplied with on its way into the decoder, so that its values have a size near 1.

        By default 1, as of latents whose prior is the standard normal.
        """
        return 1.0

    @abstractmethod
    def head(self, latent_shape: Shape) -> Head:
        """Returns the head for latents of a shape."""


def require_flat(part: str, latent_shape: Shape) -> int:
    """Returns the number of latent dimensions. Raises VaezooError if the latents are not a vector."""
    if len(latent_shape) != 1:
        raise VaezooError(f"{part} needs a latent vector, not latents of shape {latent_shape}", "choose another part")
    return latent_shape[0]


Rows = TypeVar("Rows")  # a posterior or a Batch


def map_tensors(rows: Rows, change: Callable[[Tensor], Tensor]) -> Rows:
    """Returns a posterior or a batch with each of its tensors changed. Modules and None stay."""
    fields = cast("tuple[Any, ...]", rows)
    return type(rows)(*(change(field) if isinstance(field, Tensor) else field for field in fields))


def repeat(rows: Rows, times: int) -> Rows:
    """Returns a posterior or a batch in which each row stands `times` times, side by side."""
    return map_tensors(rows, lambda tensor: tensor.repeat_interleave(times, 0))


def draw(posterior: Posterior, *, density: bool) -> tuple[Tensor, Tensor | None]:
    """Draws z, and returns it with log q(z|x), `(B,)`.

    Args:
        posterior: q(z|x).
        density: Whether the density is needed. If not, it is None, unless it comes with the draw.

    Raises:
        VaezooError: If it is needed and there is none.
    """
    if hasattr(posterior, "rsample_and_log_prob"):
        z, log_q = posterior.rsample_and_log_prob()
        return z, log_q
    z = posterior.rsample()
    return z, posterior.log_prob(z) if density else None


def proposal_of(posterior: Posterior) -> Posterior:
    """Returns the distribution that importance samples of z are drawn from: q(z|x), or its `proposal`."""
    wider = getattr(posterior, "proposal", None)
    if not callable(wider):  # a field of this name is a tensor
        return posterior
    result: Posterior = wider()
    return result


def named_outputs(posterior: Posterior) -> tuple[dict[str, Tensor], str]:
    """Returns the outputs of encoder.onnx by name, and the name of the one that is the mode.

    They are what `outputs()` returns, or else the posterior's tensors. If none of these is the mode, it comes first, as
    `mode`.

    Raises:
        PluginError: If the posterior is not a NamedTuple.
    """
    own_outputs = getattr(posterior, "outputs", None)
    if callable(own_outputs):  # a field of this name is a tensor
        outputs: dict[str, Tensor] = own_outputs()
        return outputs, next(iter(outputs))
    names: Sequence[str] = getattr(posterior, "_fields", ())
    if not isinstance(posterior, tuple) or len(names) != len(posterior):
        raise PluginError(
            f"the posterior {type(posterior).__name__} is not a NamedTuple of tensors",
            "derive it from typing.NamedTuple",
        )
    fields = {name: t for name, t in zip(names, posterior, strict=True) if isinstance(t, Tensor)}
    mode = posterior.mode()
    name = next((name for name, tensor in fields.items() if tensor is mode), "mode")
    return {name: mode} | fields if name not in fields else fields, name


def active_units(modes: Tensor) -> int:
    """Returns the number of active latent dimensions: their mean varies by more than 0.01 over the data.

    Burda, Grosse and Salakhutdinov 2016, arXiv 1509.00519, section 5.2. Of a quantizer's codes it is the number of
    positions whose code varies.

    Args:
        modes: Modes of q(z|x), `(N, *latent_shape)`.
    """
    values = modes if modes.is_floating_point() else modes.to(torch.float64)
    return int((values.flatten(1).var(0, unbiased=False) > 0.01).sum())
