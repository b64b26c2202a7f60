"""`extproc init`: the configuration of sidecar and Envoy for servers that are there, after asking them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from extproc.config.listen_options import HOST, ListenOptions
from extproc.config.options import option, required, takes_options
from extproc.errors import ConfigError

if TYPE_CHECKING:
    from extproc.adapters.vllm.first_contact import FirstContact
    from extproc.commands.init_files import Places
    from extproc.config.stages import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class InitOptions(ListenOptions):
    """The options of `extproc init`; texts are not yet checked."""

    backends: str = required(
        "URLs of running vLLM servers: http[s]://HOST:PORT, with a path if all paths there begin with it.",
        metavar="URL,URL",
    )
    directory: Path = option(
        Path(), "Directory to write to; the sidecar keeps its own files there, too.", "--dir", metavar="DIR"
    )
    api_key_file: Path | None = option(
        None, "File with the API key of the servers (vLLM's --api-key).", metavar="FILE"
    )
    ca_file: Path | None = option(
        None,
        "File with the certificate authorities of servers with https, in PEM form.",
        metavar="FILE",
        show_default="those of the system",
    )
    unchecked: bool = option(False, "Write the files even if servers do not answer.", "--unchecked")
    overwrite: bool = option(False, "Replace files that exist.", "--overwrite")


@takes_options
def init(options: InitOptions) -> None:
    """Write the configuration of sidecar and Envoy for running vLLM.

    Each server is asked what it serves. The files are extproc.yaml and envoy.yaml. Nothing is written if a
    server does not answer as vLLM does, or if one of the files exists.
    """
    from extproc.adapters.vllm.first_contact import first_contacts
    from extproc.commands.init_files import Places, sidecar_text
    from extproc.commands.init_view import contact_lines, next_steps
    from extproc.config.stages import parse_config

    places = Places(options.directory.resolve())
    text = sidecar_text(places, _backends(options), options.grpc_address, f"{HOST}:{options.http_port}")
    config = parse_config(text, "the options")
    _refuse_to_replace(options, places)
    contacts = first_contacts(backend.endpoint for backend in config.backends)
    typer.echo("\n".join(contact_lines(contacts)))
    _refuse_silent_servers(options, contacts)
    _write(options, places, text, config)
    typer.echo(next_steps(places, options.port, {model for each in contacts for model in each.models}))


def _backends(options: InitOptions) -> list[dict[str, Any]]:
    from extproc.config.given_sources import numbered_servers

    key = {} if options.api_key_file is None else {"api_key_file": options.api_key_file.resolve()}
    ca = {} if options.ca_file is None else {"ca_file": options.ca_file.resolve()}
    return [
        {"name": name, "url": url, **key, **(ca if url.startswith("https:") else {})}
        for name, url in numbered_servers(options.backends)
    ]


def _refuse_to_replace(options: InitOptions, places: "Places") -> None:
    found = [path for path in (places.sidecar, places.envoy) if path.exists()]
    if found and not options.overwrite:
        named = " and ".join(map(str, found))
        raise ConfigError(f"already there: {named}. Give another --dir, or --overwrite to replace them")


def _refuse_silent_servers(options: InitOptions, contacts: "Sequence[FirstContact]") -> None:
    faults = sum(contact.fault is not None for contact in contacts)
    if faults and not options.unchecked:
        raise ConfigError(
            f"{faults} of {len(contacts)} servers cannot be used, so nothing was written;"
            " --unchecked writes the files all the same"
        )


def _write(options: InitOptions, places: "Places", text: str, config: "Config") -> None:
    from extproc.adapters.envoy.bootstrap import bootstrap, shipped_bootstrap
    from extproc.adapters.files.atomic_file import write_or_raise

    envoy = bootstrap(
        shipped_bootstrap(),
        listen_host="0.0.0.0",  # as shipped: clients are elsewhere
        listen_port=options.port,
        admin_port=options.admin_port,
        ext_proc=config.server.address,
        cds_path=config.envoy.cds_path,
    )
    try:
        places.cds.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{places.cds.parent}: {error.strerror}") from error
    write_or_raise(places.sidecar, text.encode(), ConfigError)
    write_or_raise(places.envoy, envoy.encode(), ConfigError)
