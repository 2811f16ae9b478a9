"""Run every benchmark, one after the other, then draw the plots and write the page of the docs.

The results of an interrupted run are kept; `--only` goes on with the rest.
"""

import argparse
import importlib.util
import subprocess
import sys
import time

from harness import HERE
from report import SCRIPTS


def main() -> int:
    """Run them; return 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds, no page")
    parser.add_argument("--rounds", help="rounds that count", metavar="N")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=list(SCRIPTS))
    args = parser.parse_args()
    flags = ["--quick"] if args.quick else []
    flags += ["--rounds", args.rounds] if args.rounds else []
    failed = []
    for script in args.only:
        begin = time.monotonic()
        command = [sys.executable, f"{script}.py", *flags]
        if subprocess.run(command, cwd=HERE).returncode:
            failed.append(script)
        print(f"\n({script}: {time.monotonic() - begin:.0f} s)\n", flush=True)
    if not args.quick:
        if importlib.util.find_spec("matplotlib") is None:
            print("No plots were drawn: matplotlib is not installed (it is in the extra `bench`).")
        else:
            subprocess.run([sys.executable, "plots.py"], cwd=HERE, check=True)
        subprocess.run([sys.executable, "report.py"], cwd=HERE, check=True)
    if failed:
        print(f"These did not run to their end: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
