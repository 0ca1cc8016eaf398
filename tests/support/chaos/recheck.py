"""``python -m support.chaos.recheck DIRECTORY``: judge a history that was kept, once more.

Exit code 0: every promise was kept; 1: some were not; 2: there is no history to read.
"""

from __future__ import annotations

import sys
from pathlib import Path

from support.chaos.archive import read_archive
from support.chaos.checker.judge import judge
from support.chaos.report import table


def main(arguments: list[str]) -> int:
    """One argument: where history, side file and traces are."""
    if len(arguments) != 1:
        print("usage: python -m support.chaos.recheck DIRECTORY", file=sys.stderr)
        return 2
    try:
        verdict = judge(read_archive(Path(arguments[0])))
    except (OSError, ValueError) as error:
        print(f"no history: {error}", file=sys.stderr)
        return 2
    print(table(verdict))
    return 0 if verdict.holds else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
