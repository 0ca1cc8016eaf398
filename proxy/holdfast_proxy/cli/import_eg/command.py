"""`holdfast import-eg`."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

import click

from .documents import Documents, compose, write
from .findings import lines
from .kernelspecs import read_kernelspecs
from .settings import translate
from .sources import FileConfig, SourceError, read_config_file, read_env_file

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("import-eg")
@click.option("--config", type=_FILE, help="jupyter_enterprise_gateway_config.py or .json.")
@click.option(
    "--env-file", type=_FILE, help="NAME=value lines, in place of this shell's EG_* variables."
)
@click.option("--kernelspecs", type=_FOLDER, multiple=True, help="A folder of them; may repeat.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="An empty folder for the files, with secrets."
)
def import_eg(
    config: Path | None, env_file: Path | None, kernelspecs: tuple[Path, ...], output: Path | None
) -> None:
    """Say an Enterprise Gateway's configuration in Holdfast's words.

    Reads its EG_* variables, its configuration file and its kernelspecs, and prints the
    configuration of a proxy and a launcher, kernelspecs, and a line for everything that has no
    counterpart. The configuration file is never executed. Nothing is changed but the new folder.
    """
    try:
        env = dict(os.environ) if env_file is None else read_env_file(env_file)
        file_config = FileConfig("no file") if config is None else read_config_file(config)
    except SourceError as error:
        raise click.UsageError(str(error)) from error
    result = translate(env, file_config)
    folders = [*kernelspecs, *(Path(d) for d in result.kernel_dirs if Path(d).is_dir())]
    imported = read_kernelspecs(folders, result.allowed)
    documents = compose(
        result,
        imported,
        hostname=socket.gethostname(),
        new_secret=lambda: secrets.token_urlsafe(32),
    )
    report = "\n".join(lines([*result.findings, *imported.findings])) + "\n"
    if not folders:
        report += "no kernelspecs were read: name their folder with --kernelspecs\n"
    if output is None:
        _show(documents, report)
        return
    try:
        write(documents, output, report)
    except OSError as error:
        raise click.ClickException(str(error)) from error
    click.echo(report, nl=False)
    click.echo(f"written to {output}: {', '.join([*documents.texts, *documents.secrets])}")


def _show(documents: Documents, report: str) -> None:
    for name, text in documents.texts.items():
        click.echo(f"# --- {name}\n{text}")
    names = ", ".join(documents.secrets)
    click.echo(f"# --- report (--output DIR writes the files, and {names})\n{report}", nl=False)
