"""p(z). One file holds one family."""
