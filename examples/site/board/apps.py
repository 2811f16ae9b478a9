from django.apps import AppConfig


class BoardConfig(AppConfig):
    """The one app of the example site."""

    name = "board"
