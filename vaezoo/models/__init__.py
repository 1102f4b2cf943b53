"""The built-in models, one file each. Only the entry points in pyproject.toml import them."""
