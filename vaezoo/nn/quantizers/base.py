"""Quantizer, the base class of what lies between features and codes, and the choice of one by an option."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from vaezoo.errors import VaezooError

MAX_CODES = 1 << 20  # counts of all codes are kept


class Quantizer(nn.Module, ABC):
    """Replaces features by codes, int64, each of which stands for a vector.

    Everything here is float32. The caller turns autocast off: distances in bfloat16 would give other codes.

    Attributes:
        first_vectors: How many features `init_from_features` selects as its first vectors. 0: it needs no data.
    """

    first_vectors: int = 0

    @abstractmethod
    def nearest(self, features: Tensor) -> Tensor:
        """Returns the codes of features `(B, dim, h, w)`: `(B, h, w)`, or `(B, depth, h, w)`, int64."""

    @abstractmethod
    def embed(self, codes: Tensor) -> Tensor:
        """Returns the vectors that codes stand for, `(B, dim, h, w)`."""

    def bound(self, features: Tensor) -> Tensor:
        """Returns what of the features the vectors replace, `(B, dim, h, w)`. By default the features themselves."""
        return features

    def straight_through(self, features: Tensor, codes: Tensor) -> Tensor:
        """Returns the vectors of codes, with gradients that go to the features as if these were the vectors."""
        bounded = self.bound(features)
        return bounded + (self.embed(codes) - bounded).detach()

    def learn(self, features: Tensor, codes: Tensor) -> Tensor | None:
        """Returns what training minimises besides the bound, `(B,)`, or None. It is a sum over an example.

        In training mode, vectors that are no parameters learn from the batch.
        """
        return None

    def init_from_features(self, features: Tensor) -> None:
        """Chooses the first vectors from features of the data, `(N, dim, h, w)`. Does nothing by default."""


class QuantizerPart(ABC):
    """A choice of a quantizer: a frozen dataclass of options that makes it.

    Attributes:
        part: Its name, as in its entry point of the group `vaezoo.quantizers`.
        formula: What it is in LaTeX, for the page of a model. Empty: none is shown.
    """

    part: ClassVar[str]
    formula: ClassVar[str] = ""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of codes of each codebook (K). Codes are 0 to K - 1."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Channels of features and vectors."""

    @property
    def depth(self) -> int:
        """Codes at each position, or 0 for one that has no axis of its own."""
        return 0

    @abstractmethod
    def build(self) -> Quantizer:
        """Returns the quantizer."""


def require_codes(option: str, count: int) -> None:
    """Raises VaezooError if an option makes more codes than can be counted."""
    if count > MAX_CODES:
        raise VaezooError(f"option '{option}' makes {count:,} codes", f"make at most {MAX_CODES:,}")


def require_at_least_0(option: str, value: float, limit: float | None = None) -> None:
    """Raises VaezooError unless an option is at least 0, and below its limit if there is one."""
    if value < 0 or (limit is not None and value >= limit):
        below = "" if limit is None else f" and below {limit:g}"
        raise VaezooError(f"option '{option}' is {value}", f"give '{option}' at least 0{below}")
