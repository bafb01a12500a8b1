"""The run folder of a sweep: its store (SQLite), and what is in it, read for reports."""
