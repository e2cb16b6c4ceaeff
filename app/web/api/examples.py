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
    "import": None,
    "created_at": "2026-01-31T09:15:00.123456Z",
    "started_at": None,
    "finished_at": None,
    "url": f"{HOST}/jobs/{JOB_ID}",
}
UPLOAD_REQUEST_EXAMPLE: Json = {"filename": "members.csv.gz", "bytes": 171604813}
UPLOAD_EXAMPLE: Json = {
    "id": "5b0d3a52-6f43-4b9e-8f0e-0d6d3f6f7f21",
    "filename": "members.csv.gz",
    "status": "receiving",
    "offset": 0,
    "bytes": 171604813,
    "sha256": None,
    "refusal": None,
    "created_at": "2026-01-31T09:15:00.123456Z",
    "expires_at": "2026-02-01T09:15:00.123456Z",
    "removed_at": None,
}
UPLOADED_EXAMPLE: Json = UPLOAD_EXAMPLE | {"offset": 8388608}
IMPORTER_EXAMPLE: Json = {
    "key": "members",
    "title": "Members",
    "description": "People by their address of mail.",
    "group": "People",
    "roles": ["admin"],
    "table": "members",
    "natural_key": ["email"],
    "modes": ["upsert", "insert", "update", "skip"],
    "columns": [
        {
            "name": "email",
            "type": "text",
            "label": "E-mail",
            "description": "",
            "required": True,
            "default": None,
            "choices": [],
            "references": None,
        }
    ],
    "url": f"{HOST}/imports/new?importer=members",
}
IMPORT_ID = "7b1f1d3e-2f0a-4c53-9a52-64d0f3d9a1f4"
COUNTS_EXAMPLE: Json = {
    "read": 5000000,
    "inserted": 4200000,
    "updated": 650000,
    "unchanged": 149750,
    "skipped": 0,
    "superseded": 0,
    "refused": 250,
    "refused_by": {"required": 200, "type": 50},
}
APPLYING_EXAMPLE: Json = QUEUED_EXAMPLE | {
    "kind": "import",
    "report": None,
    "title": "Import: Members",
    "params": {},
    "compression": "none",
    "import": {
        "id": IMPORT_ID,
        "importer": "members",
        "step": "apply",
        "counts": None,
        "paused_at": None,
    },
}
STEP_EXAMPLE: Json = {"step": "apply"}
IMPORT_EXAMPLE: Json = {
    "id": IMPORT_ID,
    "importer": "members",
    "title": "Members",
    "upload": "5b0d3a52-6f43-4b9e-8f0e-0d6d3f6f7f21",
    "filename": "members.csv.gz",
    "parent": None,
    "mode": "upsert",
    "dialect": {
        "container": "gzip",
        "content": "text",
        "member": None,
        "encoding": "utf-8",
        "delimiter": ",",
        "quote": '"',
        "escape": None,
        "skip": 0,
        "header": True,
        "decimal": ".",
        "dates": "dmy",
        "nulls": [],
        "zone": "Europe/Berlin",
        "apostrophes": False,
    },
    "unsure": {"dates": "'01/02/1990' may be either: it is read with the day first."},
    "header": ["E-Mail", "Name", "Born"],
    "mapping": {"email": 0, "full_name": 1, "born_on": 2},
    "reject_limit": 1000,
    "reject_percent": 5,
    "rate": None,
    "forecast": COUNTS_EXAMPLE,
    "examples": [
        {
            "line": 17,
            "key": {"email": "ann@example.org"},
            "changes": {"full_name": ["Ann Lee", "Ann Ray"]},
        }
    ],
    "result": COUNTS_EXAMPLE,
    "undone": None,
    "jobs": [{"id": JOB_ID, "step": "apply", "status": "succeeded"}],
    "created_at": "2026-01-31T09:15:00.123456Z",
    "url": f"{HOST}/imports/{IMPORT_ID}",
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
    kinds = operation.get("requestBody", {}).get("content", {})
    if "application/json" in kinds:
        words.append("-H 'Content-Type: application/json'")
        words.append("-H 'Idempotency-Key: tasks-of-monday'")
        words.append(f"-d '{json.dumps(kinds['application/json']['example'])}'")
    elif kinds:
        [kind] = kinds
        words.append(f"-X {method.upper()} -H 'Content-Type: {kind}' -H 'Upload-Offset: 0'")
        words.append("--data-binary @members.csv.gz")
    elif method != "get":
        words.append(f"-X {method.upper()}")
    words.append(base + path.replace("{id}", JOB_ID).replace("{key}", "all_tasks"))
    return " \\\n  ".join(words)
