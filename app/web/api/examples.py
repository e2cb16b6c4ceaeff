"""What requests and answers look like, for the document and the page made from it."""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]

JOB_ID = "0d9f3c0a-4f4e-4c7e-9d7b-3a5f5a2b8c11"
HOST = "https://waybill.example.org"

REPORT_EXAMPLE: Json = {
    "key": "all_tasks",
    "title": "All tasks",
    "description": "Every task, with its project and assignee.",
    "group": "Work",
    "roles": ["member", "admin"],
    "params": {
        "type": "object",
        "properties": {
            "status": {"title": "Status", "type": ["string", "null"], "enum": ["open", "done", None]}
        },
        "required": [],
        "additionalProperties": False,
    },
    "columns": [{"name": "id", "description": ""}, {"name": "title", "description": "As it was typed."}],
    "formats": [
        {
            "name": "csv",
            "extension": "csv",
            "content_type": "text/csv; charset=utf-8",
            "dialects": ["machine", "spreadsheet"],
            "compressions": ["none", "gzip"],
        }
    ],
    "bundled": False,
    "url": f"{HOST}/reports/all_tasks",
}
EXPORT_EXAMPLE: Json = {
    "report": "all_tasks",
    "params": {"status": "open"},
    "format": "csv",
    "compression": "gzip",
}
QUEUED_EXAMPLE: Json = {
    "id": JOB_ID,
    "kind": "export",
    "status": "queued",
    "progress": {"done": 0, "total": None, "unit": "rows"},
    "attempt": 0,
    "error": None,
    "artifact": None,
    "report": "all_tasks",
    "title": "All tasks",
    "params": {"status": "open"},
    "format": "csv",
    "dialect": "machine",
    "compression": "gzip",
    "columns": None,
    "time_zone": "Europe/Berlin",
    "sharing": None,
    "created_at": "2026-01-31T09:15:00.123456Z",
    "started_at": None,
    "finished_at": None,
    "url": f"{HOST}/jobs/{JOB_ID}",
}
PREFLIGHT_EXAMPLE: Json = {
    "rows": 1234567,
    "bytes": 171604813,
    "seconds": 2.4,
    "advice": ["CSV with gzip would be about 4x smaller."],
    "unknown": None,
    "sample": None,
}
DONE_EXAMPLE: Json = QUEUED_EXAMPLE | {
    "status": "succeeded",
    "progress": {"done": 1000000, "total": 1000000, "unit": "rows"},
    "attempt": 1,
    "artifact": {
        "filename": "all_tasks-2026-01-31.csv.gz",
        "bytes": 41234567,
        "rows": 1000000,
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "url": f"{HOST}/d/AbCdEf0123456789AbCdEf0123456789AbCdEf0123456789AbCdEf01",
        "receipt_url": f"{HOST}/d/AbCdEf0123456789AbCdEf0123456789AbCdEf0123456789AbCdEf01/receipt",
        "snapshot_at": "2026-01-31T09:15:00.250000Z",
        "expires_at": "2026-02-01T09:15:03.654321Z",
    },
    "started_at": "2026-01-31T09:15:00.201000Z",
    "finished_at": "2026-01-31T09:15:03.654321Z",
}
EVENTS_EXAMPLE = """\
event: log
id: 1
data: {"number":1,"at":"2026-01-31T09:15:00.123456Z","level":"info","text":"Started."}

event: progress
data: {"done":250000,"total":1000000,"unit":"rows"}

event: status
data: {"status":"succeeded"}

"""
LINES_EXAMPLE: Json = {
    "items": [{"number": 1, "at": "2026-01-31T09:15:00.123456Z", "level": "info", "text": "Started."}]
}


def curl(base: str, method: str, path: str, operation: Json) -> str:
    """The operation as a command to paste into a shell, with the token in $WAYBILL_TOKEN."""
    words = ["curl --no-buffer" if path.endswith("/events") else "curl"]
    words.append('-H "Authorization: Bearer $WAYBILL_TOKEN"')
    if "requestBody" in operation:
        body = operation["requestBody"]["content"]["application/json"]["example"]
        words.append("-H 'Content-Type: application/json'")
        words.append("-H 'Idempotency-Key: tasks-of-monday'")
        words.append(f"-d '{json.dumps(body)}'")
    elif method == "post":
        words.append("-X POST")
    words.append(base + path.replace("{id}", JOB_ID).replace("{key}", "all_tasks"))
    return " \\\n  ".join(words)
