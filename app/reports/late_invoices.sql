/*
title = "Late invoices"
description = "Invoices that were due before a day and are not paid, the oldest first."
group = "Money"
filename = "late-invoices-{date}"

[columns]
number = "Number printed on the invoice"
company = "Who has to pay"
issued_on = "Day of the invoice"
due_on = "Last day for paying"
days_late = "Days from the due day to the day asked for"
amount = "What is to be paid"
currency = "ISO 4217 code"
note = "What was noted about it; often empty"

[params.due_before]
type = "date"
help = "A day such as 2026-01-01, or words such as today, 30 days ago, this quarter."
default = "today"
required = true

[params.min_amount]
type = "decimal"
label = "Amount of at least"
default = "0.00"
min = "0"
max = "1000000000"

[params.currency]
type = "enum"
choices = ["EUR", "USD", "GBP", "CHF"]

[params.companies]
type = "list"
label = "Companies' numbers"
help = "Pasted from anywhere, one on each line; empty for all."
items = "int"
max = 1000
*/
SELECT
    invoice.number,
    company.name AS company,
    invoice.issued_on,
    invoice.due_on,
    :due_before - invoice.due_on AS days_late,
    invoice.amount,
    invoice.currency,
    invoice.note
FROM invoices AS invoice
JOIN companies AS company ON company.id = invoice.company_id
WHERE invoice.paid_on IS NULL
    AND invoice.due_on < :due_before
    AND (:min_amount IS NULL OR invoice.amount >= :min_amount)
    AND (:currency IS NULL OR invoice.currency = :currency)
    AND (:companies IS NULL OR invoice.company_id = ANY(:companies))
ORDER BY invoice.due_on, invoice.number
