"""What the Slurm engine keeps of a start in the launcher's directory: ``job.json``.

Written durably before sbatch is run and again with the job's number: whoever finds it without a
number knows that a job may be there, and by which comment.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from holdfast_launcher.state.statefiles import read_json, write_json

JOB_FILE = "job.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFile:
    """``comment`` names the start's job; ``output``: where the job's own words go."""

    mark: str
    comment: str
    output: str | None
    job: int | None = None

    def write(self, directory: Path) -> None:
        """Durable when this returns. Raises OSError."""
        document = {
            "mark": self.mark,
            "comment": self.comment,
            "output": self.output,
            "job": self.job,
        }
        write_json(directory / JOB_FILE, document, durable=True)


def read_job_file(directory: Path) -> JobFile | None:
    """None: no start was begun there, or what is there is damaged."""
    document = read_json(directory / JOB_FILE) or {}
    mark, comment, job = (document.get(name) for name in ("mark", "comment", "job"))
    output = document.get("output")
    if not isinstance(mark, str) or not isinstance(comment, str):
        return None
    return JobFile(
        mark=mark,
        comment=comment,
        output=output if isinstance(output, str) else None,
        job=job if isinstance(job, int) else None,
    )
