"""Which variables a kernel gets, and from whom."""

from __future__ import annotations

import pytest

from holdfast_launcher.environment import (
    MARK,
    base_environment,
    is_refused,
    kernel_environment,
    kernel_mark,
)


def environment(
    requested: dict[str, str], whitelist: frozenset[str] = frozenset()
) -> tuple[dict[str, str], tuple[str, ...]]:
    made = kernel_environment(
        kernel_id="k", nonce="n", base={"PATH": "/bin"}, requested=requested, whitelist=whitelist
    )
    return dict(made.variables), made.refused


def test_a_kernel_gets_base_and_kernel_variables_and_its_mark() -> None:
    variables, refused = environment({"KERNEL_USERNAME": "ada"})
    assert variables == {
        "PATH": "/bin",
        "KERNEL_USERNAME": "ada",
        "KERNEL_ID": "k",
        MARK: kernel_mark("k", "n"),
    }
    assert refused == ()


def test_a_client_cannot_choose_id_or_mark() -> None:
    variables, refused = environment({"KERNEL_ID": "other", MARK: "other"}, frozenset({MARK}))
    assert variables["KERNEL_ID"] == "k"
    assert variables[MARK] == kernel_mark("k", "n")
    assert refused == (MARK,)


def test_only_whitelisted_names_beside_kernel_variables() -> None:
    variables, refused = environment({"PROJECT": "x", "OTHER": "y"}, frozenset({"PROJECT"}))
    assert variables["PROJECT"] == "x"
    assert refused == ("OTHER",)


@pytest.mark.parametrize(
    "name",
    ["LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "PYTHONSTARTUP", "BASH_ENV", "HOME",
     "BASH_FUNC_ls%%", "NODE_OPTIONS", "PERL5LIB", "R_PROFILE", "JULIA_LOAD_PATH", "IPYTHONDIR"],
)  # fmt: skip
def test_what_decides_about_code_is_never_a_clients(name: str) -> None:
    assert is_refused(name)
    variables, refused = environment({name: "/evil"}, frozenset({name}))
    assert variables.get(name) != "/evil"
    assert refused == (name,)


@pytest.mark.parametrize(("name", "value"), [("KERNEL_A=B", "x"), ("KERNEL_A", "x\0y")])
def test_what_no_environment_can_hold(name: str, value: str) -> None:
    variables, refused = environment({name: value})
    assert name not in variables
    assert refused == (name,)


def test_base_is_a_short_list_and_what_is_passed_through() -> None:
    own = {
        "PATH": "/bin",
        "LC_ALL": "C.UTF-8",
        "AWS_SECRET_ACCESS_KEY": "s",
        "HOLDFAST_TOKEN": "s",
        "KERNEL_ID": "of-a-kernel-that-we-run-in",
        "SCRATCH": "/scratch",
    }
    assert base_environment(own) == {"PATH": "/bin", "LC_ALL": "C.UTF-8"}
    assert base_environment(own, ["SCRATCH"])["SCRATCH"] == "/scratch"


def test_incarnations_have_marks_of_their_own() -> None:
    assert kernel_mark("k", "1") != kernel_mark("k", "2")
    assert "nonce" not in kernel_mark("k", "nonce")
