"""Importers: one target a file, in TOML or in Python; `Registry` finds them. See docs/author.md.

An importer file is any .toml or .py file of this folder, or of a folder in IMPORTERS_PATH, whose name does
not begin with "_".
"""

from app.definitions import Problem
from app.importers._base import Column, Importer, Reference, Refused, value_of
from app.importers._registry import BrokenImporters, Registry, registry

__all__ = [
    "BrokenImporters",
    "Column",
    "Importer",
    "Problem",
    "Reference",
    "Refused",
    "Registry",
    "registry",
    "value_of",
]
