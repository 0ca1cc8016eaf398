"""What a run is told, by arguments of its command line."""

from __future__ import annotations

import argparse
import secrets
from dataclasses import dataclass

from support.chaos.inside.trace import Plant
from support.chaos.schedule import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``seconds``: how long faults go on. ``only``: kinds of faults, all when empty."""

    seed: int
    seconds: float
    servers: int
    notebooks: int
    plain: int
    only: frozenset[Kind]
    plant: Plant
    dry: bool
    keep: bool

    def arguments(self) -> list[str]:
        """The command line that has this run again."""
        words = [f"--seed={self.seed}", f"--seconds={self.seconds:g}", f"--servers={self.servers}"]
        words += [f"--notebooks={self.notebooks}", f"--plain={self.plain}"]
        words += [f"--only={kind.value}" for kind in sorted(self.only, key=lambda kind: kind.value)]
        if self.plant is not Plant.NONE:
            words.append(f"--plant={self.plant.value}")
        return [*words, "--keep"] if self.keep else words


def parse(arguments: list[str] | None = None) -> Options:
    """Exits with 2 and a message when they are wrong."""
    parser = argparse.ArgumentParser(prog="python -m support.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long faults go on")
    parser.add_argument("--servers", type=int, default=2, help="Jupyter Servers")
    parser.add_argument("--notebooks", type=int, default=3, help="notebooks of each")
    parser.add_argument("--plain", type=int, default=4, help="plain websocket clients")
    parser.add_argument("--only", action="append", default=[], choices=[k.value for k in Kind])
    parser.add_argument("--plant", default="", choices=[plant.value for plant in Plant])
    parser.add_argument("--dry", action="store_true", help="print the schedule and stop")
    parser.add_argument("--keep", action="store_true", help="keep the history of a good run, too")
    given = parser.parse_args(arguments)
    return Options(
        seed=secrets.randbelow(1 << 31) if given.seed is None else given.seed,
        seconds=given.seconds,
        servers=given.servers,
        notebooks=given.notebooks,
        plain=given.plain,
        only=frozenset(Kind(name) for name in given.only),
        plant=Plant(given.plant),
        dry=given.dry,
        keep=given.keep,
    )
