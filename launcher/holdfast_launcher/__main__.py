"""``python -m holdfast_launcher --config FILE``, and ``end-kernels --config FILE``.

It knows arguments and exit codes. Secrets are not taken as arguments: argv is for all to read.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from holdfast_launcher.config import load_config
from holdfast_launcher.errors import ConfigError
from holdfast_launcher.logs import configure_logs


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 done, 1 something is left (end-kernels), 2 cannot begin."""
    options = _parser().parse_args(arguments)
    try:
        config = load_config(options.config)
        configure_logs(format=config.log.format, level=config.log.level)
        if options.command == "end-kernels":
            return _end_kernels(config.kernels)
        # Not uvloop: it keeps SIGCHLD for itself, and nothing here is on a data path.
        from holdfast_launcher.service import serve

        asyncio.run(serve(config))
    except (ConfigError, PermissionError) as error:
        print(f"holdfast launcher: {error}", file=sys.stderr)
        return 2
    return 0


def _end_kernels(kernels: Path) -> int:
    from holdfast_launcher.ending import end_kernels

    left = asyncio.run(end_kernels(kernels))
    for kernel_id in left:
        print(f"something of kernel {kernel_id} does not end", file=sys.stderr)
    return 1 if left else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m holdfast_launcher", description="Start and keep kernels' keepers."
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=("serve", "end-kernels"),
        default="serve",
        help="serve (default), or end every keeper and kernel of the state directory",
    )
    parser.add_argument("--config", type=Path, required=True, help="the launcher's TOML file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
