from typing import Any

import msgspec
import pytest
from support.kubernetes_api import inference_pool, pod

from extproc.adapters.discovery.pool_endpoints import InferencePool, Pod, backends_of
from extproc.config.discovery_stage import InferencePoolDiscovery
from extproc.fleet.endpoint import Endpoint
from extproc.fleet.inference_stage import InferenceStage


def found(*pods: Any, ports: tuple[int, ...] = (8000,), **fields: Any) -> list[Endpoint]:
    config = InferencePoolDiscovery(**({"kind": "inference_pool", "name": "vllm"} | fields))
    pool = msgspec.convert(inference_pool(ports=ports), InferencePool)
    return backends_of(pool, [msgspec.convert(one, Pod) for one in pods], config)


def addresses(*pods: Any, **fields: Any) -> list[str]:
    return [backend.address for backend in found(*pods, **fields)]


def test_ports_have_ranks_in_the_pools_order_even_where_some_do_not_serve() -> None:
    one = pod("a", "10.0.0.1", annotations={"llm-d.ai/active-ports": "8002,8000"})
    assert [(each.name, each.port, each.rank) for each in found(one, ports=(8000, 8001, 8002))] == [
        ("a-rank-0", 8000, 0),
        ("a-rank-2", 8002, 2),
    ]


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({}, [8000, 8001]),
        ({"llm-d.ai/active-ports": "8001"}, [8001]),
        ({"inference.networking.k8s.io/active-ports": "8001"}, [8001]),
        ({"llm-d.ai/active-ports": "8000", "inference.networking.k8s.io/active-ports": "8001"}, [8000]),
        ({"llm-d.ai/active-ports": ""}, []),
        ({"llm-d.ai/active-ports": "all, 65536, -1"}, []),
        ({"another": "8001"}, [8000, 8001]),
    ],
    ids=str,
)
def test_annotations_narrow_the_ports(annotations: dict[str, str], expected: list[int]) -> None:
    ports = [each.port for each in found(pod("a", "10.0.0.1", annotations=annotations), ports=(8000, 8001))]
    assert ports == expected


@pytest.mark.parametrize("address", ["", "host", "169.254.169.254", "0.0.0.0", "10.0.0.1/8"])
def test_a_pod_without_a_usable_address_is_left_out(address: str) -> None:
    assert found(pod("a", address)) == []


@pytest.mark.parametrize(
    ("family", "expected"),
    [("any", ["[fd00::1]:8000"]), ("ipv4", ["10.0.0.1:8000"]), ("ipv6", ["[fd00::1]:8000"])],
)
def test_a_pod_of_both_families_counts_once(family: str, expected: list[str]) -> None:
    both = pod("a", "fd00::1")
    both["status"]["podIPs"].append({"ip": "10.0.0.1"})
    assert addresses(both, family=family) == expected


def test_pods_with_one_address_count_once() -> None:
    assert [each.name for each in found(pod("b", "10.0.0.1"), pod("a", "10.0.0.1"))] == ["a"]


@pytest.mark.parametrize("status", [{}, {"conditions": None}, {"podIP": "10.0.0.1", "conditions": []}])
def test_a_pod_of_which_nothing_is_known_yet_is_not_ready(status: dict[str, Any]) -> None:
    assert found(pod("a", "10.0.0.1") | {"status": status}) == []


def test_what_the_configuration_says_holds_for_all() -> None:
    (backend,) = found(pod("a", "10.0.0.1"), models=("m",), max_num_seqs=8)
    assert (backend.models, backend.max_num_seqs) == (frozenset({"m"}), 8)


def test_the_role_of_a_pod_is_a_label() -> None:
    label = {"llm-d.ai/role": "prefill"}
    labelled, plain = found(pod("a", "10.0.0.1", labels=label), pod("b", "10.0.0.2"))
    assert labelled.stages == {InferenceStage.PREFILL}
    assert not labelled.can_answer
    assert plain.can_answer


def test_labels_select_together_and_no_label_selects_nothing() -> None:
    pool = msgspec.convert(inference_pool(b="2", a="1"), InferencePool)
    assert pool.label_selector == "a=1,b=2"
    pool.spec.selector.match_labels = {}
    assert not pool.label_selector
