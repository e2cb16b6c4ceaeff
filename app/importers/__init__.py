"""Importers: one target a file, in TOML or in Python. See docs/author.md."""

from app.importers._base import Column, Importer, Reference, Refused, value_of

__all__ = ["Column", "Importer", "Reference", "Refused", "value_of"]
