"""The same export, or the same import, by the tools people use today, each as its makers tell.

    python contenders.py NAME URL TABLE FILE

Started by `benchmarks.peers` in an environment of its own; knows nothing of Waybill.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any


def pandas(url: str, table: str, out: str) -> None:
    import pandas
    from sqlalchemy import create_engine

    pandas.read_sql(f"SELECT * FROM {table} ORDER BY id", create_engine(_driver(url))).to_csv(
        out, index=False
    )


def petl(url: str, table: str, out: str) -> None:
    import petl
    import psycopg2

    petl.fromdb(psycopg2.connect(url), f"SELECT * FROM {table} ORDER BY id").tocsv(out)


def sql2csv(url: str, table: str, out: str) -> None:
    command = Path(sys.executable).with_name("sql2csv")
    with open(out, "wb") as file:
        query = f"SELECT * FROM {table} ORDER BY id"
        subprocess.run([command, "--db", _driver(url), "--query", query], stdout=file, check=True)


def django_import_export(url: str, table: str, out: str) -> None:
    model, resources = _django(url, table)
    resource = resources.modelresource_factory(model=model)()
    Path(out).write_text(resource.export(model.objects.order_by("id")).csv, newline="")


def flask_admin(url: str, table: str, out: str) -> None:
    from flask import Flask
    from flask_admin import Admin
    from flask_admin.contrib.sqla import ModelView
    from flask_sqlalchemy import SQLAlchemy

    app = Flask(__name__)
    app.config.update(SQLALCHEMY_DATABASE_URI=_driver(url), SECRET_KEY="bench")
    db = SQLAlchemy(app)
    schema, name = table.split(".")
    with app.app_context():
        reflected = db.Table(name, db.metadata, db.Column("id", db.Integer, primary_key=True),
                             schema=schema, autoload_with=db.engine)  # fmt: skip
    model = type("Wide", (db.Model,), {"__table__": reflected})
    view = type("View", (ModelView,), {"can_export": True, "export_max_rows": 0, "column_display_pk": True})
    Admin(app).add_view(view(model, db, endpoint="wide"))
    with app.test_client() as client, open(out, "wb") as file:
        for block in client.get("/admin/wide/export/csv/", buffered=False).iter_encoded():
            file.write(block)


def pandas_to_sql(url: str, table: str, file: str) -> None:
    import pandas
    from sqlalchemy import create_engine

    schema, name = table.split(".")
    for frame in pandas.read_csv(file, parse_dates=["created_at"], chunksize=50_000):
        frame["billed"] = frame["billed"] == "t"
        frame.to_sql(name, create_engine(_driver(url)), schema=schema, if_exists="append", index=False)


def petl_todb(url: str, table: str, file: str) -> None:
    import petl
    import psycopg2

    schema, name = table.split(".")
    petl.fromcsv(file, encoding="utf-8").todb(psycopg2.connect(url), name, schema=schema)


def django_import_export_bulk(url: str, table: str, file: str) -> None:
    model, resources = _django(url, table)
    import tablib
    from import_export.instance_loaders import CachedInstanceLoader

    options = {"model": model, "use_bulk": True, "batch_size": 1000, "skip_diff": True,
               "instance_loader_class": CachedInstanceLoader}  # fmt: skip
    resource = type("Wide", (resources.ModelResource,), {"Meta": type("Meta", (), options)})()
    with open(file, newline="", encoding="utf-8") as text:
        dataset = tablib.Dataset().load(text, format="csv")
    resource.import_data(dataset, raise_errors=True)


def _django(url: str, table: str) -> tuple[Any, Any]:
    """The table as a model, and what resources are made of."""
    from urllib.parse import urlsplit

    import django
    from django.conf import settings

    found = urlsplit(url)
    schema, name = table.split(".")
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": found.path[1:],
        "USER": found.username,
        "PASSWORD": found.password,
        "HOST": found.hostname,
        "PORT": found.port,
        "OPTIONS": {"options": f"-c search_path={schema}"},
    }
    settings.configure(DATABASES={"default": database}, INSTALLED_APPS=["import_export"], USE_TZ=True)
    django.setup()
    from django.db import models
    from import_export import resources

    types = {"amount": "numeric", "created_at": "timestamptz", "billed": "boolean"}
    # Values go as texts, which costs it the least; the database is told what they are.
    columns: dict[str, Any] = {
        column: type("Sent", (models.TextField,), {"db_type": lambda *_, kind=kind: kind})(null=True)
        for column, kind in dict.fromkeys(("title", "body", "status", "email"), "text").items()
        | types.items()
    }
    meta = type("Meta", (), {"db_table": name, "managed": False, "app_label": "bench"})
    return type("Wide", (models.Model,), {"__module__": __name__, "Meta": meta, **columns}), resources


def _driver(url: str) -> str:
    return "postgresql+psycopg2://" + url.partition("://")[2]


EXPORTS = {
    function.__name__: function for function in (pandas, petl, sql2csv, django_import_export, flask_admin)
}
IMPORTS = {function.__name__: function for function in (pandas_to_sql, petl_todb, django_import_export_bulk)}

if __name__ == "__main__":
    _, chosen, *where = sys.argv
    (EXPORTS | IMPORTS)[chosen](*where)
