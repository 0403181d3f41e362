"""Dense training: the control, and the start of most pruning runs."""

from pruneexp.methods.base import Method


class Dense(Method):
    """Prunes nothing."""
