"""The kinds of plots, as files in memory. `Run.plot` and `vaezoo plot` draw them.

`vaezoo sample` and `vaezoo reconstruct` use the first two kinds, which also draw exports, without torch.
"""
