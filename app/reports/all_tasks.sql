/*
title = "All tasks"
description = "Every task with its project and assignee: a million rows when nothing narrows it down."
group = "Work"
filename = "all-tasks-{date}"
partition_by = "id"

[columns]
id = "Number of the task"
title = "What is to be done"
description = "Details, with line breaks as they were typed; often empty"
status = "open, in progress, blocked or done"
project = "Name of the project"
assignee = "Email of the person who has it; empty for nobody"
estimate_hours = "Estimated hours; empty when nobody guessed"
created_at = "When it was written down (UTC)"

[params.since]
type = "date"
label = "Created since"
help = "First day, for instance 2025-01-01 or this year."

[params.until]
type = "date"
label = "Created until"
help = "Last day, itself included."
edge = "end"

[params.status]
type = "enum"
choices = [
    { value = "open", label = "Open" },
    { value = "in progress", label = "In progress" },
    { value = "blocked", label = "Blocked" },
    { value = "done", label = "Done" },
]

[params.project]
type = "text"
label = "Project's name contains"
max_length = 100

[params.assignees]
type = "list"
help = "Emails, one on each line."
max = 1000

[params.described]
type = "bool"
label = "Only tasks with a description"
default = false
*/
SELECT
    task.id,
    task.title,
    task.description,
    task.status,
    project.name AS project,
    task.assignee_email AS assignee,
    task.estimate_hours,
    task.created_at
FROM tasks AS task
JOIN projects AS project ON project.id = task.project_id
WHERE (:since IS NULL OR task.created_at >= :since)
    AND (:until IS NULL OR task.created_at < :until + 1)
    AND (:status IS NULL OR task.status = :status)
    AND (:project IS NULL OR strpos(lower(project.name), lower(:project)) > 0)
    AND (:assignees IS NULL OR task.assignee_email = ANY(:assignees))
    AND (:described IS NOT TRUE OR task.description IS NOT NULL)
ORDER BY task.id
