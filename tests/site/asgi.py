"""For uvicorn, alone or as a worker class of gunicorn."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.site.settings")
application = get_asgi_application()
