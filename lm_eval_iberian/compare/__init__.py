"""Figures from what was measured: columns, tables, differences between models, the best. Nothing is drawn here."""
