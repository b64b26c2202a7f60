"""Path prefixes of backends: Envoy puts them before the path of a request when it has chosen the server.

That is the last thing that is done to a request, for each attempt anew: by then the routes have seen the path
as the client has sent it, and a second attempt on another server gets the prefix of that one. The prefix is
in the metadata of the endpoint, so that a cluster may hold servers with several. Envoy's filter for headers
may not write a path, so it hands the prefix to some lines of Lua. A client can set neither: the header is
removed before it is set, and the path of the client is kept in the metadata of the request.
"""

from collections.abc import Iterable
from typing import Any

from extproc.adapters.envoy.ext_proc_wire import METADATA_NAMESPACE
from extproc.fleet.endpoint import Endpoint

PREFIX_KEY = "path_prefix"
_HEADER = "x-extproc-path-prefix"
_TYPES = "type.googleapis.com/envoy.extensions.filters.http"
_LUA = f"""
function envoy_on_request(handle)
  local headers, known = handle:headers(), handle:streamInfo():dynamicMetadata()
  local first = known:get("{METADATA_NAMESPACE}.path")
  local path = first and first["path"] or headers:get(":path")
  known:set("{METADATA_NAMESPACE}.path", "path", path)
  headers:replace(":path", (headers:get("{_HEADER}") or "") .. path)
  headers:remove("{_HEADER}")
end
"""


def prefix_filters(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """Return the filters of a cluster with these endpoints; none where no path is to be changed."""
    if not any(endpoint.path_prefix for endpoint in endpoints):
        return {}
    value = f"%UPSTREAM_METADATA({METADATA_NAMESPACE}:{PREFIX_KEY})%"
    mutations: list[Any] = [
        {"remove": _HEADER},
        {
            "append": {
                "header": {"key": _HEADER, "value": value},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        },
    ]
    return {
        "http_filters": [
            {
                "name": "path_prefix_header",
                "typed_config": {
                    "@type": f"{_TYPES}.header_mutation.v3.HeaderMutation",
                    "mutations": {"request_mutations": mutations},
                },
            },
            {
                "name": "path_prefix",
                "typed_config": {
                    "@type": f"{_TYPES}.lua.v3.Lua",
                    "default_source_code": {"inline_string": _LUA},
                },
            },
            {
                "name": "envoy.filters.http.upstream_codec",
                "typed_config": {"@type": f"{_TYPES}.upstream_codec.v3.UpstreamCodec"},
            },
        ]
    }
