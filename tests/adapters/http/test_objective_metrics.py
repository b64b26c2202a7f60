from msgspec.structs import replace
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from support.build import a_request
from support.clean_sample import SAMPLE

from extproc.adapters.http.objective_metrics import MAX_MODELS, ObjectiveMetrics
from extproc.exchange.messages import Continue, Phase
from extproc.exchange.placement import Placement


def values(metrics: ObjectiveMetrics, model: str = "llama") -> dict[str, float]:
    """The values of one model by name; of histograms their sums and counts."""
    return {
        sample.name: sample.value
        for family in metrics.collect()
        for sample in family.samples
        if sample.labels.get("target_model_name") == model and not sample.name.endswith("_bucket")
    }


def test_the_page_can_be_read() -> None:
    registry, metrics = CollectorRegistry(auto_describe=False), ObjectiveMetrics()
    registry.register(metrics)
    metrics.ended(SAMPLE)
    page = generate_latest(registry).decode()
    types = {family.name: family.type for family in text_string_to_metric_families(page)}
    assert types["llm_d_epp_request"] == types["inference_objective_request"] == "counter"
    assert types["inference_objective_output_tokens"] == "histogram"


def test_a_request_that_has_ended_is_counted_by_its_model_under_both_names() -> None:
    metrics = ObjectiveMetrics()
    metrics.ended(replace(SAMPLE, output_tokens=31, cached_tokens=256))
    found = values(metrics)
    expected = {
        "request_duration_seconds": ("request_duration_seconds", 3.1),
        "request_size_bytes": ("request_sizes", 2100.0),
        "response_size_bytes": ("response_sizes", 9000.0),
        "request_input_tokens": ("input_tokens", 512.0),
        "request_output_tokens": ("output_tokens", 31.0),
        "request_cached_tokens": ("prompt_cached_tokens", 256.0),
        "request_ntpot_seconds": ("normalized_time_per_output_token_seconds", 0.1),
    }
    for name, (old_name, value) in expected.items():
        assert found.pop(f"llm_d_epp_{name}_sum") == found.pop(f"inference_objective_{old_name}_sum") == value
        assert found.pop(f"llm_d_epp_{name}_count") == found.pop(f"inference_objective_{old_name}_count") == 1
    assert found == {"llm_d_epp_request_total": 1, "inference_objective_request_total": 1}


def test_a_failure_is_counted_by_why_and_what_is_not_known_is_not_counted() -> None:
    metrics = ObjectiveMetrics()
    metrics.ended(replace(SAMPLE, failure="server_error", status=500))
    found = values(metrics)
    assert found["llm_d_epp_request_error_total"] == found["inference_objective_request_error_total"] == 1
    for name in ("output_tokens", "prompt_cached_tokens", "normalized_time_per_output_token_seconds"):
        assert found[f"inference_objective_{name}_count"] == 0


def test_models_beyond_the_bound_share_one_name() -> None:
    metrics = ObjectiveMetrics()
    for number in range(MAX_MODELS + 3):
        metrics.ended(replace(SAMPLE, model=f"model-{number}", failure="reset"))
    assert values(metrics, "other")["inference_objective_request_total"] == 3
    assert values(metrics, "other")["llm_d_epp_request_error_total"] == 3
    assert values(metrics, f"model-{MAX_MODELS}") == {}


def test_decisions_are_timed() -> None:
    metrics = ObjectiveMetrics()
    placement = Placement(Continue(Phase.REQUEST_HEADERS))
    timed = metrics.timed(lambda request, phase, now_s: placement)
    assert timed(a_request(), Phase.REQUEST_HEADERS, 1.0) is placement
    counted = {
        sample.name: sample.value
        for metric in metrics.collect()
        for sample in metric.samples
        if sample.name.endswith("e2e_duration_seconds_count")
    }
    assert counted == {
        "llm_d_epp_scheduler_e2e_duration_seconds_count": 1,
        "inference_extension_scheduler_e2e_duration_seconds_count": 1,
    }
