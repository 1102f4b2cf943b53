"""p(x|z). One file holds one family, and `make.py` builds them by name."""
