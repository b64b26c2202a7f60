"""`extproc sim`: one simulated vLLM server."""

from typing import Annotated

import typer

from extproc.lab.simulated_vllm.vllm_options import SimOptions

_SIM = SimOptions()


def sim(
    *,
    port: Annotated[
        int, typer.Option(help="0 picks a free one.", min=0, max=65535, metavar="PORT")
    ] = _SIM.port,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = _SIM.host,
    model: Annotated[
        list[str] | None, typer.Option(help="What it serves; may be repeated.", show_default=_SIM.models[0])
    ] = None,
    profile: Annotated[
        str, typer.Option(help="The machine that it is: a name, or the file of a calibration.")
    ] = _SIM.profile,
    speed: Annotated[float, typer.Option(help="2 is twice as fast as the profile.")] = _SIM.speed,
    max_num_seqs: Annotated[int, typer.Option(help="Places in the batch.")] = _SIM.max_num_seqs,
    max_model_len: Annotated[
        int, typer.Option(help="Tokens of input and output together.")
    ] = _SIM.max_model_len,
    kv_cache_tokens: Annotated[
        int | None, typer.Option(help="Size of the KV cache.", show_default="the profile's")
    ] = _SIM.kv_cache_tokens,
    max_num_batched_tokens: Annotated[
        int, typer.Option(help="Tokens computed in one iteration.")
    ] = _SIM.max_num_batched_tokens,
    http_limit: Annotated[
        int | None, typer.Option(help="Requests let into the engine; others wait where no gauge counts them.")
    ] = _SIM.http_limit,
    max_num_queued_reqs: Annotated[
        int | None,
        typer.Option(help="Requests that may wait in the engine; further ones are refused as vLLM does it."),
    ] = _SIM.max_num_queued_reqs,
    gauge_delay: Annotated[
        float, typer.Option(help="Seconds by which gauges and counters are late; vLLM's are by 0.3 to 0.5.")
    ] = _SIM.gauge_delay_s,
    fail_fraction: Annotated[
        float, typer.Option(help="Share of requests answered with 500.")
    ] = _SIM.fail_fraction,
    seed: Annotated[int, typer.Option(help="Of the failures.")] = _SIM.seed,
) -> None:
    """Simulate a vLLM server in real time: OpenAI endpoints, /metrics, continuous batching. No GPU."""
    import uvloop  # noqa: PLC0415 - see the package's docstring

    from extproc.lab.simulated_vllm.vllm_server import serve_sim  # noqa: PLC0415 - see the package's docstring

    options = SimOptions(
        host=host,
        port=port,
        models=tuple(model) if model else _SIM.models,
        profile=profile,
        speed=speed,
        max_num_seqs=max_num_seqs,
        max_model_len=max_model_len,
        kv_cache_tokens=kv_cache_tokens,
        max_num_batched_tokens=max_num_batched_tokens,
        http_limit=http_limit,
        max_num_queued_reqs=max_num_queued_reqs,
        gauge_delay_s=gauge_delay,
        fail_fraction=fail_fraction,
        seed=seed,
    )
    uvloop.run(serve_sim(options))
