"""Signals of this package, in addition to those of ``django.tasks.signals``."""

from django.dispatch import Signal

# Sent once in each worker process of a ProcessPoolBackend, before its first task; `sender` is the
# backend's class, `alias` its alias. Worker processes are forked from one process that has imported
# the project: receivers make again what workers must not share (the state of a random generator, a
# client with a connection). Threads are not copies, and send nothing.
worker_started = Signal()
