import time

from prometheus_client import CollectorRegistry, generate_latest
from support.build import MODEL, a_request, scrape
from support.running_parts import Parts

from extproc.adapters.http.picker_metrics import PickerCollector
from extproc.exchange.messages import Phase
from extproc.routing.queue.request_queue import RequestQueue


def page(parts: Parts) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(PickerCollector(parts.runtime, "pool"))
    return generate_latest(registry).decode()


def test_a_pool_is_the_mean_of_the_servers_that_were_heard_of(parts: Parts) -> None:
    first, second = parts.core.registry.members
    now_s = time.monotonic()
    scrape(first, running=4.0, waiting=2.0, kv_cache_fraction=0.5, now_s=now_s)
    scrape(second, running=2.0, now_s=now_s)
    shown = page(parts)
    assert 'inference_pool_ready_pods{name="pool"} 2.0' in shown
    assert 'inference_pool_average_running_requests{name="pool"} 3.0' in shown
    assert 'inference_pool_average_queue_size{name="pool"} 1.0' in shown
    assert 'inference_pool_average_kv_cache_utilization{name="pool"} 0.5' in shown
    assert 'llm_d_epp_average_kv_cache_utilization{name="pool"} 0.5' in shown
    assert 'llm_d_epp_ready_endpoints{name="pool"} 2.0' in shown


def test_before_the_first_scrape_means_are_zero(parts: Parts) -> None:
    assert 'inference_pool_average_kv_cache_utilization{name="pool"} 0.0' in page(parts)


def test_requests_in_flight_are_shown_by_model_from_before_the_first_one(parts: Parts) -> None:
    series = f'inference_objective_running_requests{{model_name="{MODEL}"}}'
    assert f"{series} 0.0" in page(parts)
    placement = parts.core.place(a_request(), Phase.REQUEST_HEADERS, time.monotonic())
    assert f"{series} 1.0" in page(parts)
    assert placement.lease is not None
    placement.lease.end(time.monotonic())
    assert f"{series} 0.0" in page(parts)


def test_the_queue_is_shown_by_both_names(holding: tuple[Parts, RequestQueue]) -> None:
    parts, queue = holding
    while not queue.waiting:
        parts.core.place(a_request(), Phase.REQUEST_HEADERS, time.monotonic())
    shown = page(parts)
    assert "llm_d_epp_flow_control_queue_size 1.0" in shown
    assert "inference_extension_flow_control_queue_size 1.0" in shown
