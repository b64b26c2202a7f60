"""KEDA's example is about the Deployment and the metrics that are here.

Its CRDs are not checked here, because no package has them.
"""

from typing import Any

import pytest
import yaml
from support.manifests import DEPLOY, built, documents
from support.prometheus_rules import matchers, names
from support.reference import all_metrics

from extproc.config.stages import Config


def scaled_object() -> dict[str, Any]:
    (document,) = built("keda")
    return document


def trigger() -> dict[str, Any]:
    (only,) = scaled_object()["spec"]["triggers"]
    metadata: dict[str, Any] = only["metadata"]
    return metadata


def vllm() -> dict[str, Any]:
    return next(one for one in documents(DEPLOY / "kubernetes/vllm/vllm.yaml") if one["kind"] == "Deployment")


def test_the_deployment_of_vllm_is_scaled_down_to_nothing() -> None:
    spec = scaled_object()["spec"]
    assert spec["scaleTargetRef"] == {"name": vllm()["metadata"]["name"]}
    assert spec["minReplicaCount"] == 0 < spec["maxReplicaCount"]


def test_the_query_reads_a_metric_that_a_sidecar_exports() -> None:
    labels = {sample.name: set(sample.labels) for metric in all_metrics() for sample in metric.samples}
    (name,) = names(trigger()["query"])
    for series, label, _ in matchers(trigger()["query"]):
        assert label in labels[series]
    assert name in labels
    assert float(trigger()["threshold"]) == 1, "a server for each that is wanted"
    assert float(trigger()["activationThreshold"]) < 1


def test_the_model_is_the_one_that_vllm_serves_and_that_requests_wait_for() -> None:
    ((_, _, (model,)),) = matchers(trigger()["query"])
    (container,) = vllm()["spec"]["template"]["spec"]["containers"]
    assert model in " ".join(container.get("command", []) + container.get("args", []))
    comment = (DEPLOY / "keda" / "kustomization.yaml").read_text()
    stage = next(line.lstrip("# ") for line in comment.splitlines() if line.startswith("#   admission:"))
    config = Config.model_validate(
        {"discovery": {"kind": "dns", "host": "vllm", "port": 8000}, **yaml.safe_load(stage)}
    )
    assert config.admission.mode == "queue"
    assert config.admission.queue.models == (model,)


@pytest.mark.parametrize("field", ["pollingInterval", "cooldownPeriod"])
def test_times_are_whole_seconds(field: str) -> None:
    assert scaled_object()["spec"][field] > 0
