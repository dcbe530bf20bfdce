"""The documentation: its code runs, its commands parse and run, its keys are those of the documents, its links lead."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import sys
import types
import typing
from pathlib import Path
from typing import Any

import pytest
import typer

import goniometer
from goniometer.cli import main
from goniometer.cli.app import app
from goniometer.planning import planner as plan_module
from goniometer.probing import result as result_module
from goniometer.probing.result import ProbeResult
from goniometer.rotations import PAPER_GRIDS, rule

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = sorted(DOCS.glob("*.md"))
LANGUAGES = ("bash", "python", "text", "math")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of the fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def rows(text: str) -> list[list[str]]:
    """The cells of the tables in a text, without headings."""
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line] for line in lines]
    return [
        row
        for row, following in zip(cells, [*cells[1:], None], strict=True)
        if set(row[0]) != {"-"} and not (following and set(following[0]) == {"-"})
    ]


def sections(page: str) -> dict[str, str]:
    """The text under each heading of the third level."""
    parts = re.split(r"^#{2,3} (.+)$", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


# Commands and code


def commands(block: str) -> list[tuple[list[str], int]]:
    """Arguments and promised exit code of each goniometer line."""
    found = []
    for line in block.splitlines():
        code = re.search(r"# exit code (\d+)$", line)
        words = shlex.split(line, comments=True)
        if words:
            assert words[0] == "goniometer", line
            found.append((words[1:], int(code[1]) if code else 0))
    return found


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["goniometer", *arguments])
    try:
        main()
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0


def promises(block: str) -> list[str]:
    """What the comments behind the print statements say is printed; nothing where there is no comment."""
    prints = [line for line in block.splitlines() if line.startswith("print(")]
    return [line.rpartition(")  # ")[2] if ")  # " in line else "" for line in prints]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def default_probe() -> ProbeResult:
    return goniometer.probe("pet-water", "molecule")


def slow(arguments: list[str]) -> bool:
    return bool({"box", "ice"} & set(arguments[1:]))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_shows_runs_from_top_to_bottom(
    page: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace = {"__name__": "documentation"}
    for language, block in blocks(page):
        if language == "bash":
            for arguments, code in commands(block):
                if slow(arguments):
                    continue
                ended = run(arguments, monkeypatch)
                said = capsys.readouterr().err
                assert ended == code, f"goniometer {shlex.join(arguments)} ended with {ended}: {said}"
                for option in {"--report", "--json"} & set(arguments):
                    assert (workplace / arguments[arguments.index(option) + 1]).stat().st_size > 0
        if language == "python":
            name = re.match(r"# (\w+\.py)\n", block)
            if name:
                (workplace / name[1]).write_text(block, encoding="utf-8")
            exec(compile(block, page.name, "exec"), namespace)
            printed = capsys.readouterr().out.splitlines()
            promised = promises(block)
            assert len(printed) == len(promised), block
            for line, promise in zip(printed, promised, strict=True):
                assert promise in ("", line), f"{page.name}: {line} was printed, not {promise}"
    for module in ("springs", "goniometer_factory_springs", "goniometer_factory_calculator"):
        sys.modules.pop(module, None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_parses(page: Path) -> None:
    group = typer.main.get_command(app)
    for language, block in blocks(page):
        assert language in LANGUAGES, f"{page.name}: a block of '{language}'"
        for arguments, _ in commands(block) if language == "bash" else []:
            name, *rest = arguments
            group.commands[name].make_context(name, rest)


def test_a_wrong_command_does_not_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["rules", "--largset", "5"], monkeypatch) == 2


def test_every_option_that_is_mentioned_exists() -> None:
    group = typer.main.get_command(app)
    inner = [each for command in group.commands.values() for each in getattr(command, "commands", {}).values()]
    known = {
        text
        for command in (*group.commands.values(), *inner)
        for parameter in command.params
        for text in (*parameter.opts, *parameter.secondary_opts)
    }
    # Results pages name the options of scripts as well.
    scripts = (DOCS.parent / "scripts").glob("*.py")
    known |= {option for each in scripts for option in re.findall(r"--[a-z][a-z-]*", each.read_text(encoding="utf-8"))}
    for page in PAGES:
        for span in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")):
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", span):
                assert option in known, f"{page.name}: {option}"


# Keys


def described(kind: Any) -> tuple[set[str], bool]:
    """The classes that an annotation names, and whether it allows None."""
    parts = typing.get_args(kind) if isinstance(kind, types.UnionType) or typing.get_args(kind) else (kind,)
    named = {part.__name__ for part in parts if dataclasses.is_dataclass(part)}
    nullable = isinstance(kind, types.UnionType) and type(None) in parts
    for part in parts:
        if typing.get_args(part) and part is not kind:
            named |= described(part)[0]
    return named, nullable


def documented() -> dict[str, type]:
    found = {}
    for module in (result_module, plan_module):
        for value in vars(module).values():
            if isinstance(value, type) and dataclasses.is_dataclass(value) and value.__module__ == module.__name__:
                found[value.__name__] = value
    return found


def test_there_is_a_table_for_every_kind_of_object() -> None:
    headings = [name for name in sections("json.md") if not name.startswith("`")]
    assert sorted(headings) == sorted(documented())


@pytest.mark.parametrize("kind", documented().values(), ids=lambda kind: kind.__name__)
def test_keys_are_those_of_the_dataclass_in_its_order(kind: type) -> None:
    table = rows(sections("json.md")[kind.__name__])
    assert [row[0] for row in table] == [f"`{field.name}`" for field in dataclasses.fields(kind)]
    annotations = typing.get_type_hints(kind)
    for row in table:
        assert len(row) == 4, row
        named, nullable = described(annotations[row[0].strip("`")])
        assert named == set(re.findall(r"\[\*\*(\w+)\*\*\]", row[1])), row
        assert nullable == ("or null" in row[1]), row


JSON_TYPES = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "true or false": bool,
    "object": dict,
    "list": list,
    "numbers": list,
}


def check_types(kind: str, value: dict[str, Any]) -> int:
    """Hold an object of a document against its table, and all that is in it; how many objects were seen."""
    seen = 1
    table = {row[0].strip("`"): row[1] for row in rows(sections("json.md")[kind])}
    assert list(value) == list(table)
    for key, text in table.items():
        if value[key] is None:
            assert "or null" in text, (kind, key)
            continue
        link = re.search(r"\[\*\*(\w+)\*\*\]", text)
        if link:
            for each in value[key] if text.startswith("list of") else [value[key]]:
                seen += check_types(link[1], each)
            continue
        start = next(name for name in JSON_TYPES if re.match(rf"{name}\b", text))
        assert isinstance(value[key], JSON_TYPES[start]), (kind, key)
    return seen


def test_documents_are_what_the_tables_say(default_probe: ProbeResult) -> None:
    probe = json.loads(default_probe.to_json())
    assert check_types("ProbeResult", probe) > 100
    structure = probe["structures"][0]
    assert (len(structure["sphere"]["latitude"]), len(structure["sphere"]["longitude"])) == (37, 73)
    assert len(structure["orbit_energies"]) == probe["rule"]["n"]
    assert len(structure["energy"]["spectrum"]["minus"]) == probe["lmax"] + 1
    plan = goniometer.plan(default_probe, force="1meV/Å", potential="pet-water").to_dict()
    assert check_types("RulePlan", json.loads(json.dumps(plan, allow_nan=False))) == 2


def test_a_document_with_another_key_is_noticed(default_probe: ProbeResult) -> None:
    probe = json.loads(default_probe.to_json())
    probe["structures"][0]["energy"]["rmsd"] = 1.0
    with pytest.raises(AssertionError):
        check_types("ProbeResult", probe)


# Facts that the pages state


def test_the_defaults_of_the_probe_are_as_stated(default_probe: ProbeResult) -> None:
    text, result = (DOCS / "probe.md").read_text(encoding="utf-8"), default_probe
    assert f"{result.structures[0].evaluations} of a single molecule" in text
    assert f"`{result.rule.name}` with inversion: {result.rule.n} nodes" in text
    assert result.lmax == 4
    assert result.rule.seed == 0


def test_the_numbers_of_the_gauss_rules_are_as_stated() -> None:
    table = rows(sections("rules.md")["The Gauss rules"])
    assert len(table) == 14
    for name, number, _, product in table:
        made = rule(name.strip("`"))
        assert (len(made), len(rule(f"lebedev:{made.degree}"))) == (int(number), int(product)), name


def test_what_the_groups_remove_is_as_stated() -> None:
    table = rows(sections("rules.md")["Families"])
    groups = [row for row in table if len(row) == 3]
    assert len(groups) == 3
    for name, also, first in groups:
        made = rule(name.strip("`"))
        even, _ = made.residuals(20)
        removed = [ell for ell in range(made.degree + 1, 21) if even[ell] < 1e-12]
        assert removed == [int(number) for number in re.findall(r"\d+", also)], name
        assert f"ℓ = {made.degree + 1}" == first


def test_the_families_have_the_size_and_degree_stated() -> None:
    for row in rows(sections("rules.md")["Families"]):
        if len(row) == 4 and row[2].isdecimal():
            made = rule(row[0].strip("`"))
            assert (len(made), made.degree) == (int(row[2]), int(row[3])), row


def test_the_grids_of_the_paper_are_as_stated() -> None:
    stated = {}
    for name, which, elements in rows(sections("rules.md")["The paper's grids"]):
        spec = (which.split("`")[1], which.endswith("with inversion"))
        stated[name] = spec
        assert len(rule(*spec)) == int(elements), name
    assert stated == PAPER_GRIDS


# Links


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_pictures_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(other), f"{page.name}: {target}"


def test_every_page_is_in_the_contents() -> None:
    contents = (DOCS / "README.md").read_text(encoding="utf-8")
    for page in PAGES:
        assert page.name == "README.md" or f"]({page.name})" in contents


def test_scripts_that_are_named_exist() -> None:
    for page in PAGES:
        for name in re.findall(r"`(scripts/\w+\.py)`", page.read_text(encoding="utf-8")):
            assert (DOCS.parent / name).exists(), f"{page.name}: {name}"
