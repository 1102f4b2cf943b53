"""The built-in models, one file each. Nothing imports them but the entry points in pyproject.toml."""
