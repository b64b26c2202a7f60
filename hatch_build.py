"""Generates the gRPC message stubs from protos/ whenever the package is built, editable or not."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class StubsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs protoc (from grpcio-tools) over protos/*.proto into extproc/adapters/protos/."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate before the files of the wheel are collected; any protoc error fails the build."""
        from grpc_tools import protoc  # noqa: PLC0415 - only there while building

        root = Path(self.root)
        sources, target = root / "protos", root / "extproc" / "adapters" / "protos"
        well_known = Path(protoc.__file__).parent / "_proto"
        arguments = [
            "protoc",
            f"-I{sources}",
            f"-I{well_known}",
            f"--python_out={target}",
            f"--pyi_out={target}",
        ]
        status = protoc.main([*arguments, *sorted(str(path) for path in sources.glob("*.proto"))])
        if status:
            raise RuntimeError(f"protoc failed with status {status}")
