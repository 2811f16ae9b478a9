"""``python -m django_tasks_local.pool``: started by site processes, never by hand.

Until the successor's place is taken it imports neither Django nor the project: where several
sites start a pool at once, all but one end here after some milliseconds.
"""

import argparse
import os
import pickle
import sys

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.store import (
    Geometry,
    Leadership,
    attach_segment,
    fill_standard_descriptors,
)


def main(argv: list[str]) -> int:
    """Serves one ring until it is time to go.

    Returns:
        0, also where another pool was faster. A traceback on standard error and 1 where the project
        can't be imported.
    """
    fill_standard_descriptors()
    arguments = _parser().parse_args(argv)
    geometry = Geometry(arguments.slot_size, arguments.slots)
    try:
        leadership = Leadership(attach_segment(arguments.ring, geometry, make=False))
    except StoreUnavailable as error:
        print(f"django-tasks-local: no pool: {error}", file=sys.stderr)
        return 0
    cleared = leadership.newest_site()
    worker = arguments.worker_of is not None
    if not worker:
        if not leadership.take_successor():
            return 0
        if leadership.pool_alive() and not leadership.successor_wanted(cleared):
            return 0
    told = sys.stdin.buffer.read()
    if told[-1:] != pickle.STOP:
        return 0  # whoever started us ended in the middle of telling
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)  # no task waits for input
    os.close(null)

    from .launcher import forget_path

    forget_path()
    preparation = pickle.loads(told)
    preparation.apply()

    from django_tasks_local.backends import process

    if worker:
        process.work(
            arguments.alias, arguments.ring, preparation,
            pool=arguments.worker_of, life=arguments.life, bell=arguments.bell,
        )  # fmt: skip
    else:
        process.serve(arguments.alias, arguments.ring, preparation, told, cleared)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m django_tasks_local.pool", description=__doc__)
    parser.add_argument("--ring", required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--slot-size", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--worker-of", type=int)
    parser.add_argument("--life", type=int)
    parser.add_argument("--bell", type=int)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
