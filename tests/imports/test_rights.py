"""An account with the rights that docs/operator.md asks for, and no more, may import and undo."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.importing import Landing, text_of

RIGHTS = """
CREATE ROLE landing_writer LOGIN PASSWORD 'writes';
GRANT USAGE ON SCHEMA landing TO landing_writer;
GRANT SELECT, INSERT, UPDATE, DELETE ON landing.things TO landing_writer;
CREATE SCHEMA waybill_journal AUTHORIZATION landing_writer;
"""


@pytest.fixture
def narrow(app: Any, landing: Landing) -> Iterator[Landing]:
    """The target, written to by an account that may create nothing but in the schema made for it."""
    landing.conn.execute(RIGHTS)
    parts = urlsplit(landing.url)
    url = parts._replace(netloc=f"landing_writer:writes@{parts.netloc.rpartition('@')[2]}").geturl()
    config = app.config["WAYBILL"]
    app.config["WAYBILL"] = replace(config, targets={"landing": f"{url}?options=-csearch_path%3Dlanding"})
    yield landing
    landing.conn.execute("DROP OWNED BY landing_writer CASCADE; DROP ROLE landing_writer")


def test_a_schema_that_an_administrator_made_is_enough(narrow: Landing) -> None:
    job = narrow.apply(text_of(20))
    assert job.import_id is not None
    assert narrow.result(job) == {"read": 20, "inserted": 20}

    undone = narrow.run(narrow.ask_again(job.import_id, "undo"))
    assert undone.status == "succeeded", narrow.log(undone.id)
    assert narrow.rows() == []
