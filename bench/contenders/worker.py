"""Running a Faust app as `faust worker` does, in this process."""

import sys

import faust


def run_worker(app: faust.App) -> None:
    """Run until a signal ends it."""
    sys.argv = [sys.argv[0], "worker", "--loglevel", "warn", "--without-web"]
    app.main()
