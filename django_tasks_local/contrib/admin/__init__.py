"""Tasks in Django's admin: an overview, lists, each task; actions to cancel and to retry."""
