"""A store whose disk is full: the failed write is what is told, and closing adds nothing to it."""

import subprocess
import sys
from pathlib import Path

FULL = """
import resource, sys
from pathlib import Path
from tables.store import Store, StoreFailed

path = Path(sys.argv[1])
store = Store(path, ["t"])
resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, 65_536))
try:
    for i in range(1_000):
        change = store.change()
        change.put_all("t", [(b"%d" % i, bytes(1_000))])
        change.write()
except StoreFailed as error:
    store.close()
    print(error)
"""


def test_closing_after_a_write_that_failed_raises_nothing_and_lets_go(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "0")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("local state cannot be written"), ended.stdout
