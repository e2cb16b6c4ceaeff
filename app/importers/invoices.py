"""Invoices by their number: an importer in Python, for it has rules across columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from app.importers import Column, Importer, Reference

if TYPE_CHECKING:
    import pyarrow as pa


class Invoices(Importer):
    title = "Invoices"
    description = "Invoices by their number, as the bookkeeping sends them."
    group = "Billing"
    source = "demo"
    table = "invoices"
    natural_key = ("number",)
    columns = (
        Column(
            name="number",
            required=True,
            pattern=r"INV-[0-9]{4}-[0-9]{4,}",
            aliases=("invoice", "invoice number", "no"),
        ),
        Column(
            name="company_id",
            label="Company",
            description="The company's name, as it is in Waybill.",
            required=True,
            references=Reference("companies", "name"),
            aliases=("company", "customer"),
        ),
        Column(name="issued_on", type="date", required=True, aliases=("issued", "invoice date", "date")),
        Column(name="due_on", type="date", required=True, aliases=("due", "due date")),
        Column(name="paid_on", type="date", aliases=("paid", "paid at")),
        Column(name="amount", type="decimal", required=True, max="9999999999.99", aliases=("total", "sum")),
        Column(name="currency", choices=("EUR", "USD", "GBP", "CHF"), default="EUR"),
        Column(name="note", max_length=2000, aliases=("comment", "remark")),
    )

    def check(self, rows: pa.RecordBatch) -> Iterator[tuple[pa.BooleanArray, str, str, str]]:
        import pyarrow.compute as pc

        if {"issued_on", "due_on"} <= set(rows.schema.names):
            early = pc.less(rows.column("due_on"), rows.column("issued_on"))
            yield early, "due_on", "due_before_issued", "The invoice is due before it was issued."
