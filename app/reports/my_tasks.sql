/*
title = "My tasks"
description = "The tasks assigned to the person who asks, the most urgent first."
group = "Work"
filename = "my-tasks-{date}"

[columns]
id = "Number of the task"
title = "What is to be done"
status = "open, in progress, blocked or done"
priority = "1 is the most urgent, 4 the least"
project = "Name of the project"
due_on = "Day by which it should be done; empty when there is none"
created_at = "When it was written down (UTC)"

[params.done]
type = "bool"
label = "Done ones, too"
default = false

[params.due_until]
type = "date"
label = "Due until"
help = "Leave it empty for all, those without a due day included."
edge = "end"
*/
SELECT
    task.id,
    task.title,
    task.status,
    task.priority,
    project.name AS project,
    task.due_on,
    task.created_at
FROM tasks AS task
JOIN projects AS project ON project.id = task.project_id
WHERE task.assignee_email = :current_user_email
    AND (:done OR task.status <> 'done')
    AND (:due_until IS NULL OR task.due_on <= :due_until)
ORDER BY task.priority, task.due_on NULLS LAST, task.id
