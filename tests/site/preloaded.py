"""A WSGI application that uses the backend while it is imported, before gunicorn forks."""

import os

from tests.site.tasks import note
from tests.site.wsgi import application

__all__ = ["application"]

early = note.enqueue(os.environ["DTL_LOG"], "from the master")
early.refresh()
