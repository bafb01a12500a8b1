"""Errors of documents, of tasks' code and of places for results: what is wrong, where, and how to mend it."""

from __future__ import annotations

from merge_hooks.errors import ForPeople


class DocumentsError(ForPeople):
    """Documents cannot be had or read. Says what is wrong, where, and how to mend it."""


class NotToBeHad(DocumentsError):  # noqa: N818, as our other errors of one family
    """Neither in the mirror nor on the Hub. Another copy of the data set may serve, if there is one."""


class TaskCodeError(ForPeople):
    """The code of a task does not run with the packages that are installed."""


class OutputError(ForPeople):
    """Results could not be written where they are wanted. Said before anything is measured."""


class ManifestError(DocumentsError):
    """A manifest.yml or languages.yml of a tasks folder does not say what it should. Names the file and the key."""
