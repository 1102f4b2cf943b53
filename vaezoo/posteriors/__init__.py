"""q(z|x), one file for each family."""
