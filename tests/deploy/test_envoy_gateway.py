"""Envoy Gateway's policies say what envoy.yaml says, as far as they can; the patch says the rest.

Its CRDs are not checked here, because no package has them.
"""

from typing import Any

import yaml
from support.manifests import ROOT, is_grpc, of_kind

from extproc.adapters.envoy.ext_proc_wire import ADDRESS_HEADER, CLUSTER_HEADER, METADATA_NAMESPACE
from extproc.request.content import PACKED_HEADER

VARIANT = "envoy-gateway"
MIB = 1 << 20


def one(kind: str) -> dict[str, Any]:
    (found,) = of_kind(VARIANT, kind)
    return found


def shipped() -> dict[str, Any]:
    """The HTTP connection manager of envoy.yaml, and its listener's limit."""
    (listener,) = yaml.safe_load((ROOT / "envoy" / "envoy.yaml").read_text())["static_resources"]["listeners"]
    (filters,) = listener["filter_chains"]
    return {**filters["filters"][0]["typed_config"], "limit": listener["per_connection_buffer_limit_bytes"]}


def shipped_ext_proc() -> dict[str, Any]:
    filters = {one["name"]: one["typed_config"] for one in shipped()["http_filters"]}
    config: dict[str, Any] = filters["envoy.filters.http.ext_proc"]
    return config


def patches() -> dict[str, Any]:
    """What is patched in, by the name of the field."""
    spec = one("EnvoyPatchPolicy")["spec"]
    return {patch["operation"]["path"]: patch["operation"] for patch in spec["jsonPatches"]}


def test_policies_are_about_objects_that_are_here() -> None:
    here = {
        (document["kind"], document["metadata"]["name"])
        for document in of_kind(VARIANT, "Gateway", "HTTPRoute")
    }
    for kind in ("EnvoyExtensionPolicy", "BackendTrafficPolicy", "ClientTrafficPolicy"):
        for target in one(kind)["spec"]["targetRefs"]:
            assert (target["kind"], target["name"]) in here
    assert one("EnvoyPatchPolicy")["spec"]["targetRef"]["name"] == one("Gateway")["metadata"]["name"]
    reference = one("Gateway")["spec"]["infrastructure"]["parametersRef"]
    assert (reference["kind"], reference["name"]) == ("EnvoyProxy", one("EnvoyProxy")["metadata"]["name"])
    assert one("HTTPRoute")["spec"]["parentRefs"] == [{"name": one("Gateway")["metadata"]["name"]}]


def test_extproc_is_called_where_it_listens() -> None:
    (service,) = (one for one in of_kind(VARIANT, "Service") if one["metadata"]["name"] == "extproc")
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    (settings,) = one("EnvoyProxy")["spec"]["telemetry"]["accessLog"]["settings"]
    references = [
        *one("EnvoyExtensionPolicy")["spec"]["extProc"][0]["backendRefs"],
        *settings["sinks"][0]["als"]["backendRefs"],
    ]
    assert [(reference["name"], reference["port"]) for reference in references] == [
        ("extproc", ports["grpc"])
    ] * 2


def test_messages_and_timeouts_are_those_of_envoy_yaml() -> None:
    (policy,) = one("EnvoyExtensionPolicy")["spec"]["extProc"]
    mode = shipped_ext_proc()["processing_mode"]
    assert policy["failOpen"] is shipped_ext_proc()["failure_mode_allow"]
    assert policy["messageTimeout"] == shipped_ext_proc()["message_timeout"]
    assert policy["processingMode"] == {"request": {"body": mode["request_body_mode"].capitalize()}}
    assert policy["metadata"]["writableNamespaces"] == [METADATA_NAMESPACE]
    assert patches()["response_trailer_mode"]["value"] == mode["response_trailer_mode"]
    assert patches()["timeout"]["value"] == shipped_ext_proc()["grpc_service"]["timeout"]


def test_the_open_paths_are_those_of_envoy_yaml() -> None:
    (host,) = shipped()["route_config"]["virtual_hosts"]
    (closed,) = [route["match"]["headers"] for route in host["routes"] if route["name"] == "closed"]
    patterns = [header["string_match"]["safe_regex"]["regex"] for header in closed if not is_grpc(header)]
    (rule,) = one("HTTPRoute")["spec"]["rules"]
    assert [match["path"]["value"] + "([?].*)?" for match in rule["matches"]] == patterns
    assert {match["path"]["type"] for match in rule["matches"]} == {"RegularExpression"}
    assert one("ClientTrafficPolicy")["spec"]["path"]["escapedSlashesAction"] == "RejectRequest"


def test_the_access_log_carries_what_envoy_yaml_has_in_it() -> None:
    log, _ = shipped()["access_log"]
    config = log["typed_config"]["common_config"]
    for field in ("custom_tags", "buffer_flush_interval"):
        assert patches()[field]["value"] == config[field]
        assert f'@.name=="{log["name"]}"' in patches()[field]["jsonPath"]


def test_patches_are_about_this_gateway_and_this_policy() -> None:
    gateway, policy = one("Gateway"), one("EnvoyExtensionPolicy")["metadata"]
    (listener,) = gateway["spec"]["listeners"]
    name = f"{gateway['metadata']['namespace']}/{gateway['metadata']['name']}/{listener['name']}"
    assert {patch["name"] for patch in one("EnvoyPatchPolicy")["spec"]["jsonPatches"]} == {name}
    ext_proc = f"envoyextensionpolicy/{policy['namespace']}/{policy['name']}/extproc/0"
    for field in ("response_trailer_mode", "timeout"):
        assert f'@.name=="envoy.filters.http.ext_proc/{ext_proc}"' in patches()[field]["jsonPath"]


def test_the_choice_is_followed_and_clients_cannot_make_it() -> None:
    balancer = one("BackendTrafficPolicy")["spec"]["loadBalancer"]
    assert balancer["endpointOverride"]["extractFrom"] == [{"header": ADDRESS_HEADER}]
    client = one("ClientTrafficPolicy")["spec"]
    removed = client["headers"]["earlyRequestHeaders"]["remove"]
    assert set(removed) == {CLUSTER_HEADER, ADDRESS_HEADER, PACKED_HEADER}
    (shipped_removal,) = shipped()["early_header_mutation_extensions"]
    mutations = shipped_removal["typed_config"]["mutations"]
    assert {each["remove"] for each in mutations if "remove" in each} == set(removed)
    assert int(client["connection"]["bufferLimit"].removesuffix("Mi")) * MIB == shipped()["limit"]


def test_a_request_that_no_backend_took_is_tried_again_as_in_envoy_yaml() -> None:
    (host,) = shipped()["route_config"]["virtual_hosts"]
    retry = one("BackendTrafficPolicy")["spec"]["retry"]
    assert retry["retryOn"]["triggers"] == host["retry_policy"]["retry_on"].split(",")
    assert retry["numRetries"] == host["retry_policy"]["num_retries"]
