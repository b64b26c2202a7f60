"""`extproc sim`: one simulated vLLM server; its options are those of `SimOptions`."""

from extproc.config.options import takes_options
from extproc.lab.simulated_vllm.vllm_options import SimOptions


@takes_options
def sim(options: SimOptions) -> None:
    """Simulate a vLLM server in real time, without a GPU.

    It has OpenAI endpoints, /metrics and continuous batching.
    """
    import uvloop

    from extproc.lab.simulated_vllm.vllm_server import serve_sim

    uvloop.run(serve_sim(options))
