"""The tables, one concept a file. Importing this package registers them all."""

from app.models.artifact import Artifact, Download
from app.models.choice import ColumnChoice, MappingChoice
from app.models.chunk import Chunk
from app.models.clock import Clock
from app.models.delivery import Delivery
from app.models.event import Event
from app.models.imports import Import
from app.models.job import Job
from app.models.part import Part
from app.models.session import SignIn, SignInLink
from app.models.token import ApiToken
from app.models.upload import Upload
from app.models.user import Role, User
from app.models.worker import Worker

__all__ = [
    "ApiToken",
    "Artifact",
    "Chunk",
    "Clock",
    "ColumnChoice",
    "Delivery",
    "Download",
    "Event",
    "Import",
    "Job",
    "MappingChoice",
    "Part",
    "Role",
    "SignIn",
    "SignInLink",
    "Upload",
    "User",
    "Worker",
]
