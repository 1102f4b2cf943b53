"""Folders of other libraries: diffusers' autoencoders and TAESD's files become runs, and runs become such folders."""
