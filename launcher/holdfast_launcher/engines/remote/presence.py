"""Whether a keeper that its infrastructure calls gone still answers.

An infrastructure speaks of its jobs, not of our incarnations: a Slurm controller that was killed
and came back ran a job twice, and said that it had ended when the second one did. So what can be
asked is asked, by the address and the credential that the keeper itself gave.
"""

from __future__ import annotations

from pathlib import Path

from holdfast_launcher.agent.keeper_client import KeeperClient, KeeperSilent, KeeperStranger
from holdfast_launcher.state.keeper_files import read_keeper_file


async def keeper_answers(directory: Path, *, seconds: float = 3.0) -> bool:
    """True only when the keeper of the start in ``directory`` answers with its own nonce."""
    file = read_keeper_file(directory)
    if file is None:
        return False
    client = KeeperClient(deadline=seconds)
    try:
        await client.recognise(file)
    except (KeeperSilent, KeeperStranger):
        return False
    finally:
        await client.close()
    return True
