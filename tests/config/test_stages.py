import os
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import ValidationError

from extproc.config import rules
from extproc.config.backends_stage import USUAL_CA_PATH, BackendConfig
from extproc.config.discovery_stage import (
    DnsDiscovery,
    FoundBackends,
    InferencePoolDiscovery,
    KubernetesDiscovery,
    LlmdFileDiscovery,
)
from extproc.config.stages import (
    MAX_CONFIG_BYTES,
    Config,
    load_config,
    parse_config,
)
from extproc.errors import ConfigError
from extproc.fleet.adaptive_limit import AdaptiveRule
from extproc.fleet.bounds import MAX_BACKENDS
from extproc.fleet.endpoint import TlsRule
from extproc.fleet.fleet_rules import SaturationRule

EXAMPLE = Path(__file__).parents[2] / "extproc.example.yaml"
BACKENDS = [{"name": "vllm-1", "url": "http://127.0.0.1:8101"}]


def parse(**stages: Any) -> Config:
    return parse_config(yaml.safe_dump({"backends": BACKENDS} | stages), "test.yaml")


def faults(**stages: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(**stages)
    return str(caught.value)


def backend_faults(**fields: Any) -> str:
    return faults(backends=[BACKENDS[0] | fields])


def test_example_documents_every_field_with_its_default() -> None:
    document = yaml.safe_load(EXAMPLE.read_text())
    config = load_config(EXAMPLE)
    defaults = Config(backends=config.backends).model_dump(mode="json")
    assert document.keys() == defaults.keys()
    for stage in defaults.keys() - {"backends"}:
        assert document[stage] == defaults[stage]
    example = document["backends"][0]
    assert example.keys() == BackendConfig.model_fields.keys()
    assert (example["models"], example["max_num_seqs"]) == (None, None)


KINDS = (DnsDiscovery, KubernetesDiscovery, InferencePoolDiscovery, LlmdFileDiscovery)


def commented_examples() -> dict[str, dict[str, Any]]:
    """The kinds of discovery that the example shows in comments, as documents."""
    blocks = EXAMPLE.read_text().split("# discovery:\n")[1:]
    lines = [[line[2:] for line in block.split("\n\n")[0].splitlines()] for block in blocks]
    documents = [yaml.safe_load("\n".join(block)) for block in lines]
    return {document["kind"]: document for document in documents}


@pytest.mark.parametrize("kind", KINDS)
def test_example_documents_every_kind_of_discovery_with_its_defaults(
    kind: type[FoundBackends],
) -> None:
    document = commented_examples()[get_args(kind.model_fields["kind"].annotation)[0]]
    config = parse_config(yaml.safe_dump({"discovery": document}), "test.yaml")
    needed = {name: document[name] for name, field in kind.model_fields.items() if field.is_required()}
    assert config.discovery == kind.model_validate(needed)
    assert document.keys() == kind.model_fields.keys()


DNS = {"kind": "dns", "host": "vllm.default.svc", "port": 8000}
KUBERNETES = {"kind": "kubernetes", "selector": "kubernetes.io/service-name=vllm"}


POOL = {"kind": "inference_pool", "name": "vllm"}
FILE = {"kind": "llm_d_file", "path": "endpoints.yaml"}


def discovery_faults(document: object) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(yaml.safe_dump({"discovery": document}), "test.yaml")
    return str(caught.value)


@pytest.mark.parametrize("discovery", [DNS, KUBERNETES, POOL, FILE])
def test_who_finds_backends_lists_none(discovery: dict[str, Any]) -> None:
    config = parse_config(yaml.safe_dump({"discovery": discovery}), "test.yaml")
    assert config.backends == ()
    assert "discovery: with kind" in faults(discovery=discovery)


def test_without_discovery_a_list_is_needed_and_reported_with_the_other_faults() -> None:
    message = "a list of `backends` is needed"
    assert message in discovery_faults({"kind": "static"})
    with pytest.raises(ConfigError, match=message) as caught:
        parse_config("guard: {max_active: 0}", "test.yaml")
    assert "2 fault(s)" in str(caught.value)


@pytest.mark.parametrize(
    "document",
    [
        *(
            None,
            "dns",
            {},
            {"host": "a"},
            {"kind": "consul"},
            DNS | {"selector": "a"},
            KUBERNETES | {"host": "a"},
        ),
        *({"kind": "static", "host": "a"}, {"kind": "dns"}, {"kind": "kubernetes"}),
        *(
            DNS | {"host": host}
            for host in ("", "a b", "10.0.0.1", "fd00::1", "a..b", ".", "a" * 64, "http://a", 5)
        ),
        *(DNS | {"port": port} for port in (0, 65536, "8000", True, None)),
        *(DNS | {"interval_s": interval_s} for interval_s in (0, -1, "5", float("inf"))),
        *(DNS | {"nameservers": servers} for servers in ([], ["10.0.0.1"], ["10.0.0.1:0"], "10.0.0.1:53")),
        *(DNS | {"nameservers": ["dns.example:53"]}, DNS | {"family": "ipv5"}, DNS | {"empty_grace_s": -1}),
        *(KUBERNETES | {"selector": selector} for selector in ("", "a=b\n", "a=b&watch=true", "a=b#", 5)),
        *(KUBERNETES | {"port": port} for port in (0, "", "HTTP", "a b", "-a", True, 70000)),
        *(POOL | {"name": name} for name in ("", "Vllm", "a b", "a,b", "-a", "a/b", "a" * 254, None)),
        *(POOL | {"namespace": ""}, POOL | {"port": 8000}, FILE | {"path": ""}, FILE | {"path": "/"}),
        *(KUBERNETES | {"namespace": ""}, KUBERNETES | {"models": []}, KUBERNETES | {"max_num_seqs": 0}),
    ],
    ids=str,
)
def test_other_discoveries_are_refused(document: object) -> None:
    assert "  discovery" in discovery_faults(document)


@pytest.mark.parametrize(
    "document",
    [
        DNS | {"host": "vllm"},
        DNS | {"host": "_http._tcp.vllm.example."},
        DNS | {"nameservers": ["10.0.0.10:53", "[fd00::10]:53"], "family": "ipv6", "interval_s": 0.5},
        KUBERNETES | {"selector": "app in (a, b),!canary", "port": "http", "namespace": "llm"},
        KUBERNETES | {"port": 8000, "models": ["m"], "empty_grace_s": 0},
        POOL | {"name": "llama-3.1-8b", "namespace": "llm", "family": "ipv6"},
        FILE | {"models": ["m"], "family": "ipv4"},
    ],
    ids=str,
)
def test_these_discoveries_can_be_used(document: dict[str, Any]) -> None:
    config = parse_config(yaml.safe_dump({"discovery": document}), "test.yaml")
    assert config.discovery.model_dump(mode="json", exclude_unset=True) == document


def test_backends_alone_make_a_configuration() -> None:
    assert parse().backends == (BackendConfig(name="vllm-1", url="http://127.0.0.1:8101"),)


def test_all_faults_are_reported_at_once_and_nothing_else() -> None:
    message = faults(
        guard={"max_active": 0},
        breaker={"min_pause_s": 10, "max_pause_s": 1},
        no_such_stage={},
        scrape={"timeout_s": -1, "no_such_field": 1},
        backends=[{"name": "a b", "url": "ftp://x", "models": ["m", ""]}],
    )
    assert message.startswith("test.yaml: 8 fault(s)\n")
    places = [line.strip().partition(": ")[0] for line in message.splitlines()[1:]]
    assert sorted(places) == [
        "backends.0.models.1",
        "backends.0.name",
        "backends.0.url",
        "breaker",
        "guard.max_active",
        "no_such_stage",
        "scrape.no_such_field",
        "scrape.timeout_s",
    ]


def test_a_field_that_no_stage_has_is_reported_in_the_same_words_everywhere() -> None:
    message = faults(server={"no_such": 1}, breaker={"no_such": 1}, admission={"queue": {"no_such": 1}})
    for place in ("server", "breaker", "admission.queue"):
        assert f"  {place}.no_such: there is no such setting" in message


@pytest.mark.parametrize("stage", ["server", "breaker", "admission"])
@pytest.mark.parametrize("value", [None, 5, "text", [1]])
def test_a_stage_that_is_no_mapping_is_refused(stage: str, value: object) -> None:
    assert f"  {stage}: Input should be a " in faults(**{stage: value})


def test_repeated_backends_are_reported_with_the_other_faults() -> None:
    message = faults(backends=BACKENDS * 2, server={"drain_s": 0}, no_such_stage={})
    assert message.startswith("test.yaml: 3 fault(s)\n")
    assert "every name must be given once, repeated: vllm-1; every address" in message


@pytest.mark.parametrize("text", ["", "[]", "just text", "3"])
def test_what_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"test\.yaml: expected a mapping of stages"):
        parse_config(text, "test.yaml")


@pytest.mark.parametrize(
    "text",
    [
        *("a: [", "\t- x", "[" * 5000, "a: !!python/object:os.system x", "? [a]\n: 1"),
        *("a: 2026-13-01", "a: " + "9" * 5000, "!!int x", "!!int ''", "!!bool x", "!!timestamp x"),
    ],
)
def test_what_is_no_yaml_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"test\.yaml: not YAML"):
        parse_config(text, "test.yaml")


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("backends: []\nguard: {}\nbackends: []", "backends", 3),
        ("guard:\n  max_active: 5\n  'max_active': 6", "max_active", 3),
        ("backends:\n- {name: a, url: x, name: b}", "name", 2),
    ],
)
def test_a_repeated_key_is_refused_and_named(text: str, key: str, line: int) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "test.yaml")
    assert f"'{key}' is repeated" in str(caught.value)
    assert f"line {line}," in str(caught.value)


def test_what_a_merged_mapping_says_may_be_said_differently() -> None:
    text = """
backends:
- &first {name: a, url: "http://a", models: [m]}
- &second {<<: *first, name: b, url: "http://b"}
- {<<: *second, name: c, url: "http://c"}
"""
    assert [backend.models for backend in parse_config(text, "test.yaml").backends] == [("m",)] * 3


def test_nothing_but_envoys_own_port_is_open_to_other_machines() -> None:
    config = parse()
    envoy = yaml.safe_load((EXAMPLE.parent / "envoy" / "envoy.yaml").read_text())
    assert config.server.address.startswith("127.0.0.1:")
    assert config.http.address.startswith("127.0.0.1:")
    assert envoy["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"


def test_merges_of_merges_do_not_multiply() -> None:
    merged = "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 20))
    with pytest.raises(ConfigError, match="too much is merged"):
        parse_config("a0: &a0 {x: 1, y: 2}\n" + merged, "test.yaml")
    many = ", ".join(["*a0"] * 17)
    with pytest.raises(ConfigError, match="too much is merged"):
        parse_config(f"a0: &a0 {{x: 1}}\nb: {{<<: [{many}]}}\n", "test.yaml")


def test_merged_keys_are_counted_as_often_as_they_are_merged() -> None:
    fields = ", ".join(f"k{n}: 1" for n in range(16))
    text = f"a: &a {{{fields}}}\nb: &b {{<<: [{', '.join(['*a'] * 16)}]}}\n"
    with pytest.raises(ConfigError, match="there is no such setting"):
        parse_config(text, "test.yaml")
    with pytest.raises(ConfigError, match="too much is merged"):
        parse_config(text + "c: {<<: *b, one: more}\n", "test.yaml")


@pytest.mark.parametrize("text", ["a: &a {<<: *a}", "a: &a {x: 1, b: {<<: [*a]}}", "&a\n<<: *a\nx: 1"])
def test_a_mapping_that_merges_itself_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="too much is merged"):
        parse_config(text, "test.yaml")


@pytest.mark.parametrize("merged", ["1", "[1]", "[[{x: 1}]]"])
def test_only_mappings_can_be_merged(merged: str) -> None:
    with pytest.raises(ConfigError, match="expected a mapping"):
        parse_config(f"a: {{<<: {merged}}}", "test.yaml")


def test_very_many_faults_are_counted_and_not_all_listed() -> None:
    told = faults(backends=[{"name": 1, "url": "http://a"}] * 1000).splitlines()
    assert told[0] == "test.yaml: 1000 fault(s)"
    assert len(told) == 102


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    for path in (tmp_path, tmp_path / "absent.yaml", binary):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_config(path)


def test_a_pipe_a_device_or_too_much_is_no_configuration(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "large").write_bytes(EXAMPLE.read_bytes() + b"#" * MAX_CONFIG_BYTES)
    for name in ("fifo", "zero", "large"):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_config(tmp_path / name)


def test_faults_of_a_file_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "extproc.yaml"
    path.write_text("backends: []")
    with pytest.raises(ConfigError, match=r"extproc\.yaml: 1 fault\(s\)\n  backends: "):
        load_config(path)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        parse().guard.max_active = 1
    with pytest.raises(FrozenInstanceError):
        parse().breaker.min_pause_s = 2.0  # type: ignore[misc]  # what is tested


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "localhost:65535", "[::1]:9002", "extproc.svc:9002", "unix:///run/e.sock"]
)
def test_grpc_address_may_be_tcp_or_a_unix_socket(address: str) -> None:
    assert parse(server={"address": address}).server.address == address


@pytest.mark.parametrize(
    "address",
    [
        *("", "9002", ":9002", "host:", "host:x", "host:0", "host:65536", "unix:///", "unix:rel.sock"),
        *(
            "x:²",
            "x:٣",
            "x:+1",
            " x:1",
            "a b:1",
            "::1:9002",
            "[::1:9002",
            "[1]:9002",
            "http://x:1",
            "x:1\n",
            5,
        ),
    ],
)
def test_other_grpc_addresses_are_refused(address: object) -> None:
    assert "server.address: " in faults(server={"address": address})


TLS = {"cert_path": "/c.pem", "key_path": "/k.pem"}


def test_tls_is_for_the_thin_transport_on_tcp() -> None:
    tls = parse(server={"transport": "thin", "tls": TLS}).server.tls
    assert tls is not None
    assert (tls.cert_path, tls.client_ca_path) == (Path("/c.pem"), None)


@pytest.mark.parametrize(
    "server",
    [
        {"transport": "grpcio", "tls": TLS},
        {"transport": "thin", "tls": TLS, "address": "unix:///run/e.sock"},
    ],
)
def test_tls_that_no_peer_would_use_is_refused(server: dict[str, object]) -> None:
    assert "tls needs transport: thin, and a TCP address" in faults(server=server)


def test_a_transport_that_is_none_is_refused() -> None:
    assert "server.transport: " in faults(server={"transport": "quic"})


def test_a_wrong_address_is_reported_with_what_was_expected() -> None:
    assert "expected HOST:PORT or unix:///PATH" in faults(server={"address": "x:²"})


@pytest.mark.parametrize("address", ["unix:///run/e.sock", "host", "host:0"])
def test_http_address_is_tcp_only(address: str) -> None:
    assert "http.address: " in faults(http={"address": address})


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1", 8000),
        ("http://vllm.default.svc", "vllm.default.svc", 80),
        ("http://[::1]:8000/", "::1", 8000),
        ("http://vLLM_1:65535", "vllm_1", 65535),
        ("https://vllm.example", "vllm.example", 443),
        ("https://10.0.0.1:8443/", "10.0.0.1", 8443),
        ("http://host:1/bge-m3", "host", 1),
    ],
)
def test_backend_url_gives_host_and_port(url: str, host: str, port: int) -> None:
    (backend,) = parse(backends=[{"name": "a", "url": url}]).backends
    assert (backend.endpoint.host, backend.endpoint.port) == (host, port)


@pytest.mark.parametrize(
    "url",
    [
        "HTTPS://host",
        "host:8000",
        "http://",
        "http://host/v1",
        "http://host?a=b",
        "http://host#a",
        "http://user@host",
        "http://host:99999",
        "http://host:x",
        "http://[::1",
        "http://[1:2]:8000",
        "http://host:0",
        "http://host:",
        "http://host//",
        "http://host/a//b",
        "http://host/../a",
        "http://host/a/..",
        "http://host/%2e",
        "http://host/a b",
        "http://host/a?b",
        "http://host/a/v1/",
        "https://",
        "https://:443",
        "http://:password@host",
        "http://user:password@host",
        "http://ho st:8000",
        " http://host:8000",
        "http://host:8000\n",
        "http://ho\tst",
        "http://hö",
    ],
)
def test_other_backend_urls_are_refused(url: str) -> None:
    assert "backends.0.url: " in backend_faults(url=url)


def test_a_url_may_have_tls_and_a_prefix_of_all_paths() -> None:
    settings = {"ca_file": "/tls/ca.pem", "server_name": "vllm.example"}
    (backend,) = parse(backends=[{"name": "a", "url": "https://10.0.0.1/team/bge-m3/", **settings}]).backends
    assert backend.endpoint.tls == TlsRule("vllm.example", Path("/tls/ca.pem"))
    assert backend.endpoint.path_prefix == "/team/bge-m3"
    assert backend.endpoint.address == "10.0.0.1:443"


def test_without_a_file_of_authorities_the_public_ones_count() -> None:
    (backend,) = parse(backends=[{"name": "a", "url": "https://host"}]).backends
    assert backend.endpoint.tls == TlsRule("", USUAL_CA_PATH)


@pytest.mark.parametrize("setting", [{"ca_file": "ca.pem"}, {"server_name": "name"}])
def test_settings_of_tls_need_tls(setting: dict[str, str]) -> None:
    assert "https://" in backend_faults(url="http://host", **setting)


def test_two_prefixes_of_one_address_are_two_servers() -> None:
    backends = [{"name": "a", "url": "http://host/a"}, {"name": "b", "url": "http://host/b"}]
    assert len(parse(backends=backends).backends) == 2


@pytest.mark.parametrize(
    ("one", "other", "address"),
    [
        ("http://host:1", "http://host:1/", "host:1"),
        ("http://host", "http://host:80", "host:80"),
        ("http://host:1", "http://HOST:01", "host:1"),
    ],
)
def test_urls_of_one_address_are_the_same(one: str, other: str, address: str) -> None:
    backends = [{"name": "a", "url": one}, {"name": "b", "url": other}]
    assert f"every address must be given once, repeated: {address}" in faults(backends=backends)


def test_one_host_may_serve_on_two_ports() -> None:
    backends = [{"name": "a", "url": "http://host:1"}, {"name": "b", "url": "http://host:2"}]
    assert len(parse(backends=backends).backends) == 2


@pytest.mark.parametrize("name", ["a", "vllm-1", "A_1", "x" * 63])
def test_backend_names_may_be_words(name: str) -> None:
    assert parse(backends=[BACKENDS[0] | {"name": name}]).backends[0].name == name


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "a.b", "a b", "ä", "x" * 64, "a\n", "extproc", "extproc_pool", "a_endpoint", 7]
)
def test_other_backend_names_are_refused(name: object) -> None:
    assert "backends.0.name: " in backend_faults(name=name)


def test_repeated_backend_names_are_refused() -> None:
    backends = [{"name": "a", "url": "http://host:1"}, {"name": "a", "url": "http://host:2"}]
    assert "every name must be given once, repeated: a" in faults(backends=backends)


def test_fleet_has_at_least_one_backend_and_at_most_half_of_the_capacity() -> None:
    fleet = [{"name": f"b{n}", "url": f"http://host:{n + 1}"} for n in range(MAX_BACKENDS + 1)]
    assert len(parse(backends=fleet[1:]).backends) == MAX_BACKENDS
    assert f"backends: expected 1 to {MAX_BACKENDS}, found {MAX_BACKENDS + 1}" in faults(backends=fleet)
    assert "backends: expected 1 to" in faults(backends=[])


@pytest.mark.parametrize("interval", ["idle_interval_s", "busy_interval_s"])
def test_signals_do_not_grow_stale_between_two_scrapes(interval: str) -> None:
    assert "scrape: " in faults(scrape={interval: 3.0})
    assert "scrape: " in faults(scrape={interval: 2.0})
    assert parse(scrape={interval: 3.0, "stale_after_s": 3.5}).scrape.stale_after_s == 3.5


def test_the_pause_before_a_probe_grows() -> None:
    assert "breaker: " in faults(breaker={"min_pause_s": 31})
    assert parse(breaker={"min_pause_s": 30}).breaker.min_pause_s == 30.0


def saturation(**stages: Any) -> SaturationRule:
    return rules.core_rules(parse(**stages)).fleet.saturation


def resume_load(**stages: Any) -> int:
    rule = saturation(**stages)
    return rule.resumes_at(rule.max_active)


def test_saturated_backend_comes_back_at_80_percent_by_default() -> None:
    assert resume_load(guard={"max_active": 2}) == 1
    assert resume_load(guard={"max_active": 100}) == 80
    assert resume_load(guard={"max_active": 2, "resume_active": 0}) == 0


def test_where_requests_wait_a_saturated_backend_comes_back_with_one_free_place() -> None:
    assert resume_load(guard={"max_active": 100}, admission={"mode": "queue"}) == 99


def test_a_limit_that_is_found_keeps_its_share_to_come_back_at_and_its_bounds() -> None:
    guard = {"max_active": "auto", "auto": {"min_active": 120, "max_active": 500}}
    refusing, queueing = saturation(guard=guard), saturation(guard=guard, admission={"mode": "queue"})
    assert (refusing.max_active, refusing.resumes_at(20), refusing.resumes_at(200)) == (120, 16, 160)
    assert (queueing.resumes_at(20), queueing.resumes_at(200)) == (19, 199)


def test_a_limit_that_is_found_has_bounds_in_order_and_no_fixed_load_to_come_back_at() -> None:
    assert "guard.auto: " in faults(guard={"max_active": "auto", "auto": {"min_active": 9, "max_active": 8}})
    assert "guard: " in faults(guard={"max_active": "auto", "resume_active": 5})


def test_a_limit_is_found_where_none_is_configured() -> None:
    assert saturation().adaptive == AdaptiveRule()
    assert saturation(guard={"max_active": 100}).adaptive is None


def test_a_queue_that_stands_may_take_half_of_the_longest_wait() -> None:
    rule, patient = parse().guard.waiting(), parse(guard={"max_predicted_ttft_s": 60}).guard.waiting()
    assert (rule.burst_s, rule.standing_s) == (2.0, 1.0)
    assert (patient.burst_s, patient.standing_s) == (60.0, 30.0)


def test_resume_load_is_below_the_limit() -> None:
    assert "guard: " in faults(guard={"max_active": 5, "resume_active": 5})


@pytest.mark.parametrize(
    ("stage", "field", "value"),
    [
        ("server", "max_message_bytes", 65535),
        ("server", "drain_s", 0),
        ("server", "drain_s", float("nan")),
        ("server", "drain_s", float("inf")),
        ("envoy", "settle_s", 3601),
        ("scrape", "busy_interval_s", 0),
        ("scrape", "max_response_bytes", 1023),
        ("scrape", "timeout_s", True),
        ("zones", "saturated_s", 10.0),
        ("zones", "low_s", "1"),
        ("zones", "medium_load", 16.0),
        ("guard", "max_active", 0),
        ("guard", "max_active", True),
        ("guard", "max_active", 5.5),
        ("guard", "max_active", "5"),
        ("guard", "max_active", 10**400),
        ("guard", "resume_active", -1),
        ("guard", "resume_active", False),
        ("guard", "max_predicted_ttft_s", "soon"),
        ("breaker", "consecutive_failures", 0),
        ("breaker", "consecutive_failures", 5.0),
        ("breaker", "consecutive_failures", "5"),
        ("breaker", "min_pause_s", 0),
        ("predict", "is_enabled", "perhaps"),
        ("predict", "is_enabled", 1),
        ("predict", "tie_fraction", 0.05),
        ("predict", "max_candidates", 257),
        ("predict", "min_outcomes", True),
        ("predict", "min_outcomes", 0),
        ("admission", "mode", "wait"),
        ("admission", "queue", None),
        ("admission", "max_retry_after_s", 0),
        ("model", "path", 5),
        ("model", "path", ""),
        ("envoy", "cds_path", "/"),
        ("samples", "max_rows", 99),
        ("trainer", "poll_s", 0),
        ("trainer", "interval_s", -1),
        ("trainer", "min_new_samples", 0),
        ("trainer", "rows_per_stratum", 99),
        ("trainer", "tuning_s", -0.1),
        ("trainer", "margin", 1.1),
    ],
)
def test_value_out_of_bounds_is_refused(stage: str, field: str, value: object) -> None:
    assert f"  {stage}.{field}: " in faults(**{stage: {field: value}})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("max_waiting", 0), ("max_waiting", 100_001), ("max_wait_s", 0), ("max_wait_s", 601)),
        *(("min_priority", -101), ("max_priority", 101), ("max_priority", 0.5)),
        *(
            ("tenant_header", ""),
            ("tenant_header", "X-Tenant"),
            ("tenant_header", "a b"),
            ("tenant_header", 5),
        ),
        ("timeout_s", 1),
    ],
)
def test_field_of_the_queue_out_of_bounds_is_refused(field: str, value: object) -> None:
    assert f"  admission.queue.{field}: " in faults(admission={"queue": {field: value}})


def test_the_lowest_priority_is_not_above_the_highest() -> None:
    assert "admission.queue: " in faults(admission={"queue": {"min_priority": 1}})
    queue = parse(
        admission={"mode": "queue", "queue": {"min_priority": -3, "max_priority": -3}}
    ).admission.queue
    assert (queue.min_priority, queue.max_priority) == (-3, -3)


def test_clients_are_equal_unless_it_is_said_that_they_are_not() -> None:
    queue = parse(admission={"mode": "queue"}).admission.queue
    assert (queue.min_priority, queue.max_priority, queue.tenant_header) == (0, 0, None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("max_num_seqs", 0), ("max_num_seqs", True)),
        *(("models", "m"), ("models", []), ("models", [""]), ("models", [5])),
        ("weight", 1),
    ],
)
def test_backend_field_out_of_bounds_is_refused(field: str, value: object) -> None:
    assert f"backends.0.{field}" in backend_faults(**{field: value})


def test_a_server_that_does_not_serve_http_needs_a_port_for_grpc() -> None:
    assert "serves_http: false needs a grpc_port" in backend_faults(serves_http=False)
    (backend,) = parse(
        backends=[{"name": "a", "url": "http://host:1", "grpc_port": 1, "serves_http": False}]
    ).backends
    assert backend.endpoint.speaks_only_grpc
