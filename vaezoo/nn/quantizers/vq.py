"""The choices of quantizers with learned codebooks: one codebook, or several on residuals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vaezoo.core.options import require_positive
from vaezoo.errors import VaezooError
from vaezoo.nn.quantizers.base import QuantizerPart, require_at_least_0, require_codes
from vaezoo.nn.quantizers.codebooks import Codebook, EMACodebook, GradientCodebook
from vaezoo.nn.quantizers.residual import ResidualQuantizer

MAX_CODEBOOKS = 64


@dataclass(frozen=True, kw_only=True)
class CodebookOptions:
    """The options of a codebook.

    Attributes:
        codebook_size: Number of vectors in the codebook (K).
        code_dim: Dimensions of each vector.
        codebook: How the vectors are learned: as moving averages of the features (`ema`), or by `gradient`.
        decay: Decay of the moving averages for each batch, with codebook=ema.
        revive_below: With codebook=ema, a vector that is used less than this share of 1/K is replaced by a feature of
            the batch. 0: never, as in the paper.
        commitment: Weight of the features' squared distance from their vectors.

    Raises:
        VaezooError: If a value is out of range.
    """

    codebook_size: int = 512
    code_dim: int = 64
    codebook: Literal["ema", "gradient"] = "ema"
    decay: float = 0.99
    revive_below: float = 0.1
    commitment: float = 0.25

    def __post_init__(self) -> None:
        require_positive("codebook_size", self.codebook_size)
        require_positive("code_dim", self.code_dim)
        require_codes("codebook_size", self.codebook_size)
        require_at_least_0("decay", self.decay, 1)
        require_at_least_0("revive_below", self.revive_below, 1)
        require_at_least_0("commitment", self.commitment)

    @property
    def size(self) -> int:
        return self.codebook_size

    @property
    def dim(self) -> int:
        return self.code_dim

    def make_codebook(self) -> Codebook:
        """Returns a codebook with random vectors."""
        if self.codebook == "gradient":
            return GradientCodebook(self.codebook_size, self.code_dim, self.commitment)
        return EMACodebook(self.codebook_size, self.code_dim, self.commitment, self.decay, self.revive_below)


@dataclass(frozen=True, kw_only=True)
class VQPart(CodebookOptions, QuantizerPart):
    """One learned codebook (van den Oord et al. 2017, arXiv 1711.00937)."""

    part = "vq"
    formula = r"z_i = \mathrm{argmin}_k\,|f_i(x) - e_k|^2, \qquad \ell = c \sum_i |f_i(x) - \mathrm{sg}[e_{z_i}]|^2"

    def build(self) -> Codebook:
        return self.make_codebook()


@dataclass(frozen=True, kw_only=True)
class ResidualPart(CodebookOptions, QuantizerPart):
    """Learned codebooks, each for what the ones before leave over (Zeghidour et al. 2021, arXiv 2107.03312).

    Attributes:
        codebooks: Number of codebooks.

    Raises:
        VaezooError: If a value is out of range.
    """

    part = "residual"
    formula = (
        r"z_{si} = \mathrm{argmin}_k\,|r_{si} - e_{sk}|^2, \qquad r_{s+1,i} = r_{si} - e_{s z_{si}},"
        r" \qquad r_{1i} = f_i(x), \qquad \ell = c \sum_{s,i} |r_{si} - \mathrm{sg}[e_{s z_{si}}]|^2"
    )
    codebooks: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("codebooks", self.codebooks)
        if self.codebooks > MAX_CODEBOOKS:
            raise VaezooError(f"option 'codebooks' is {self.codebooks}", f"give at most {MAX_CODEBOOKS}")

    @property
    def depth(self) -> int:
        """Overridden: one code of each codebook."""
        return self.codebooks

    def build(self) -> ResidualQuantizer:
        return ResidualQuantizer([self.make_codebook() for _ in range(self.codebooks)])
