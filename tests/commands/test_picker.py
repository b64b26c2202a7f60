import logging
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from extproc.adapters.envoy.self_signed import self_signed
from extproc.adapters.envoy.tls_files import TlsFiles
from extproc.cli import app
from extproc.commands import picker as command
from extproc.commands.picker_options import IGNORED, PickerOptions
from extproc.commands.picker_setup import config_of, setup_of
from extproc.config.stages import Config
from extproc.errors import ConfigError
from extproc.picker_app import require_addresses

URLS = "http://10.0.0.1:8000,http://[fd00::1]:8000"
LISTED = PickerOptions(backends=URLS)
FILE = """
server: {address: "127.0.0.1:7002"}
http: {address: "127.0.0.1:7090"}
backends: [{name: a, url: "http://10.0.0.9:80"}]
"""


def configured(tmp_path: Path, options: PickerOptions = LISTED) -> Config:
    return setup_of(options, tmp_path).adapted(config_of(options)[0])


def in_file(tmp_path: Path, text: str = FILE) -> PickerOptions:
    path = tmp_path / "extproc.yaml"
    path.write_text(text)
    return PickerOptions(config=path)


def test_a_list_of_urls_is_enough(tmp_path: Path) -> None:
    config, path = configured(tmp_path), config_of(LISTED)[1]
    assert [(each.name, each.endpoint.address) for each in config.backends] == [
        ("vllm-1", "10.0.0.1:8000"),
        ("vllm-2", "[fd00::1]:8000"),
    ]
    assert (config.server.address, config.http.address, path) == (":9002", ":9090", None)
    assert setup_of(LISTED, tmp_path).health_address == ":9003"


def test_the_file_counts_where_no_flag_is_given(tmp_path: Path) -> None:
    options = in_file(tmp_path)
    config, path = configured(tmp_path, options), config_of(options)[1]
    assert (config.server.address, config.http.address) == ("127.0.0.1:7002", "127.0.0.1:7090")
    assert path == options.config
    config = configured(tmp_path, replace(options, grpc_port=1, metrics_port=2, drain_timeout="1m"))
    assert (config.server.address, config.http.address, config.gateway.drain_s) == (":1", ":2", 60.0)


def test_backends_on_the_command_line_count_before_those_of_the_file(tmp_path: Path) -> None:
    options = replace(in_file(tmp_path), backends=URLS)
    config, path = configured(tmp_path, options), config_of(options)[1]
    assert [each.name for each in config.backends] == ["vllm-1", "vllm-2"]
    assert (config.http.address, path) == ("127.0.0.1:7090", None)


def test_a_certificate_is_made_unless_there_is_one_or_plain_text_is_wanted(tmp_path: Path) -> None:
    made = configured(tmp_path).server.tls
    assert made is not None
    assert made.key_path.stat().st_mode & 0o777 == 0o600
    given = configured(tmp_path, replace(LISTED, cert_path=Path("/certs"))).server.tls
    assert given is not None
    assert (given.cert_path, given.key_path) == (Path("/certs/tls.crt"), Path("/certs/tls.key"))
    assert configured(tmp_path, replace(LISTED, secure_serving="false")).server.tls is None


def test_the_certificate_that_is_made_can_be_served(tmp_path: Path) -> None:
    context = TlsFiles(self_signed(tmp_path), "h2").context
    assert context.protocol == ssl.PROTOCOL_TLS_SERVER


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"pool_name": "p"}, "both"),
        ({"secure_serving": "maybe"}, "true or false"),
        ({"drain_timeout": "soon"}, "drain-timeout"),
        ({"drain_timeout": "2h"}, "drain-timeout"),
        ({"backends": "10.0.0.1:8000"}, "HOST:PORT"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, changes: dict[str, str], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        configured(tmp_path, replace(LISTED, **changes))


def test_a_files_own_certificate_counts_before_one_that_is_made(tmp_path: Path) -> None:
    tls = "tls: {cert_path: /a.crt, key_path: /a.key}"
    config = configured(tmp_path, in_file(tmp_path, FILE.replace("server: {", f"server: {{{tls}, ")))
    assert config.server.tls is not None
    assert config.server.tls.cert_path == Path("/a.crt")


def test_a_picker_has_one_transport(tmp_path: Path) -> None:
    options = in_file(tmp_path, FILE.replace("7002", '7002", transport: "grpcio'))
    with pytest.raises(ConfigError, match="thin"):
        configured(tmp_path, options)


def test_backends_with_names_are_refused_since_a_gateway_needs_addresses(tmp_path: Path) -> None:
    config = configured(tmp_path, PickerOptions(backends="http://vllm:8000"))
    with pytest.raises(ConfigError, match="vllm-1"):
        require_addresses(config)
    require_addresses(configured(tmp_path))
    below = configured(tmp_path, PickerOptions(backends="http://10.0.0.1:8000/llm"))
    with pytest.raises(ConfigError, match=r"paths.*vllm-1"):
        require_addresses(below)


def test_flags_without_a_meaning_are_said_to_have_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    configured(tmp_path, replace(LISTED, **dict.fromkeys(IGNORED, "x")))
    for flag in ("--pool-group", "--v", "--zap-encoder", "--ha-enable-leader-election"):
        assert f"flag={flag} " in caplog.text


CHART = (
    *("--backends", URLS, "--pool-group", "inference.networking.k8s.io", "--zap-encoder", "json"),
    *("--config-file", "/config/default-plugins.yaml", "--grpc-port", "9002", "--grpc-health-port", "9003"),
    *("--metrics-port", "9090", "--v=2", "--tracing=false", "--secure-serving", "--health-checking"),
    *("--metrics-endpoint-auth=false", "--ha-enable-leader-election", "--enable-cert-reload=true"),
)


def test_the_flags_of_a_chart_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[PickerOptions] = []

    def note(options: PickerOptions) -> None:
        seen.append(options)
        raise typer.Exit

    monkeypatch.setattr("extproc.commands.picker_setup.config_of", note)
    result = CliRunner().invoke(app, ["picker", *CHART])
    assert (result.exit_code, result.output) == (0, "")
    (options,) = seen
    assert (options.grpc_port, options.secure_serving, options.verbosity) == (9002, "true", "2")
    assert options.ha_enable_leader_election == "true"
    assert command.picker is not None
