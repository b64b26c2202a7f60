"""`extproc profile` as a process, on simulated servers and in front of a stack."""

import asyncio
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.patience import PATIENCE_S, wait_until
from support.ports import free_port
from support.process_stack import LocalStack, StartSim, running
from support.recorded_traces import MOONCAKE, written

from extproc.adapters.files.sample_reading import read_samples

COMMAND = (sys.executable, "-m", "extproc", "profile")
TINY = ("--profile", "cpu-tiny", "--max-num-seqs", "4", "--speed", "6")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "profile.db"


def rows(store: Path) -> int:
    """The samples so far: a reader takes in what was written beside the store."""
    return len(read_samples(store, ["at_s"])["at_s"]) if store.exists() else 0


def profile(*options: object, status: int = 0) -> str:
    """Run it to its end; what it printed, errors included."""
    done = subprocess.run(
        [*COMMAND, *map(str, options)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def starting(*options: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*COMMAND, *map(str, options)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def samples_and_requests(output: str) -> tuple[int, int]:
    match = re.search(r"(\d+) samples of (\d+) requests", output)
    assert match, output
    return int(match[1]), int(match[2])


def test_two_servers_get_twin_requests_and_every_one_becomes_a_sample(
    start_sim: StartSim, store: Path
) -> None:
    urls = ",".join(start_sim(*TINY, "--speed", speed)[0] for speed in ("6", "3"))
    lengths = ("--prompt", "mix:16:256:0.5", "--output", "fixed:4")
    output = profile(
        "--backends", urls, "--samples", store, "--rates", "100,5", "--step", 1.5, "--passes", 1, *lengths
    )
    samples: dict[str, Any] = read_samples(store)
    assert samples_and_requests(output) == (156, 156), "7.5 and 150 requests, in pairs"
    assert len(samples["at_s"]) == 156
    assert samples["is_clean"].all()
    assert set(samples["output_tokens"]) == {4.0}
    assert set(samples["input_tokens"]) == {16.0, 256.0}
    for at_s in np.unique(samples["at_s"]):
        twins = samples["at_s"] == at_s
        assert sorted(samples["backend"][twins]) == ["vllm-1", "vllm-2"]
        assert len(set(samples["input_tokens"][twins])) == 1
    assert (samples["load"] >= samples["own"]).all()
    assert 8 < samples["load"].max() <= 78, "nobody else is there, so no more than it was sent"
    of_slow = samples["backend"] == "vllm-2"
    crowded = of_slow & (samples["load"] > 8)
    assert (samples["num_running"][crowded] == 4).any(), "the server's limit has been learned"
    assert samples["scrape_age_s"].min() >= 0
    assert set(samples["layer"]) == {"profile"}


def test_a_pass_ends_where_too_many_are_in_flight_and_a_store_is_appended_to(
    start_sim: StartSim, store: Path
) -> None:
    url, _ = start_sim(*TINY, "--speed", "2")
    for passes in (1, 2):
        output = profile(
            *("--backends", url, "--samples", store, "--rates", "4,80,90", "--step", 0.5),
            *("--prompt", "fixed:64", "--output", "fixed:16", "--max-in-flight", 6, "--passes", passes),
        )
        assert len(re.findall(r"^\d of \d, 80/s: .* not sent$", output, re.MULTILINE)) == passes
        assert "90/s" not in output
    samples = read_samples(store)
    assert samples["own"].max() == 5
    assert set(samples["backend"]) == {"vllm-1"}
    assert len(samples["at_s"]) == len(np.unique(samples["at_s"])) <= 3 * 42


def test_ctrl_c_keeps_what_was_measured(start_sim: StartSim, store: Path) -> None:
    url, _ = start_sim(*TINY, "--speed", "3")
    process = starting(
        *("--backends", url, "--samples", store, "--rates", "30", "--step", 60),
        *("--prompt", "fixed:64", "--output", "fixed:64"),
    )
    wait_until(lambda: rows(store) > 10)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, output
    samples = read_samples(store)
    recorded, sent = samples_and_requests(output)
    assert recorded == len(samples["at_s"]) > 10
    assert sent - recorded <= 1, "at most the one that was just about to be sent"
    assert set(samples["failure"]) == {None, "client_left"}
    assert (samples["is_clean"] == (samples["failure"] == None)).all()  # noqa: E711 - element by element


def test_ctrl_c_before_anything_was_measured_has_a_status_of_its_own(
    start_sim: StartSim, store: Path
) -> None:
    url, _ = start_sim(*TINY)
    process = starting("--backends", url, "--samples", store, "--rates", "0.001", "--step", 3600)
    wait_until(store.exists)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, output
    assert samples_and_requests(output) == (0, 0)


def test_a_server_that_dies_ends_the_run_and_keeps_the_samples(start_sim: StartSim, store: Path) -> None:
    url, sim = start_sim(*TINY, "--speed", "60")  # nearly nobody in flight when it dies
    process = starting("--backends", url, "--samples", store, "--rates", "50", "--step", 60)
    wait_until(lambda: rows(store) > 10)
    sim.stop(0.0)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1, output
    assert "50 requests in a row have failed, the last one by: connect" in output
    failures = read_samples(store)["failure"]
    assert samples_and_requests(output)[0] == len(failures) >= 60
    assert set(failures) >= {None, "connect"}


def test_a_server_that_does_not_answer_is_an_error_before_any_request_is_sent(
    start_sim: StartSim, store: Path
) -> None:
    url, dead = start_sim(*TINY)[0], f"http://127.0.0.1:{free_port()}"
    output = profile("--backends", f"{url},{dead}", "--samples", store, status=1)
    assert f"{dead}/v1/models cannot be read" in output
    assert not store.exists()


def test_in_front_of_a_stack_samples_have_what_the_sidecar_knew(stack: LocalStack, store: Path) -> None:
    for name in ("east", "west"):
        stack.start_sim(name, *TINY, "--speed", "2")
    stack.stages["guard"] = {"max_active": 8, "resume_active": 6}

    async def scenario() -> str:
        async with running(stack):
            return await asyncio.to_thread(
                profile,
                *("--envoy", stack.envoy.url, "--sidecar", f"http://127.0.0.1:{stack.http_port}"),
                *("--samples", store, "--rates", "6,120", "--step", 1.5, "--passes", 1),
                *("--prompt", "fixed:100", "--output", "fixed:16"),
            )

    output = asyncio.run(scenario())
    refused = re.search(r", (\d+) refused", output)
    assert refused, output
    samples = read_samples(store)
    recorded, sent = samples_and_requests(output)
    assert sent == 9 + 180
    assert recorded == len(samples["at_s"])
    assert 9 < recorded < sent, "a refusal is no sample"
    assert samples["is_clean"].all()
    assert set(samples["backend"]) == {"east", "west"}
    assert set(samples["layer"]) == {"least_load"}
    assert set(samples["input_tokens"]) == {100.0}
    assert 3 < samples["own"].max() <= 8
    assert samples["scrape_age_s"].min() >= 0


def test_a_trace_is_sent_with_its_shared_beginnings_and_what_is_cut_is_counted(
    start_sim: StartSim, store: Path, tmp_path: Path
) -> None:
    url, _ = start_sim(*TINY, "--speed", "50", "--max-model-len", "1500", "--kv-cache-tokens", "8192")
    name = written(tmp_path / "mooncake.jsonl", MOONCAKE)
    options = ("--backends", url, "--samples", store, "--rates", "4", "--step", 2, "--passes", 1)
    output = profile(*options, "--trace", name)
    samples: dict[str, Any] = read_samples(store)
    assert samples["is_clean"].all()
    in_order = np.argsort(samples["at_s"], kind="stable")
    assert samples["input_tokens"][in_order][:4].tolist() == [1300, 1024, 1491, 500]
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        hits = re.search(r"^vllm:prefix_cache_hits_total\{.*\} (\S+)$", answer.read().decode(), re.MULTILINE)
    assert hits is not None
    assert float(hits[1]) == 1008 + 1024 + 1008, "of four requests, and of two when it begins again"
    assert re.search(
        r"^\d request\(s\), longer than the context of 1,500 tokens, were cut to it", output, re.MULTILINE
    )
    refused = profile(*options, "--trace", name, "--prompt", "fixed:9", status=1)
    assert "--trace has lengths of its own" in refused
