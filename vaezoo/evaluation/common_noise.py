"""The same random numbers for all examples of a batch, so that an example's score depends on nothing but itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vaezoo.core.seed import set_seed

FACTORIES = (torch.randn, torch.rand)
OTHERS = (
    *(torch.randn_like, torch.rand_like, torch.normal, torch.bernoulli, torch.multinomial, torch.poisson),
    *(torch._standard_gamma, torch._sample_dirichlet),  # of torch.distributions
    *(Tensor.bernoulli, Tensor.multinomial),
    *(Tensor.normal_, Tensor.uniform_, Tensor.exponential_, Tensor.bernoulli_, Tensor.log_normal_, Tensor.cauchy_),
)


class CommonNoise(TorchFunctionMode):
    """Repeats the random numbers of one example for all examples of a batch, inside the block.

    PyTorch fills a batch with random numbers row by row. So the noise of a row depends on its place. Posteriors draw in
    their own ways. Therefore the functions of PyTorch are intercepted here, and not those of a posterior. A draw whose
    first dimension is not a multiple of the number of examples stays as it is.

    Args:
        examples: The number of examples. Each has the same number of rows, side by side.
    """

    def __init__(self, examples: int) -> None:
        super().__init__()
        self.examples = examples

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if "generator" in kwargs or not args:
            return func(*args, **kwargs)
        if func in FACTORIES:
            size = tuple(args if isinstance(args[0], int) else args[0])
            if size and size[0] % self.examples == 0:
                draw: Tensor = func((size[0] // self.examples, *size[1:]), **kwargs)
                return draw.repeat(self.examples, *[1] * (draw.ndim - 1))
        elif func in OTHERS and isinstance(args[0], Tensor) and args[0].ndim and len(args[0]) % self.examples == 0:
            return self._draw_for_each(func, args, kwargs)
        return func(*args, **kwargs)

    def _draw_for_each(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """Calls a function with the rows of one example after the other, from the same seed."""
        first: Tensor = args[0]
        size, seed = len(first) // self.examples, int(torch.randint(1 << 62, ()))
        drawn = []
        for start in range(0, len(first), size):
            own = (a[start : start + size] if isinstance(a, Tensor) and len(a) == len(first) else a for a in args)
            set_seed(seed, first.device)
            drawn.append(func(*own, **kwargs))
        set_seed(seed + 1, first.device)
        return first if func.__name__.endswith("_") else torch.cat(drawn)
