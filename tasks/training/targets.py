"""Targets: which anchor has to find which object. One definition for every framework."""

BACKGROUND = -1
"""Column of an anchor that has to find nothing."""

IGNORED = -2
"""Column of an anchor whose answer does not count: it lies in a crowd."""
