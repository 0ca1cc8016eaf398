"""The settings that Enterprise Gateway 2 and 3 have, by name and variable. Data, and no decisions.

A table here and not an import: the gateway need not be installed where its configuration is read.
``TRAITS``: option of ``EnterpriseGatewayApp`` → the variables that set it, the newest first.
``FATES``: why an option or variable has nothing to be translated into.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .findings import Fate

_PLAIN: Final = (
    "port port_retries ip base_url auth_token allow_credentials allow_headers allow_methods "
    "allow_origin expose_headers trust_xheaders certfile keyfile client_ca ssl_version max_age "
    "max_kernels default_kernel_name list_kernels kernel_headers remote_hosts "
    "load_balancing_algorithm yarn_endpoint alt_yarn_endpoint yarn_endpoint_security_enabled "
    "conductor_endpoint impersonation_enabled unauthorized_users authorized_users "
    "authorized_origin port_range max_kernels_per_user dynamic_config_interval "
    "availability_mode authorizer_class"
)

TRAITS: Final[Mapping[str, tuple[str, ...]]] = {
    **{name: (f"EG_{name.upper()}", f"KG_{name.upper()}") for name in _PLAIN.split()},
    "client_envs": ("EG_CLIENT_ENVS", "EG_ENV_WHITELIST", "KG_ENV_WHITELIST"),
    "inherited_envs": ("EG_INHERITED_ENVS", "EG_ENV_PROCESS_WHITELIST"),
    "ws_ping_interval": ("EG_WS_PING_INTERVAL_SECS",),
}

#: Names that options had in version 2.
FORMER: Final = {"env_whitelist": "client_envs", "env_process_whitelist": "inherited_envs"}

_LIST: Final = (
    "client_envs inherited_envs kernel_headers remote_hosts unauthorized_users authorized_users"
)
LISTS: Final = frozenset(_LIST.split())

_NO, _NEVER = Fate.NO_COUNTERPART, Fate.NOT_NEEDED
_KUBERNETES: Final = (_NO, "there is no engine for Kubernetes")
_YARN: Final = (_NO, "there is no engine for YARN")
_SSH: Final = (
    _NEVER,
    "no machine is logged in to: a launcher runs on each, and dials the proxies",
)
_ONE_PORT: Final = (_NEVER, "a kernel's keeper listens on one free port, and its sockets on none")
_CALL_BACK: Final = (_NEVER, "kernels do not call back: their keepers are dialled")
_STAYS: Final = (_NEVER, "kernels outlive every proxy, and etcd says who owns them")

FATES: Final[Mapping[str, tuple[Fate, str]]] = {
    "port_retries": (_NEVER, "a proxy listens on its port or says why it cannot"),
    "allow_methods": (_NEVER, "the methods that the API has are allowed"),
    "trust_xheaders": (_NEVER, "nothing is decided by a client's address"),
    "client_ca": (_NO, "clients show a token, not a certificate; check certificates in front"),
    "ssl_version": (_NEVER, "TLS 1.2 and later"),
    "list_kernels": (_NEVER, "everybody sees their own kernels, and nobody else's"),
    "kernel_headers": (_NO, "headers of a request do not reach a kernel; send KERNEL_* variables"),
    "load_balancing_algorithm": (_NEVER, "a kernel starts where there is most room"),
    "yarn_endpoint": _YARN,
    "alt_yarn_endpoint": _YARN,
    "yarn_endpoint_security_enabled": _YARN,
    "conductor_endpoint": (_NO, "there is no engine for IBM Spectrum Conductor"),
    "authorized_origin": (_NO, "clients show a token, not a certificate"),
    "port_range": _ONE_PORT,
    "max_kernels_per_user": (_NO, "there is a limit for each launcher, and none for each user"),
    "ws_ping_interval": (_NEVER, "keepers ping by themselves and notice a dead client in seconds"),
    "dynamic_config_interval": (
        _NEVER,
        "restart a proxy or launcher to change its settings: no kernel notices",
    ),
    "availability_mode": _STAYS,
    "authorizer_class": (_NO, "a user has a token; what is a user's is that user's alone"),
}

VARIABLES: Final[Mapping[str, tuple[Fate, str]]] = {
    "EG_KERNEL_LAUNCH_TIMEOUT": (
        _NO,
        "each client says how long it waits, by KERNEL_LAUNCH_TIMEOUT",
    ),
    "EG_KERNEL_INFO_TIMEOUT": (_NEVER, "a kernel counts as started when it has answered"),
    "EG_RESTART_STATUS_POLL_INTERVAL": (_NEVER, "nothing is polled"),
    "EG_POLL_INTERVAL": (_NEVER, "nothing is polled"),
    "EG_MAX_POLL_ATTEMPTS": (_NEVER, "nothing is polled"),
    "EG_SOCKET_TIMEOUT": _CALL_BACK,
    "EG_RESPONSE_IP": _CALL_BACK,
    "EG_RESPONSE_PORT": _CALL_BACK,
    "EG_RESPONSE_PORT_RETRIES": _CALL_BACK,
    "EG_RESPONSE_ADDR_ANY": _CALL_BACK,
    "EG_PROHIBITED_LOCAL_IPS": _CALL_BACK,
    "EG_MIN_PORT_RANGE_SIZE": _ONE_PORT,
    "EG_MAX_PORT_RANGE_RETRIES": _ONE_PORT,
    "EG_ENABLE_TUNNELING": (_NEVER, "between machines everything is TLS"),
    "EG_SSH_PORT": _SSH,
    "EG_REMOTE_USER": _SSH,
    "EG_REMOTE_PWD": _SSH,
    "EG_REMOTE_GSS_SSH": _SSH,
    "EG_SSH_LOG_LEVEL": _SSH,
    "EG_SENSITIVE_ENV_KEYS": (_NEVER, "values of variables are never logged"),
    "EG_REDACTION_MASK": (_NEVER, "values of variables are never logged"),
    "EG_KERNEL_LOG_DIR": (_NEVER, "`holdfast kernels logs` shows what a kernel wrote"),
    "EG_KERNEL_SESSION_PERSISTENCE": _STAYS,
    "EG_KERNEL_SESSION_LOCATION": _STAYS,
    "EG_ZMQ_IO_THREADS": (_NEVER, "proxies have no ZMQ sockets"),
    "EG_ZMQ_MAX_SOCKETS": (_NEVER, "proxies have no ZMQ sockets"),
    "EG_MIRROR_WORKING_DIRS": (_NEVER, "KERNEL_WORKING_DIR holds where there is such a directory"),
    "EG_PROHIBITED_UIDS": (_NO, "clients choose no uid: kernels run as their launcher's user"),
    "EG_PROHIBITED_GIDS": (_NO, "clients choose no gid: kernels run as their launcher's user"),
}

#: What a variable that is not in a table begins with, and what that says of it.
PREFIXES: Final[Mapping[str, tuple[Fate, str]]] = {
    "EG_YARN_": _YARN,
    "EG_KUBERNETES_": _KUBERNETES,
    "EG_NAMESPACE": _KUBERNETES,
    "EG_SHARED_NAMESPACE": _KUBERNETES,
    "EG_DEFAULT_KERNEL_SERVICE_ACCOUNT_NAME": _KUBERNETES,
    "EG_KERNEL_CLUSTER_ROLE": _KUBERNETES,
    "EG_POD_TEMPLATE_DIR": _KUBERNETES,
    "EG_KERNEL_IMAGE": (_NO, "there is no engine for containers"),
    "EG_KERNEL_EXECUTOR_IMAGE": (_NO, "there is no engine for containers"),
    "EG_DOCKER_": (_NO, "there is no engine for Docker"),
}
