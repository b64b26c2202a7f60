"""From the options of `extproc picker` to the configuration that it runs with."""

import logging
import re
from pathlib import Path
from typing import Any

from extproc.adapters.envoy.self_signed import self_signed
from extproc.commands.picker_options import IGNORED, TRUTHS, PickerOptions
from extproc.config.given_sources import listed, numbered_servers
from extproc.config.stages import Config, TlsConfig, load_config
from extproc.errors import ConfigError
from extproc.picker_app import PickerSetup

logger = logging.getLogger(__name__)

GRPC_PORT, METRICS_PORT = 9002, 9090
USUAL_CONFIG = Path("extproc.yaml")

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNIT_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def config_of(options: PickerOptions) -> tuple[Config, Path | None]:
    """Return the configuration, and the file that is followed if there is one.

    Raises ConfigError for options that contradict each other, or where there is no configuration.
    """
    _log_ignored(options)
    given = [bool(options.backends), bool(options.pool_name)]
    if sum(given) > 1:
        raise ConfigError("--backends and --pool-name both say where the servers are")
    if not any(given):
        path = options.config or USUAL_CONFIG
        return load_config(path), path
    stages = listed(numbered_servers(options.backends)) if options.backends else _pool(options)
    return load_config(options.config, stages), None


def setup_of(options: PickerOptions, directory: Path) -> PickerSetup:
    """Return the rest of what a picker needs; a certificate that has to be made is written to `directory`.

    Raises ConfigError for options that have no such value.
    """
    is_secure = _truth("--secure-serving", options.secure_serving)
    drain_s = _seconds(options.drain_timeout) if options.drain_timeout else None
    made = _certificate(options, directory) if is_secure else None

    def adapted(config: Config) -> Config:
        return _adapted(config, options, (config.server.tls or made) if is_secure else None, drain_s)

    return PickerSetup(f":{options.grpc_health_port}", options.pool_name, adapted)


def _adapted(config: Config, options: PickerOptions, tls: TlsConfig | None, drain_s: float | None) -> Config:
    """Return the configuration with what the options say, and the ports of pickers where nothing does."""
    if config.server.transport != "thin":
        raise ConfigError("a picker has one transport: server.transport must be thin")
    server: dict[str, Any] = {"tls": tls}
    if options.grpc_port is not None or "address" not in config.server.model_fields_set:
        server["address"] = f":{options.grpc_port or GRPC_PORT}"
    changes: dict[str, Any] = {"server": config.server.model_copy(update=server)}
    if options.metrics_port is not None or "address" not in config.http.model_fields_set:
        address = f":{options.metrics_port or METRICS_PORT}"
        changes["http"] = config.http.model_copy(update={"address": address})
    if drain_s is not None:
        changes["gateway"] = config.gateway.model_copy(update={"drain_s": drain_s})
    return config.model_copy(update=changes)


def _pool(options: PickerOptions) -> dict[str, Any]:
    namespace = options.pool_namespace or None
    return {"discovery": {"kind": "inference_pool", "name": options.pool_name, "namespace": namespace}}


def _certificate(options: PickerOptions, directory: Path) -> TlsConfig:
    if options.cert_path is None:
        return self_signed(directory)
    return TlsConfig(cert_path=options.cert_path / "tls.crt", key_path=options.cert_path / "tls.key")


def _truth(flag: str, text: str) -> bool:
    truth = TRUTHS.get(text.lower())
    if truth is None:
        raise ConfigError(f"{flag}: expected true or false")
    return truth


def _seconds(text: str) -> float:
    found = _DURATION.fullmatch(text)
    if found is None or float(found[1]) * _UNIT_S[found[2]] > 3600:
        raise ConfigError("--drain-timeout: expected up to an hour, such as 30s")
    return float(found[1]) * _UNIT_S[found[2]]


def _log_ignored(options: PickerOptions) -> None:
    for name, why in IGNORED.items():
        if getattr(options, name):
            flag = "v" if name == "verbosity" else name.replace("_", "-")
            logger.info("flag_without_meaning flag=--%s why=%s", flag, why)
