"""Networks that several models share, one file for each family."""
