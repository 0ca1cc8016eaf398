"""``python -m holdfast_proxy.cli``: the `holdfast` command where no script is installed."""

from __future__ import annotations

from .program import main

main(prog_name="holdfast")
