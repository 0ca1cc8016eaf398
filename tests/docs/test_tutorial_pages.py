"""The tutorial's pages are made of blocks that can be run, and what reads them reads them right."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast_proxy.cli.demo import command
from holdfast_proxy.cli.demo.command import demo
from support.tutorial.page import Block, blocks

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial"


def page(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "page.md"
    file.write_text(text)
    return file


def test_blocks_are_read_with_their_words(tmp_path: Path) -> None:
    text = (
        "a\n```sh\nls\n```\n```sh node-1 node-2 stays\nx\ny\n```\n```sh exits=3\nz\n```\n"
        "```text\nout\n```\n```python cell\nprint(1)\n```\n```toml node-1 a.toml\nb = 1\n```\n"
    )
    assert blocks(page(tmp_path, text)) == [
        Block("sh", "ls\n"),
        Block("sh", "x\ny\n", ("node-1", "node-2"), stays=True),
        Block("sh", "z\n", exits=3),
        Block("python", "print(1)\n"),
        Block("toml", "b = 1\n", ("node-1",), file="a.toml"),
    ]


@pytest.mark.parametrize("fence", ["sh sometimes", "python", "toml", "", "console", "toml node-1"])
def test_a_block_that_no_test_runs_is_refused(tmp_path: Path, fence: str) -> None:
    with pytest.raises(ValueError, match="no test can run"):
        blocks(page(tmp_path, f"```{fence}\nx\n```\n"))


def test_what_only_looks_may_look_again() -> None:
    assert Block("sh", ". x/activate\nholdfast list\nholdfast history\n").only_looks
    assert not Block("sh", "holdfast list\nkill -9 1\n").only_looks
    assert not Block("sh", "until holdfast list; do sleep 1; done\n").only_looks
    assert not Block("sh", ". .venv/bin/activate\n").only_looks


def test_every_page_can_be_run_and_is_listed() -> None:
    pages = {file.name for file in TUTORIAL.glob("*.md")} - {"README.md"}
    contents = (TUTORIAL / "README.md").read_text()
    for name in pages:
        assert f"({name})" in contents
        blocks(TUTORIAL / name)


def test_what_the_tests_follow_is_there() -> None:
    assert len(blocks(TUTORIAL / "first-steps.md")) > 8
    assert {name for block in blocks(TUTORIAL / "own-cluster.md") for name in block.machines} == {
        "node-1", "node-2", "node-3",
    }  # fmt: skip
    assert not blocks(TUTORIAL / "demo.md"), "nobody runs them there"


def test_every_option_and_exit_code_of_the_demo_is_documented() -> None:
    text = (TUTORIAL / "demo.md").read_text()
    for parameter in demo.params:
        assert f"`{parameter.opts[0]}" in text, parameter.opts
    for code in (command.OK, command.LOST, command.CANNOT_START, command.STOPPED, 2):
        assert f"\n| {code} | " in text
