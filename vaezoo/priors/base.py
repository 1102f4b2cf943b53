"""Prior, the base class of p(z), with its KL divergence from a posterior."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import chain
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from vaezoo.errors import VaezooError
from vaezoo.posteriors.base import Posterior

if TYPE_CHECKING:
    from vaezoo.data.base import Split
    from vaezoo.vae import VAE


class Autoregressive(NamedTuple):
    """How ids are drawn one by one, from a network that sees the ids before.

    Attributes:
        length: Number of ids. They are drawn in the order in which they lie in memory.
        end_id: The id behind which only padding follows. None: there are always `length` ids.
        shape: The shape of one z, such as a grid of codes. None: `(length,)`.
        start_id: What the graph `step` takes as the id before the first one. None: the model has no such graph, and
            each id takes a pass over all ids before it.
        state_size: The number of features that `step` hands on from id to id.
    """

    length: int
    end_id: int | None = None
    shape: tuple[int, ...] | None = None
    start_id: int | None = None
    state_size: int = 0


class PriorPart(ABC):
    """A choice of p(z) for composed models: a frozen dataclass of options that makes a Prior.

    Attributes:
        part: Its name, as in its entry point of the group `vaezoo.priors`.
        formula: What it is in LaTeX, for the page of a model. Empty: none is shown.
        needs_density: Whether the KL needs log q(z|x). A prior that does not is for posteriors that have none.
        needs_diagonal_gaussian: Whether q(z|x) must be a DiagonalGaussian.
        trains_on_batch: Whether training has a p(z) for each batch, which only `kl_terms` knows. An objective that
            takes log p(z) at its draws would train with another one.
    """

    part: ClassVar[str]
    formula: ClassVar[str] = ""
    needs_density: ClassVar[bool] = True
    needs_diagonal_gaussian: ClassVar[bool] = False
    trains_on_batch: ClassVar[bool] = False

    @property
    def space(self) -> str:
        """Where z lies; see `PosteriorPart`."""
        return "real"

    @abstractmethod
    def build(self, vae: VAE) -> Prior:
        """Returns the prior of a model whose encoder and decoder are built."""


class Prior(nn.Module, ABC):
    """p(z), or p(z|y). It is a module because a prior may have parameters.

    A prior whose latents are a function of standard normal noise implements `from_noise` and sets `noise_shape`. It
    then has `sample`, and exports hold it as prior.onnx. An autoregressive prior of ids implements `id_logits` and sets
    `autoregressive`. Any other prior implements `sample`, and exports cannot sample from it.

    Attributes:
        inputs: The fields of a batch that the prior is given. ("y",) makes it p(z|y). All methods take them last.
        sample_inputs: The same for `sample` and `from_noise`.
        noise_shape: The shape of the noise that becomes one z.
        space: Where z lies: "real", or the name of a part of R^n that lines and grids of latents leave.
        autoregressive: How ids are drawn one by one, or None.
        codes: How many codes there are, if z is a grid of them. None: z are real numbers.
    """

    inputs: ClassVar[tuple[str, ...]] = ()
    noise_shape: tuple[int, ...] | None = None
    space: str = "real"
    autoregressive: Autoregressive | None = None
    codes: int | None = None

    @property
    def sample_inputs(self) -> tuple[str, ...]:
        """The fields of a batch that `sample` and `from_noise` take. More than `inputs` if z holds a label."""
        return self.inputs

    def init_from_data(self, train: Split) -> None:
        """Takes what the prior needs from the training data. Does nothing by default.

        `vaezoo.train` calls it before the first step, also for a model that starts with the weights of another run. It
        must be deterministic, as `VAE.init_from_data`.

        Args:
            train: The training split.
        """

    @abstractmethod
    def log_prob(self, z: Tensor, *given: Tensor) -> Tensor:
        """Returns log p(z), `(B,)`, in nats."""

    def from_noise(self, noise: Tensor, *given: Tensor) -> Tensor:
        """Returns latents `(B, *latent_shape)` for standard normal noise `(B, *noise_shape)`, distributed as p(z)."""
        raise NotImplementedError

    def id_logits(self, z: Tensor, *given: Tensor) -> Tensor:
        """Returns the logits of each id given the ids before it, `(B, length, ids)`, for ids `(B, *latent_shape)`."""
        raise NotImplementedError

    def sample(self, n: int, *given: Tensor) -> Tensor:
        """Draws n latents, `(n, *latent_shape)`, on the prior's device.

        Raises:
            VaezooError: If there is no way to draw from this prior.
        """
        if self.autoregressive is not None:
            return self._sample_ids(n, *given)
        if self.noise_shape is None:
            raise VaezooError(f"the prior {type(self).__name__} cannot be sampled", "implement from_noise or sample")
        tensor = next(chain(self.parameters(), self.buffers()), torch.empty(0))
        return self.from_noise(torch.randn((n, *self.noise_shape), device=tensor.device), *given)

    @torch.no_grad()
    def _sample_ids(self, n: int, *given: Tensor) -> Tensor:
        assert self.autoregressive is not None
        length, _, shape, *_ = self.autoregressive
        device = next(chain(self.parameters(), self.buffers())).device
        ids = torch.zeros((n, length), dtype=torch.int64, device=device)
        z = ids.view(n, *(shape or (length,)))  # the same memory
        for position in range(length):
            logits = self.id_logits(z, *given)[:, position]
            ids[:, position] = torch.multinomial(torch.softmax(logits, -1), 1).squeeze(1)
        return z

    def kl(self, posterior: Posterior, z: Tensor, *given: Tensor) -> Tensor:
        """Returns KL(q(z|x) || p(z)), `(B,)`, in nats: in closed form if there is one, else estimated at z."""
        return self.kl_terms(posterior, z, *given).sum(1)

    def kl_terms(self, posterior: Posterior, z: Tensor, *given: Tensor) -> Tensor:
        """Returns the parts that add up to the KL, `(B, parts)`, in nats.

        By default there is one part, the estimate log q(z|x) - log p(z) at the sample z. Override this method where
        a closed form exists. Return one part for each latent dimension if both distributions factorize.

        Args:
            posterior: q(z|x) for B examples.
            z: A sample of it, `(B, *latent_shape)`.
            given: What the prior is given.
        """
        return (posterior.log_prob(z) - self.log_prob(z, *given)).unsqueeze(1)
