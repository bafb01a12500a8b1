"""What can be wrong with a sweep, said for people."""

from __future__ import annotations


class SweepError(Exception):
    """A sweep cannot be read, planned or run. Says what is wrong, where, and how to mend it."""

    for_people = True
