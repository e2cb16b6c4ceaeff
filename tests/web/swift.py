"""The app, but its hub goes round ten times as fast: `gunicorn tests.web.swift:app()`."""

from __future__ import annotations

from apiflask import APIFlask

from app import create_app
from app.settings import Settings
from app.web.hub import Hub

BEAT = 1.5


def app() -> APIFlask:
    made = create_app()
    config: Settings = made.config["WAYBILL"]
    made.extensions["waybill.hub"] = Hub(made, config.redis_url, beat=BEAT)
    return made
