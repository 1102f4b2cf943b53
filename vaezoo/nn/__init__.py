"""Networks that several models share. One file holds one family."""
