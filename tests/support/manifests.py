"""The manifests under deploy/: where they are, and what they come to when they are built."""

import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
GATEWAYS = ("istio", "agentgateway", "envoy-ai-gateway", "nginx", "gke")
"""Those of the Gateway API; each has a directory, and is a provider of the chart."""

PICKERS = tuple(f"gateway-api/{gateway}" for gateway in (*GATEWAYS, "standalone"))
VARIANTS = ("kubernetes/sidecar", "kubernetes/service", "kubernetes/vllm", "envoy-gateway", "keda", *PICKERS)
CHART = DEPLOY / "gateway-api" / "chart"
WORKLOADS = ("Deployment",)


def kustomizations() -> Iterator[Path]:
    """Every directory that is a kustomization."""
    for path in sorted((*DEPLOY.rglob("kustomization.yaml"), ROOT / "envoy" / "kustomization.yaml")):
        yield path.parent


def documents(path: Path) -> list[dict[str, Any]]:
    """The YAML documents of one file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


def is_grpc(header: dict[str, Any]) -> bool:
    """Whether it matches a path of gRPC, whose services have dots: these are open in envoy.yaml alone."""
    return "[.]" in header["string_match"]["safe_regex"]["regex"]


@cache
def built(variant: str) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send; skips the test where there is neither kubectl nor kustomize."""
    directory = str(DEPLOY / variant)
    if shutil.which("kubectl"):
        # Some kinds of kubectl ask the cluster for its version first. Here is none, which is seen at once.
        command = ["kubectl", "--server=http://127.0.0.1:1", "kustomize", directory]
    elif shutil.which("kustomize"):
        command = ["kustomize", "build", directory]
    else:
        pytest.skip("neither kubectl nor kustomize is installed")
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return [document for document in yaml.safe_load_all(answer.stdout) if document is not None]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Render the chart as the release `vllm` in the namespace `llm`; skips the test without helm."""
    if not shutil.which("helm"):
        pytest.skip("helm is not installed: python .ci/helm.py /usr/local/bin/helm")
    command = ["helm", "template", "vllm", str(CHART), "--namespace", "llm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def of_kind(variant: str, *kinds: str) -> list[dict[str, Any]]:
    """The objects of these kinds."""
    return [one for one in built(variant) if one["kind"] in kinds]


def pod_specs(variant: str) -> dict[str, dict[str, Any]]:
    """The pod's specification of every workload, by name."""
    return {one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in of_kind(variant, *WORKLOADS)}


def containers(variant: str) -> dict[str, dict[str, Any]]:
    """All containers, by workload and name."""
    return {
        f"{workload}/{container['name']}": container
        for workload, spec in pod_specs(variant).items()
        for container in (*spec.get("initContainers", ()), *spec["containers"])
    }
