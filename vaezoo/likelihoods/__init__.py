"""p(x|z), one file for each family. `make.py` builds them from their names."""
