"""The metrics of finished requests by model that dashboards of the llm-d router read, by both names of each.

The names are those of its docs/metrics.md, canonical and before 2026. Requests are counted when they have
ended, by the model that their server was asked for. Tokens are counted where the server's `usage` was read.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import Counter, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from extproc.exchange.messages import Phase
from extproc.exchange.placement import Placement, Placer
from extproc.outcomes.facts import Sample
from extproc.request.request import Request

MAX_MODELS = 100
"""Guessed: the models beyond share one name. Each is a page of text in every scrape."""
OTHER = "other"
LABELS = ("model_name", "target_model_name")

_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0, 600.0)
_SECONDS_PER_TOKEN = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 2.0)
_BYTES = tuple(8.0**power for power in range(2, 9))
_TOKENS = (1.0, *(8.0**power for power in range(1, 8)))
_DECISION_SECONDS = (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.05)
"""All guessed: few bounds, since each is a line of text for every model."""


def _seconds_per_token(sample: Sample) -> float | None:
    return sample.duration_s / sample.output_tokens if sample.output_tokens else None


@dataclass(frozen=True, slots=True)
class _Measure:
    """One histogram, by both names, and what it takes of a sample; None where that is not known."""

    name: str
    old_name: str
    documentation: str
    bounds: tuple[float, ...]
    of: Callable[[Sample], float | None]


_MEASURES = (
    _Measure(
        "llm_d_epp_request_duration_seconds",
        "inference_objective_request_duration_seconds",
        "From placing a request to the end of its response",
        _SECONDS,
        lambda sample: sample.duration_s,
    ),
    _Measure(
        "llm_d_epp_request_size_bytes",
        "inference_objective_request_sizes",
        "Bodies of requests",
        _BYTES,
        lambda sample: sample.body_bytes,
    ),
    _Measure(
        "llm_d_epp_response_size_bytes",
        "inference_objective_response_sizes",
        "Bodies of responses",
        _BYTES,
        lambda sample: sample.response_bytes,
    ),
    _Measure(
        "llm_d_epp_request_input_tokens",
        "inference_objective_input_tokens",
        "Tokens of the input, as estimated",
        _TOKENS,
        lambda sample: sample.input_tokens,
    ),
    _Measure(
        "llm_d_epp_request_output_tokens",
        "inference_objective_output_tokens",
        "Tokens of the response, by the server's usage",
        _TOKENS,
        lambda sample: sample.output_tokens,
    ),
    _Measure(
        "llm_d_epp_request_cached_tokens",
        "inference_objective_prompt_cached_tokens",
        "Tokens of the input that were in the server's prefix cache, by its usage",
        _TOKENS,
        lambda sample: sample.cached_tokens,
    ),
    _Measure(
        "llm_d_epp_request_ntpot_seconds",
        "inference_objective_normalized_time_per_output_token_seconds",
        "Duration of a request by the tokens of its response",
        _SECONDS_PER_TOKEN,
        _seconds_per_token,
    ),
)
_REQUESTS = ("llm_d_epp_request", "inference_objective_request")
_ERRORS = ("llm_d_epp_request_error", "inference_objective_request_error")
_DECISIONS = (
    "llm_d_epp_scheduler_e2e_duration_seconds",
    "inference_extension_scheduler_e2e_duration_seconds",
)


class ObjectiveMetrics(Collector):
    """Counts what has ended, by model, and how long placing takes."""

    def __init__(self) -> None:
        self._decisions = Histogram(
            _DECISIONS[0], "Time for placing a request", registry=None, buckets=_DECISION_SECONDS
        )
        self._requests = Counter(_REQUESTS[0], "Requests that have ended", LABELS, registry=None)
        self._errors = Counter(
            _ERRORS[0], "Those that have failed, by why", (*LABELS, "error_code"), registry=None
        )
        self._measures = [
            Histogram(each.name, each.documentation, LABELS, registry=None, buckets=each.bounds)
            for each in _MEASURES
        ]
        self._of_model: dict[str, tuple[Counter, list[Histogram]]] = {}

    def timed(self, place: Placer) -> Placer:
        """Return a placer that does the same, and is timed."""

        def placed(request: Request, phase: Phase, now_s: float) -> Placement:
            begun_s = time.perf_counter()
            placement = place(request, phase, now_s)
            self._decisions.observe(time.perf_counter() - begun_s)
            return placement

        return placed

    def ended(self, sample: Sample) -> None:
        """Count a request that has ended."""
        requests, measures = self._series(sample.model)
        requests.inc()
        if sample.failure is not None:
            name = sample.model if sample.model in self._of_model else OTHER
            self._errors.labels(name, name, sample.failure).inc()
        for measure, histogram in zip(_MEASURES, measures, strict=True):
            value = measure.of(sample)
            if value is not None:
                histogram.observe(value)

    def collect(self) -> Iterator[Metric]:
        """Yield everything by both names."""
        yield from _by_names(self._decisions, *_DECISIONS)
        yield from _by_names(self._requests, *_REQUESTS)
        yield from _by_names(self._errors, *_ERRORS)
        for measure, histogram in zip(_MEASURES, self._measures, strict=True):
            yield from _by_names(histogram, measure.name, measure.old_name)

    def _series(self, model: str) -> tuple[Counter, list[Histogram]]:
        """Return the counter and the histograms of a model, which are looked up once."""
        found = self._of_model.get(model)
        if found is None:
            name = model if len(self._of_model) < MAX_MODELS else OTHER
            found = self._requests.labels(name, name), [each.labels(name, name) for each in self._measures]
            if name is not OTHER:
                self._of_model[name] = found
        return found


def _by_names(counted: Counter | Histogram, name: str, old_name: str) -> Iterator[Metric]:
    """Yield a metric, and the same by its old name; when it was created is of no use."""
    for metric in counted.collect():
        samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
        for shown in (name, old_name):
            renamed = Metric(shown, metric.documentation, metric.type)
            renamed.samples = [
                sample._replace(name=shown + sample.name.removeprefix(name)) for sample in samples
            ]
            yield renamed
