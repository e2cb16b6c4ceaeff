"""Reports: one definition a file, in SQL or in Python; `Registry` finds them. See docs/author.md.

A report file is any .sql or .py file of this folder, or of a folder in REPORTS_PATH, whose name does not
begin with "_".
"""

from app.definitions import Problem
from app.params import Choice, Param, Params
from app.reports._base import (
    Bundle,
    Column,
    File,
    Lookup,
    Person,
    Query,
    Report,
    ReportContext,
    SqlReport,
    Statement,
    compose,
    ordered_by,
    statement,
)
from app.reports._registry import BrokenReports, Registry, registry

__all__ = [
    "BrokenReports",
    "Bundle",
    "Choice",
    "Column",
    "File",
    "Lookup",
    "Param",
    "Params",
    "Person",
    "Problem",
    "Query",
    "Registry",
    "Report",
    "ReportContext",
    "SqlReport",
    "Statement",
    "compose",
    "ordered_by",
    "registry",
    "statement",
]
