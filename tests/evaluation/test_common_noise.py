"""Each example of a batch gets the random numbers that it gets alone."""

import pytest
import torch
from torch.distributions import Beta, Categorical, Gumbel, Normal

from vaezoo.evaluation.common_noise import CommonNoise

P = torch.tensor([[0.1, 0.9], [0.5, 0.5], [0.9, 0.1]])

DRAWS = {
    "randn": lambda p: torch.randn(p.shape),
    "randn of numbers": lambda p: torch.randn(*p.shape),
    "rand": lambda p: torch.rand(p.shape, dtype=torch.float64),
    "randn_like": torch.randn_like,
    "in place": lambda p: torch.zeros_like(p).normal_(),
    "bernoulli": torch.bernoulli,
    "multinomial": lambda p: torch.multinomial(p, 1),
    "normal": lambda p: torch.normal(p, p),
    "Normal": lambda p: Normal(p, p).rsample(),
    "Beta": lambda p: Beta(p, p).rsample(),
    "Gumbel": lambda p: Gumbel(p, p).rsample(),
    "Categorical": lambda p: Categorical(p).sample(),
    "two draws": lambda p: torch.randn(p.shape) + torch.rand_like(p) + torch.bernoulli(p) + torch.randn(p.shape),
}


@pytest.mark.parametrize("name", DRAWS)
def test_rows_draw_what_each_draws_alone(name):
    def draw(p, examples):
        torch.manual_seed(3)
        with CommonNoise(examples):
            return DRAWS[name](p)

    together = draw(P, 3)
    for i in range(3):
        assert torch.equal(together[i], draw(P[i : i + 1], 1)[0])
    repeated = draw(P.repeat_interleave(2, 0), 3)  # two samples of each example
    for i in range(3):
        assert torch.equal(repeated[2 * i : 2 * i + 2], draw(P[i : i + 1].repeat(2, 1), 1))
    many = draw(P[1:2].repeat(40, 1), 1)
    assert len(many.unique(dim=0)) > 1  # the samples of one example differ


def test_other_draws_stay():
    torch.manual_seed(1)
    expected = torch.randn(4, 2), torch.rand(()), torch.randn(3, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(1)
    with CommonNoise(3):
        actual = torch.randn(4, 2), torch.rand(()), torch.randn(3, generator=torch.Generator().manual_seed(2))
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
