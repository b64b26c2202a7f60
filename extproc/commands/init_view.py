"""The output of `extproc init`: a line for each server, and the commands that come next."""

import shlex
from collections.abc import Iterable, Iterator, Sequence

from extproc.adapters.vllm.asked_server import ScrapeResult
from extproc.adapters.vllm.first_contact import FirstContact
from extproc.commands.init_files import Places
from extproc.errors import StackError
from extproc.fleet.endpoint import Endpoint
from extproc.lab.local_stack.child_process import typed_command
from extproc.lab.local_stack.stack_files import find_envoy
from extproc.lab.local_stack.stack_view import curl_line

HINTS = {
    ScrapeResult.REFUSED: "Is vLLM running there, on this port?",
    ScrapeResult.HUNG: "Is there a firewall in between?",
    ScrapeResult.UNAUTHORIZED: "It asks for an API key: --api-key-file FILE.",
    ScrapeResult.BAD_STATUS: "Is this the address of a vLLM server?",
    ScrapeResult.INVALID: "Is this the address of a vLLM server?",
}
CERTIFICATE_HINT = "Its certificate is checked against --ca-file FILE."
MOST_MODELS = 4


def contact_lines(contacts: Sequence[FirstContact]) -> Iterator[str]:
    """Say of each server what it serves, or why it cannot be used."""
    for contact in contacts:
        yield f"{contact.endpoint.name}  {_url(contact.endpoint)}  {_finding(contact)}"


def next_steps(places: Places, port: int, models: Iterable[str]) -> str:
    """Return the commands that start sidecar and Envoy, and a request."""
    serve = shlex.join((typed_command(), "serve", "--config", str(places.sidecar)))
    envoy, note = _envoy()
    return (
        f"\nWritten: {places.sidecar} and {places.envoy}\n"
        f"\nStart both, each in its own terminal, the sidecar first:\n\n"
        f"  {serve}\n  {shlex.join((envoy, '-c', str(places.envoy)))}\n"
        f"{note}\nThen send a request:\n\n  {curl_line(port, models)}"
    )


def _finding(contact: FirstContact) -> str:
    fault = contact.fault
    if fault is not None:
        detail = fault.detail or fault.result.replace("_", " ")
        hint = CERTIFICATE_HINT if "certificate" in detail.lower() else HINTS.get(fault.result, "")
        return f"CANNOT BE USED: {detail}. {hint}".rstrip()
    named = ", ".join(contact.models[:MOST_MODELS])
    more = f" and {len(contact.models) - MOST_MODELS} more" if len(contact.models) > MOST_MODELS else ""
    note = (
        ""
        if contact.reports_load
        else "; its metrics are unknown: only requests sent from here count as load"
    )
    return f"serves {named}{more}{note}"


def _envoy() -> tuple[str, str]:
    try:
        return find_envoy(), ""
    except StackError as error:
        return "envoy", f"\n{error}.\n"


def _url(endpoint: Endpoint) -> str:
    scheme = "http" if endpoint.tls is None else "https"
    return f"{scheme}://{endpoint.address}{endpoint.path_prefix}"
