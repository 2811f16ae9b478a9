"""A user's project: not run; mypy with django-stubs and pyright check it (`make types`)."""
