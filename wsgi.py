"""gunicorn and dramatiq both start here."""

from app import create_app

app = create_app()
