"""vLLM's preStop: go on serving until no router sends here any more and nothing is in flight.

The pod has just been marked as terminating. Routers hear of it within a second by the Kubernetes API, within
TTL and interval by DNS: so long nothing is ended. The kubelet ends this at terminationGracePeriodSeconds.
"""

import os
import re
import time
import urllib.request

PORT = int(os.environ.get("PORT", "8000"))
DELAY_S = float(os.environ.get("DELAY_S", "15"))
LOOK_S = float(os.environ.get("LOOK_S", "1"))
QUIET_LOOKS = 3  # the gauges lag by half a second, and read 0 between two batches
GAUGE = re.compile(rb"^vllm:num_requests_(?:running|waiting)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


def in_flight() -> float:
    """The requests that the engine has, running or waiting; none where it is gone."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=5) as response:
            return sum(float(value) for value in GAUGE.findall(response.read()))
    except OSError:
        return 0.0


if __name__ == "__main__":
    time.sleep(DELAY_S)
    quiet = 0
    while quiet < QUIET_LOOKS:
        quiet = quiet + 1 if in_flight() == 0.0 else 0
        time.sleep(LOOK_S)
