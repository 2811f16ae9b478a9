"""Signals of this package, beside those of ``django.tasks.signals``."""

from django.dispatch import Signal

# Sent in each worker process of a ProcessPoolBackend once, before its first task; `sender` is the
# backend's class, `alias` its alias. Worker processes are forked from one process that has the
# project imported: what they must not have in common (the state of a random generator, a client
# with a connection) is made again here. Threads are not copies, and send nothing.
worker_started = Signal()
