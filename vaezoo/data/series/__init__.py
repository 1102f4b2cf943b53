"""Data sets of series: several real values at each point of time."""
