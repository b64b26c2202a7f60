"""The options of `extproc up`."""

from dataclasses import dataclass
from pathlib import Path

from extproc.config.listen_options import ListenOptions
from extproc.config.options import option


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions(ListenOptions):
    """Ports, backends and files of a local stack."""

    backends: str = option(
        "", "URLs of running vLLM servers; without them, three servers are simulated.", metavar="URL,URL"
    )
    sim_port: int = option(
        8101,
        "Port of the first simulated server; the others have the next ports.",
        min=1,
        max=65533,
        metavar="PORT",
    )
    policy_path: Path | None = option(
        None,
        "Configuration file whose settings are used, except addresses, Envoy's cluster file and backends.",
        "--config",
        metavar="FILE",
    )
    model_path: Path | None = option(
        None,
        "Model file of layer 2.",
        "--model-file",
        metavar="FILE",
        show_default="models/zone2_predictor.json",
    )
    samples_path: Path | None = option(
        None, "File to record outcomes in.", "--samples", metavar="FILE", show_default="in the run directory"
    )
    run_dir: Path | None = option(
        None, "Directory for logs, configuration and samples.", metavar="DIR", show_default="temporary"
    )
    learn: bool = option(
        False,
        "Run a trainer, too. Without --model-file it starts without a model, in the run directory.",
        "--learn",
    )
