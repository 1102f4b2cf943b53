"""Quantizers: how features become codes, and codes vectors."""
