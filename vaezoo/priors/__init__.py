"""p(z), one file for each family."""
