"""q(z|x). One file holds one family."""
