"""The modified Bessel function of the first kind, as a logarithm, for any order and with gradients."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MIN_ORDER = 12  # from which four terms of the expansion are exact to float32
MIN_STEPS = 2  # downwards, in which the error of the ratio shrinks further


def log_bessel(order: float, x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns log(I_v(x) exp(-x) / x^v) and I_(v+1)(x) / I_v(x) for the order v, both finite at x = 0.

    The ratio is d log(I_v(x) / x^v) / dx. torch.special has the orders 0 and 1 only.

    Orders from 12 on have the uniform asymptotic expansion (NIST Digital Library of Mathematical Functions, 10.41.3).
    Below, the expansion is taken at a higher order. The ratios r_k = I_(k+1) / I_k then follow downwards by
    1 / r_(k-1) = 2 k / x + r_k, in which errors shrink.

    Args:
        order: v, at least 0.
        x: At least 0.
    """
    steps = max(MIN_STEPS, math.ceil(MIN_ORDER - order))
    high = order + steps
    log_value, quotient = _expansion(high, x)
    square, quotients = x.square(), []
    for k in range(steps):
        # With q_k = r_k / x: q_(k-1) = 1 / (2 k + x^2 q_k), and I_(k-1) / x^(k-1) = I_k / x^k / q_(k-1).
        quotient = 1 / (2 * (high - k) + square * quotient)
        quotients.append(quotient)
    return log_value - torch.log(torch.stack(quotients)).sum(0), x * quotient


def _expansion(v: float, x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns log(I_v(x) exp(-x) / x^v) and I_(v+1)(x) / (x I_v(x)) for a high order v."""
    # With s = sqrt(v^2 + x^2) and p = v / s:
    # I_v(x) / x^v = exp(s) / (sqrt(2 pi s) (v + s)^v) (1 + u_1(p) / v + ... + u_4(p) / v^4 + ...).
    s = torch.sqrt(v * v + x.square())
    p = v / s
    p2 = p.square()
    # u_k(p) / p^k, polynomials in p^2 (10.41.10), and the same for the derivative of u_k(p).
    a1, a2 = (3 - 5 * p2) / 24, (81 - 462 * p2 + 385 * p2**2) / 1152
    a3 = (30375 - 369603 * p2 + 765765 * p2**2 - 425425 * p2**3) / 414720
    a4 = (4465125 - 94121676 * p2 + 349922430 * p2**2 - 446185740 * p2**3 + 185910725 * p2**4) / 39813120
    b1, b2 = (3 - 15 * p2) / 24, (162 - 1848 * p2 + 2310 * p2**2) / 1152
    b3 = (91125 - 1848015 * p2 + 5360355 * p2**2 - 3828825 * p2**3) / 414720
    b4 = (17860500 - 564730056 * p2 + 2799379440 * p2**2 - 4461857400 * p2**3 + 2230928700 * p2**4) / 39813120
    e = p / v
    terms = e * (a1 + e * (a2 + e * (a3 + e * a4)))
    slope = (b1 + e * (b2 + e * (b3 + e * b4))) / v
    log_value = v * v / (s + x) - v * torch.log(v + s) - 0.5 * torch.log(2 * math.pi * s) + torch.log1p(terms)
    # The derivative of log(I_v(x) / x^v), divided by x. ds/dx = x / s, and dp/dx = -x p / s^2.
    quotient = 1 / (v + s) - 0.5 / s.square() - slope / (1 + terms) * p / s.square()
    return log_value, quotient
