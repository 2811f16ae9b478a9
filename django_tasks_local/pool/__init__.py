"""The worker processes of one ring, of which a host has one pool however many web workers it has.

::

    site process                 pool process                      worker processes
    (gunicorn worker, script)    (a fresh interpreter)             (forked by the pool)

    site.Site                    supervisor.Supervisor             worker.work
      enqueues, reads              starts and buries workers         claim, run, finish
      no pool? launcher ──────▶    tasks that fall due
      once a second: all well?     ends when no site is left
                 │                          │                            │
                 └──────────────────────────┴───── the ring ─────────────┘

They talk through the ring and the kernel's record locks alone. Two bytes of the segment's file say
who leads: whoever holds POOL serves, whoever holds SUCCESSOR is on the way to it. Each code (each
release of the site) has two of its own, and a pool; `releases` is what its pool does about others.
"""
