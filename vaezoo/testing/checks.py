"""The checks of the conformance suite, in their order.

Each check is a function of a ModelSpec. It raises AssertionError with what is wrong and what to change, or
`unittest.SkipTest` with the reason why it does not apply. Checks use the first of a few small data that the model
accepts; see `vaezoo.testing.examples`.
"""

from __future__ import annotations

from vaezoo.testing.autoregressive import check_autoregressive
from vaezoo.testing.densities import check_bound, check_kl, check_posterior, check_prior
from vaezoo.testing.examples import Check
from vaezoo.testing.export import check_onnx, check_runtime
from vaezoo.testing.interface import check_kinds, check_labels, check_shapes, check_sizes, check_unsupported
from vaezoo.testing.likelihood import check_likelihood
from vaezoo.testing.rows import check_independence, check_repeat
from vaezoo.testing.state import check_meta, check_names, check_seed, check_state
from vaezoo.testing.training import (
    check_groups,
    check_guard,
    check_learning,
    check_losses,
    check_metrics,
    check_precision,
)

CHECKS: tuple[Check, ...] = (
    check_shapes,
    check_names,
    check_groups,
    check_losses,
    check_metrics,
    check_learning,
    check_guard,
    check_precision,
    check_independence,
    check_repeat,
    check_posterior,
    check_prior,
    check_kl,
    check_bound,
    check_likelihood,
    check_autoregressive,
    check_labels,
    check_meta,
    check_state,
    check_seed,
    check_runtime,
    check_onnx,
    check_sizes,
    check_kinds,
    check_unsupported,
)
