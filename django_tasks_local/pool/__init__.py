"""The worker processes of one ring, of which a host has one pool however many web workers it has.

::

    site process                 pool process                      worker processes
    (gunicorn worker, script)    (a fresh interpreter)             (forked by the pool)

    site.Site                    supervisor.Supervisor             worker.work
      enqueues, reads              starts, replaces workers          claim, run, finish
      no pool? launcher ──────▶    tasks that fall due
      once a second: all well?     ends when no site is left
                 │                          │                            │
                 └──────────────────────────┴───── the ring ─────────────┘

They communicate only through the ring and the kernel's record locks. Locks on two bytes of the
segment's file say which process leads: the one that holds POOL serves, the one that holds SUCCESSOR
is about to. Each code (each release of the site) has its own two bytes and its own pool; `releases`
says what a pool does about the other codes.
"""
