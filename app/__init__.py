"""Waybill: exports and imports that are too big for a web request. `create_app` wires everything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apiflask import APIFlask

    from app.settings import Settings

# Imports stand inside the functions: a part of Waybill (`python -m app.dev.smtp`) loads without the whole.


def create_app(environ: Mapping[str, str] | None = None) -> APIFlask:
    """The one app behind the web, the actors and the command line.

    `environ` stands in for the process's environment (tests); raises BadSettings.
    """
    import os

    from apiflask import APIFlask

    import actors.broker
    from app.settings import ROOT, VERSION, Settings

    config = Settings.from_environ(environ)
    app = APIFlask(
        __name__,
        title="Waybill",
        version=VERSION,
        json_errors=False,
        template_folder=str(ROOT / "templates"),
        spec_path=None,
        docs_path=None,
    )
    configure(app, config)
    bind_extensions(app, config)
    bind_parts(app, config, os.environ if environ is None else environ)
    actors.broker.init_app(app, config)
    register(app, config)
    return app


def configure(app: APIFlask, config: Settings) -> None:
    """Flask's and its extensions' own settings, derived from ours."""
    import logging

    from app import extensions
    from app.web import security, security_settings, uploads

    # Every process would begin its log with a list of the migration tool's plugins.
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
    app.config.update(
        WAYBILL=config,
        SECRET_KEY=config.secret_key,
        SECRET_KEY_FALLBACKS=config.secret_keys[1:],
        SQLALCHEMY_DATABASE_URI=config.database_url,
        SQLALCHEMY_ENGINE_OPTIONS={
            "pool_pre_ping": True,
            "pool_size": 10,
            "max_overflow": 20,
            "connect_args": extensions.patience(config.database_url),
        },
        BOOTSTRAP_SERVE_LOCAL=True,
        # Forms and the like; views that take files say so themselves.
        MAX_CONTENT_LENGTH=uploads.BODY_LIMIT,
        MAIL_SERVER=config.mail_server,
        MAIL_PORT=config.mail_port,
        MAIL_USE_TLS=config.mail_use_tls,
        MAIL_USE_SSL=config.mail_use_ssl,
        MAIL_USERNAME=config.mail_username or None,
        MAIL_PASSWORD=config.mail_password or None,
        MAIL_DEFAULT_SENDER=config.mail_default_sender,
        **security.flask_settings(config),
        **security_settings.flask_settings(),
    )


def bind_extensions(app: APIFlask, config: Settings) -> None:
    import redis

    from app import extensions
    from app.settings import ROOT

    extensions.db.init_app(app)
    extensions.migrate.init_app(app, extensions.db, directory=str(ROOT / "migrations"))
    extensions.mail.init_app(app)
    extensions.csrf.init_app(app)
    extensions.bootstrap.init_app(app)
    app.extensions["waybill.redis"] = redis.Redis.from_url(
        config.redis_url, socket_timeout=5, socket_connect_timeout=1
    )


def bind_parts(app: APIFlask, config: Settings, environ: Mapping[str, str]) -> None:
    """Waybill's own parts that live as long as the app; `environ` holds the storage's `AWS_*`."""
    from datetime import timedelta

    from app import importers, reports
    from app.sources import open_source
    from app.storage import open_storage

    for name, url in config.source_urls.items():
        open_source(name, url, timedelta(0))  # contacts nothing; refuses what nobody speaks

    found_reports = reports.Registry.load(config.reports_path, sources=config.source_urls)
    found_importers = importers.Registry.load(config.importers_path, sources=config.target_urls)
    for found in (found_reports, found_importers):
        if not config.development:
            found.check()
        for problem in found.problems:
            app.logger.warning("Broken %s: %s", found.word, problem)
    app.extensions["waybill.reports"] = found_reports
    app.extensions["waybill.importers"] = found_importers
    app.extensions["waybill.storage"] = open_storage(config.storage_url, environ)


def register(app: APIFlask, config: Settings) -> None:
    """Blueprints, error pages and commands."""
    from app import cli
    from app.web import (
        account,
        api,
        auth,
        downloads,
        errors,
        filters,
        health,
        imports,
        jobs,
        limits,
        operations,
        preflight,
        reports,
        security,
        stream,
    )

    # In this order a request is counted, its caller known, and its right to change anything proven.
    errors.init_app(app)
    limits.init_app(app, config)
    auth.init_app(app)
    security.init_app(app, config)
    account.init_app(app)

    filters.init_app(app)
    app.register_blueprint(imports.pages)
    app.register_blueprint(imports.sending)
    app.register_blueprint(operations.pages)
    for blueprint in (reports.reports, preflight.pages, jobs.pages, downloads.pages, health.health):
        app.register_blueprint(blueprint)
    if config.development and config.mailbox_dir:
        from app.dev import mailbox

        app.register_blueprint(mailbox.blueprint)
    api.init_app(app)
    stream.init_app(app, config)
    cli.init_app(app)
