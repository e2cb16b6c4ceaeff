"""`/healthz` and `/readyz`, with everything there and with each thing missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.dev.child import free_port


def test_alive_asks_nobody(app_with: Any) -> None:
    client = app_with(DATABASE_URL=f"postgresql://nobody@127.0.0.1:{free_port()}/none").test_client()
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json) == (200, {"status": "ok"})


def test_ready_names_each_thing(client: FlaskClient) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json == {
        "status": "ok",
        "database": {"ok": True},
        "redis": {"ok": True},
        "storage": {"ok": True},
    }


def test_without_redis_it_is_ready_still(app_with: Any) -> None:
    answer = app_with(REDIS_URL=f"redis://127.0.0.1:{free_port()}/0").test_client().get("/readyz")
    assert answer.status_code == 200
    assert answer.json["status"] == "degraded"
    assert answer.json["redis"] == {"ok": False, "why": "ConnectionError"}
    assert answer.json["database"] == {"ok": True}


def test_without_the_database_it_is_not(app_with: Any) -> None:
    url = f"postgresql://somebody:secret@127.0.0.1:{free_port()}/none"
    answer = app_with(DATABASE_URL=url).test_client().get("/readyz")
    assert answer.status_code == 503
    assert answer.json["status"] == "down"
    assert answer.json["database"] == {"ok": False, "why": "OperationalError"}
    assert "secret" not in answer.text


def test_without_the_storage_it_is_not(
    app_with: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    answer = app_with(STORAGE_URL=(file / "folder").as_uri()).test_client().get("/readyz")
    assert answer.status_code == 503
    assert not answer.json["storage"]["ok"]
    assert str(tmp_path) not in answer.text
