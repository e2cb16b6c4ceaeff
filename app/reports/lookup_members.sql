/*
title = "Find members"
description = "The members behind a list of email addresses, and a second file of the addresses that nobody has."
group = "People"
roles = ["admin"]
link = "signed-in"
lookup = { param = "emails", column = "email" }

[columns]
email = "Address for signing in"
id = "Number of the member"
name = "Name as the member wrote it"
company = "Name of the company"
role = "owner, manager, member or guest"
active = "Whether the member may sign in"
last_seen_at = "Last request (UTC); empty for never"

[params.emails]
type = "list"
label = "Email addresses"
help = "Pasted, or from a file: text, CSV or a workbook."
required = true
*/
SELECT
    member.email,
    member.id,
    member.name,
    company.name AS company,
    member.role,
    member.active,
    member.last_seen_at
FROM members AS member
JOIN companies AS company ON company.id = member.company_id
WHERE member.email = ANY(:emails)
ORDER BY member.id
