"""What can be wrong with a sweep, said for people."""

from __future__ import annotations

from merge_hooks.errors import ForPeople


class SweepError(ForPeople):
    """A sweep cannot be read, planned or run. Says what is wrong, where, and how to mend it."""
