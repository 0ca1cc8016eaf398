"""`holdfast import-eg` on configurations of our own; those who are to read its files read them."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from holdfast_launcher.config import load_config as load_launcher
from holdfast_launcher.errors import ConfigError
from holdfast_proxy.cli.import_eg.findings import Fate
from holdfast_proxy.cli.import_eg.kernelspecs import Imported, kernel_command, translate
from holdfast_proxy.cli.import_eg.options import FATES, LISTS, TRAITS
from holdfast_proxy.cli.import_eg.settings import _TAKERS
from holdfast_proxy.cli.import_eg.settings import translate as translate_settings
from holdfast_proxy.cli.import_eg.sources import (
    FileConfig,
    SourceError,
    read_config_file,
    read_env_file,
)
from holdfast_proxy.cli.program import main
from holdfast_proxy.config import load_config as load_proxy

DISTRIBUTED = "enterprise_gateway.services.processproxies.distributed.DistributedProcessProxy"
LAUNCHED = [
    "python", "/usr/local/share/jupyter/kernels/py/scripts/launch_ipykernel.py",
    "--RemoteProcessProxy.kernel-id", "{kernel_id}",
    "--RemoteProcessProxy.response-address", "{response_address}",
    "--RemoteProcessProxy.public-key", "{public_key}",
    "--RemoteProcessProxy.spark-context-initialization-mode", "none",
]  # fmt: skip


def run(*arguments: str | Path, env: dict[str, str] | None = None) -> Result:
    return CliRunner(env=env or {}).invoke(main, ["import-eg", *map(str, arguments)])


def write_spec(folder: Path, name: str, **fields: Any) -> Path:
    path = folder / name / "kernel.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"display_name": name, "language": "python", **fields}))
    return path


def config_of(tmp_path: Path, text: str) -> FileConfig:
    path = tmp_path / "jupyter_enterprise_gateway_config.py"
    path.write_text(text)
    return read_config_file(path)


def fates(findings: list[Any]) -> dict[str, Fate]:
    return {finding.source.rpartition(": ")[2]: finding.fate for finding in findings}


def test_a_whole_site_is_written_and_can_be_loaded(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).touch(mode=0o600)
    env = tmp_path / "eg.env"
    env.write_text(
        f"EG_CERTFILE={tmp_path}/cert.pem\nEG_KEYFILE={tmp_path}/key.pem\n"
        "# the gateway\nexport EG_PORT=8899\nEG_IP=0.0.0.0\nEG_AUTH_TOKEN='s3cret-token'\n"
        'EG_CLIENT_ENVS="PROJECT,LD_PRELOAD"\nEG_MAX_KERNELS=12\nEG_BASE_URL=/eg\n'
        "EG_REMOTE_HOSTS=node1,node2\nEG_RESPONSE_PORT=8877\nPATH=/usr/bin\n"
    )
    specs = tmp_path / "kernels"
    write_spec(
        specs, "py", argv=LAUNCHED, env={"KERNEL_MEMORY": "4Gi", "KERNEL_CPUS": "2"},
        metadata={"process_proxy": {"class_name": DISTRIBUTED}, "debugger": True},
    )  # fmt: skip
    (specs / "py" / "logo-64x64.png").write_bytes(b"picture")
    (specs / "py" / "scripts").mkdir()
    out = tmp_path / "out"

    result = run("--env-file", env, "--kernelspecs", specs, "--output", out)

    assert result.exit_code == 0, result.output
    proxy = load_proxy(out / "proxy.toml")
    assert (proxy.port, proxy.host, proxy.base_url) == (8899, "0.0.0.0", "/eg/")  # noqa: S104 - compared
    assert proxy.env_whitelist == ("PROJECT",)
    assert proxy.token is not None
    assert proxy.token.reveal() == "s3cret-token"
    for name in ("node1", "node2"):
        launcher = load_launcher(out / f"launcher-{name}.toml")
        assert launcher.launcher_id == launcher.advertise_host == name
        assert launcher.capacity.kernels == 12
        assert launcher.env_whitelist == ("PROJECT",)
        assert launcher.kernelspec_dirs == (str(out / "kernels"),)
        assert launcher.proxies == (proxy.url,)
    spec = json.loads((out / "kernels" / "py" / "kernel.json").read_text())
    assert spec["argv"] == ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    assert spec["metadata"] == {
        "debugger": True, "holdfast": {"resources": {"memory": "4G", "cpus": 2}}
    }  # fmt: skip
    assert (out / "kernels" / "py" / "logo-64x64.png").read_bytes() == b"picture"
    assert not (out / "kernels" / "py" / "scripts").exists()
    for name in ("token", "cluster.key", "join.token"):
        assert stat.S_IMODE((out / name).stat().st_mode) == 0o600
    assert "s3cret-token" not in result.output
    report = (out / "report.txt").read_text()
    assert "LD_PRELOAD: a client may not say what code runs" in report
    assert "not needed: EG_RESPONSE_PORT" in report
    assert "PATH=" not in report


def test_launchers_elsewhere_and_no_certificate_is_said(tmp_path: Path) -> None:
    out = tmp_path / "out"
    env = {"EG_IP": "10.0.0.1", "EG_REMOTE_HOSTS": "node1"}
    result = run("--output", out, env=env)
    assert "the proxy has no certificate" in result.output
    with pytest.raises(ConfigError, match="allow_plain_proxies"):
        load_launcher(out / "launcher-node1.toml")


def test_without_output_nothing_is_written_and_no_secret_shown(tmp_path: Path) -> None:
    result = run(env={"EG_AUTH_TOKEN": "s3cret-token", "EG_PORT": "8899"})
    assert result.exit_code == 0
    assert "port = 8899" in result.output
    assert "s3cret-token" not in result.output
    assert "no kernelspecs were read" in result.output


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    result = run("--output", tmp_path)
    assert result.exit_code == 1
    assert "is not empty" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_configuration_file_is_never_executed(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    config = config_of(
        tmp_path,
        '"""A module docstring."""\n'
        "import os\n"
        "c = get_config()\n"
        f"open({str(trap)!r}, 'w').close()\n"
        "c.EnterpriseGatewayApp.port = 8899\n"
        "c.EnterpriseGatewayApp.auth_token = os.environ['T']\n"
        "if True:\n"
        "    c.EnterpriseGatewayApp.ip = '*'\n"
        "c.EnterpriseGatewayApp.env_whitelist = ['A']\n"
        "c.EnterpriseGatewayApp.client_envs.extend(['B'])\n",
    )
    assert not trap.exists()
    assert config.values == {
        "EnterpriseGatewayApp": {"port": 8899, "env_whitelist": ["A"], "client_envs": ["B"]}
    }
    assert [finding.source.rpartition("line ")[2] for finding in config.findings] == ["4", "6", "7"]
    assert {finding.fate for finding in config.findings} == {Fate.NOT_READ}


def test_json_configuration(tmp_path: Path) -> None:
    path = tmp_path / "jupyter_enterprise_gateway_config.json"
    path.write_text('{"EnterpriseGatewayApp": {"port": 8899, "version": 1}}')
    result = translate_settings({}, read_config_file(path))
    assert result.proxy == {"port": 8899}
    assert fates(result.findings)["EnterpriseGatewayApp.version"] is Fate.NO_COUNTERPART


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", "[1]"), ("a.json", "{"), ("a.py", "c = (\n"), ("a.py", "\x00")],
)
def test_what_is_no_configuration_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=name):
        read_config_file(tmp_path / name)


def test_an_env_file_names_the_line_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text("EG_PORT=1\nnonsense here\n")
    with pytest.raises(SourceError, match="line 2"):
        read_env_file(path)


def test_the_file_comes_before_the_variable_and_new_names_before_old(tmp_path: Path) -> None:
    config = config_of(tmp_path, "c.EnterpriseGatewayApp.port = 2\n")
    env = {"EG_PORT": "1", "EG_CLIENT_ENVS": "NEW", "EG_ENV_WHITELIST": "OLD", "KG_IP": "10.0.0.1"}
    result = translate_settings(env, config)
    assert result.proxy["port"] == 2
    assert result.proxy["env_whitelist"] == ["NEW"]
    assert result.proxy["host"] == "10.0.0.1"


def test_every_option_is_either_taken_or_has_a_word() -> None:
    for option in TRAITS:
        assert (option in _TAKERS) != (option in FATES), option
    assert set(TRAITS) >= LISTS


@pytest.mark.parametrize("option", sorted(TRAITS))
def test_every_option_has_a_line(option: str) -> None:
    values = {
        "port": "9", "max_age": "9", "max_kernels": "9", "impersonation_enabled": "true",
        "remote_hosts": "elsewhere",
    }  # fmt: skip
    name = TRAITS[option][0]
    result = translate_settings({name: values.get(option, "some")}, FileConfig("no file"))
    assert name in fates(result.findings)


def test_values_of_another_type_are_reported() -> None:
    result = translate_settings({"EG_PORT": "many", "EG_REMOTE_HOSTS": "[a"}, FileConfig("x"))
    assert result.proxy == {}
    assert fates(result.findings)["EG_PORT"] is Fate.NOT_READ
    assert fates(result.findings)["EG_REMOTE_HOSTS"] is Fate.NOT_READ


def test_credentials_are_not_taken_with_every_origin() -> None:
    env = {"EG_ALLOW_ORIGIN": "*", "EG_ALLOW_CREDENTIALS": "true"}
    result = translate_settings(env, FileConfig("x"))
    assert result.proxy == {"allow_origin": ["*"]}
    assert fates(result.findings)["allow_credentials"] is Fate.NO_COUNTERPART


def test_off_loopback_there_is_always_a_token(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("--output", out, env={"EG_IP": "0.0.0.0"})  # noqa: S104 - of a configuration
    assert result.exit_code == 0, result.output
    assert len((out / "token").read_text().strip()) >= 32
    load_proxy(out / "proxy.toml")


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["mykernel", "-f", "{connection_file}"], ["mykernel", "-f", "{connection_file}"]),
        (LAUNCHED, ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]),
        (
            ["Rscript", "/k/scripts/launch_IRkernel.R", "--x"],
            ["R", "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"],
        ),
        (["/k/bin/run.sh", "--RemoteProcessProxy.kernel-id", "{kernel_id}"], None),
        ([], None),
    ],
)
def test_the_kernels_own_command(argv: list[str], command: list[str] | None) -> None:
    assert kernel_command(argv) == command


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("yarn.YarnClusterProcessProxy", "no engine for YARN"),
        ("k8s.KubernetesProcessProxy", "no engine for Kubernetes"),
        ("docker_swarm.DockerProcessProxy", "no engine for Docker"),
        ("mine.OwnProcessProxy", "OwnProcessProxy is not known here"),
    ],
)
def test_kernelspecs_without_an_engine_are_left_out_with_a_line(kind: str, said: str) -> None:
    result = Imported()
    document = {"argv": LAUNCHED, "metadata": {"process_proxy": {"class_name": f"x.{kind}"}}}
    assert translate("spec", document, result) is None
    assert said in result.findings[0].text
    assert result.findings[0].fate is Fate.NO_COUNTERPART


def test_each_word_of_a_process_proxys_configuration_has_a_line() -> None:
    result = Imported()
    config = {"remote_hosts": "n1,n2", "port_range": "1..2", "authorized_users": "a", "odd": 1}
    argv = [*LAUNCHED[:-1], "lazy"]
    document = {
        "argv": argv,
        "metadata": {"process_proxy": {"class_name": DISTRIBUTED, "config": config}},
    }
    assert translate("spec", document, result) is not None
    assert result.hosts == ["n1", "n2"]
    said = {
        finding.source.removeprefix("kernelspec spec").strip(", ") for finding in result.findings
    }
    assert said == {*config, ""}
    assert any("Spark" in finding.text for finding in result.findings)


def test_only_the_allowed_kernelspecs_are_taken(tmp_path: Path) -> None:
    specs = tmp_path / "kernels"
    for name in ("one", "two"):
        write_spec(specs, name, argv=["k", "{connection_file}"])
    config = tmp_path / "c.py"
    config.write_text("c.KernelSpecManager.allowed_kernelspecs = {'two'}\n")
    out = tmp_path / "out"
    result = run("--config", config, "--kernelspecs", specs, "--output", out)
    assert result.exit_code == 0, result.output
    assert [path.name for path in (out / "kernels").iterdir()] == ["two"]


def test_a_damaged_kernelspec_is_reported_and_the_others_taken(tmp_path: Path) -> None:
    specs = tmp_path / "kernels"
    write_spec(specs, "good", argv=["k", "{connection_file}"])
    write_spec(specs, "bad", argv=[]).write_text("{")
    result = run("--kernelspecs", specs)
    assert result.exit_code == 0
    assert "not read: kernelspec bad" in result.output
    assert "kernels/good/kernel.json" in result.output
