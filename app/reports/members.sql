/*
title = "Members"
description = "The people of all companies, with their role and when they were last seen."
group = "People"
roles = ["admin"]
link = "signed-in"

[columns]
id = "Number of the member"
name = "Name as the member wrote it"
email = "Address for signing in"
company = "Name of the company"
role = "owner, manager, member or guest"
active = "Whether the member may sign in"
joined_on = "Day of the first sign-in"
last_seen_at = "Last request (UTC); empty for never"

[params.company]
type = "text"
label = "Company's name contains"
max_length = 100

[params.role]
type = "enum"
choices = ["owner", "manager", "member", "guest"]

[params.active]
type = "bool"
label = "Active members only"
default = true

[params.joined_since]
type = "date"
help = "First day, for instance last year."

[params.seen_since]
type = "datetime"
label = "Seen since"
help = "Leave it empty for all, those never seen included."
*/
SELECT
    member.id,
    member.name,
    member.email,
    company.name AS company,
    member.role,
    member.active,
    member.joined_on,
    member.last_seen_at
FROM members AS member
JOIN companies AS company ON company.id = member.company_id
WHERE (:company IS NULL OR strpos(lower(company.name), lower(:company)) > 0)
    AND (:role IS NULL OR member.role = :role)
    AND (:active IS NOT TRUE OR member.active)
    AND (:joined_since IS NULL OR member.joined_on >= :joined_since)
    AND (:seen_since IS NULL OR member.last_seen_at >= :seen_since)
ORDER BY company.name, member.name, member.id
