"""The command line `vaezoo`: click parses it, rich prints, and the library does the work."""
