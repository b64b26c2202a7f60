"""Docstrings and help texts are plain sentences, which an engineer reads once.

A docstring of a function begins with a verb, one of `VERBS`: a new verb is added there. A property is read as
a value, so that its docstring may begin with a noun.
"""

import ast
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from support.reference import ROOT
from typer.testing import CliRunner

from extproc.cli import app

_WORDS = """
Add Admit Advance Analyze Answer Append Apply Ask Begin Book Cancel Change Check Choose Close
Collect Commit Compare Complete Copy Correlate Count Create Cut Decide Decode Describe Do Drain Draw
Drive Drop Encode End Estimate Evaluate Fail Fill Find Finish Fit Fold Follow Forget Free Give Go
Greet Grow Guess Half-close Handle Have Hold Ignore Insert Iterate Join Judge Keep Learn Leave Let
Listen Load Lock Log Look Lose Lower Make Merge Move Note Open Pause Place Plan Prepare Print
Propose Publish Put Queue Raise Read Receive Record Refuse Replace Replay Report Require Reserve
Restart Return Run Say Scrape Select Send Serve Set Share Show Simulate Size Sleep Sort Spare Spend
Split Start Supervise Take Train Use Wait Watch Widen Write Yield
"""
VERBS = frozenset(_WORDS.split())
SOURCES = [path for path in sorted((ROOT / "extproc").rglob("*.py")) if "_pb2" not in path.name]
PUZZLES = re.compile(r"(What|Who|Whoever|Of)\b(?!.*\?$)")
"""Beginnings that hide the subject of a sentence; a question may begin so."""
NO_MACHINE = re.compile(r"\b(nobody|somebody|everybody|whoever)\b", re.IGNORECASE)
ODD_WORDS = re.compile(r"\b(foretold|foretells?|heed(s|ed|ing)?|so many(?! more)|so long)\b", re.IGNORECASE)
"""Words of a translation: predicted, has an effect, this many, for this time."""
ODD_NAME = re.compile(
    r"(?:^|_)(?:foret(?:old|ell)\w*|(?:un)?heed\w*|(?:no|some|every)bod(?:y|ys)|who(?:m|ever)?|(?:un)?told)(?:_|$)"
)
"""Words that a name must not have; in snake case."""
CHOICES = {"--log-level", "--admission"}
"""Options that list their values."""
STANDS_ALONE = re.compile(r"[A-Z].*\.$", re.DOTALL)
CONTINUATION = re.compile(
    r"(And|Or|But|Of|That|Those|Some|Which|How|By|Here|There|Instead|Likewise|More|Less)\b"
)
"""Beginnings of a help text that needs the one before it."""


def docstrings(tree: ast.AST) -> Iterator[str]:
    """Every docstring, also those of attributes."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield text


def comments(path: Path) -> Iterator[str]:
    """Every comment, without the sign."""
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                yield token.string.lstrip("# ")


def sentences(text: str) -> list[str]:
    return [" ".join(sentence.split()) for sentence in re.split(r"(?<=[.:!?])\s+|\n\n", text)]


def is_property(node: ast.AST) -> bool:
    return any("property" in ast.unparse(each) for each in getattr(node, "decorator_list", []))


def commands() -> Iterator[tuple[str, Any]]:
    """Every command, groups included, with its full name."""

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield name, command
        for child, each in getattr(command, "commands", {}).items():
            yield from walk(f"{name} {child}", each)

    yield from walk("extproc", typer.main.get_command(app))


def options() -> Iterator[tuple[str, Any]]:
    """Every option, with the name of its command; those that are without effect are left out."""
    for name, command in commands():
        yield from ((name, each) for each in command.params if not each.hidden)


def help_texts() -> Iterator[tuple[str, str]]:
    """Every help text of the command line, with the name of its command or option."""
    for name, command in commands():
        yield name, (command.help or "").split("\n\n")[0]
    for name, option in options():
        yield f"{name} {option.opts[0]}", option.help or ""


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in SOURCES}


def test_a_functions_docstring_begins_with_a_verb(trees: dict[Path, ast.Module]) -> None:
    functions = [
        (f"{path.relative_to(ROOT)}: {node.name}", text.split()[0].strip(".,:;"))
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_property(node)
        if (text := ast.get_docstring(node))
    ]
    assert len(functions) > 1000
    assert [(name, word) for name, word in functions if word not in VERBS] == []


def test_no_sentence_of_a_docstring_hides_its_subject(trees: dict[Path, ast.Module]) -> None:
    found = [
        f"{path.relative_to(ROOT)}: {sentence}"
        for path, tree in trees.items()
        for text in docstrings(tree)
        for sentence in sentences(text)
        if PUZZLES.match(sentence) or NO_MACHINE.search(sentence)
    ]
    assert found == []


def test_docstrings_and_comments_use_the_words_of_the_field(trees: dict[Path, ast.Module]) -> None:
    texts = [
        (path, sentence)
        for path, tree in trees.items()
        for text in (*docstrings(tree), *comments(path))
        for sentence in sentences(text)
    ]
    assert len(texts) > 5000
    odd = [(path.name, text) for path, text in texts if ODD_WORDS.search(text) or NO_MACHINE.search(text)]
    assert odd == []


def defined_names(tree: ast.AST) -> Iterator[str]:
    """Every name that a module defines."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case (
                ast.arg(arg=name)
                | ast.Name(id=name, ctx=ast.Store())
                | ast.Attribute(attr=name, ctx=ast.Store())
            ):
                yield name


def test_names_use_the_words_of_the_field(trees: dict[Path, ast.Module]) -> None:
    found = {name for tree in trees.values() for name in defined_names(tree)}
    assert len(found) > 5000
    snake_case = [re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower() for name in found]
    assert [name for name in snake_case if ODD_NAME.search(name)] == []


def test_a_help_text_is_a_sentence_of_its_own() -> None:
    texts = list(help_texts())
    assert len(texts) > 100
    found = [
        (name, text)
        for name, text in texts
        if not STANDS_ALONE.match(text) or CONTINUATION.match(text) or len(text.split()) < 4
    ]
    assert found == []


def test_the_list_of_commands_says_what_each_does_in_one_line() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).output
    assert [line for line in shown.splitlines() if line.endswith("...") and "Usage" not in line] == []


def test_an_option_shows_what_kind_of_value_it_takes() -> None:
    valued = [(name, each) for name, each in options() if not each.is_flag and each.opts[0] not in CHOICES]
    assert len(valued) > 80
    assert [f"{name} {each.opts[0]}" for name, each in valued if not (each.metavar or "").isupper()] == []


def test_an_option_has_one_name_and_a_name_one_meaning_in_all_commands() -> None:
    kinds, names = defaultdict(set), defaultdict(set)
    for _, each in options():
        kinds[each.opts[0]].add("flag" if each.is_flag else each.metavar)
        names[each.help].add(each.opts[0])
    assert {name: found for name, found in kinds.items() if len(found) > 1} == {}
    assert {text: found for text, found in names.items() if len(found) > 1} == {}
