"""Applying a file: every row's effect is there once, and the counts tell of it."""

from __future__ import annotations

from tests.importing import Landing, text_of


def test_new_rows(landing: Landing) -> None:
    job = landing.apply(text_of(500))
    assert landing.result(job) == {"read": 500, "inserted": 500}
    rows = landing.rows()
    assert len(rows) == 500
    assert [str(value) for value in rows[2]] == [
        *("3", "Thing 3", "1.11", "2026-01-04", "2026-01-31 10:03:00+00:00"),
        *("True", 'He said "3",\nthen left', "0"),
    ]
    assert (job.progress_done, job.progress_total) == (500, 500)
