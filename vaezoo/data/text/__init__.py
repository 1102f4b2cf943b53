"""Data sets of texts, as token ids."""
