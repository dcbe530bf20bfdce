"""What the site adds to its Markdown pages: navigation, formulas without scripts, the command line, docstrings.

Everything here is made from what is there already, so that it cannot fall behind: the navigation from the contents in
README.md, the command line from the commands.
"""

from __future__ import annotations

import importlib
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode, nested_parse_with_titles

logger = logging.getLogger(__name__)

# --- navigation -----------------------------------------------------------------------------------------------------

_TREE = """
:::{{toctree}}
:hidden:
:caption: {caption}

{pages}
:::
"""


def navigation(contents: str) -> str:
    """A hidden tree for each heading of the second level, of the pages that the text under it links to."""
    parts = re.split(r"^## (.+)$", contents, flags=re.MULTILINE)
    trees = []
    for caption, text in zip(parts[1::2], parts[2::2], strict=True):
        pages = dict.fromkeys(re.findall(r"^\| \[[^\]]+\]\((?!\.\.)([^)#]+)\.md\)", text, flags=re.MULTILINE))
        if pages:
            trees.append(_TREE.format(caption=caption, pages="\n".join(pages)))
    return "".join(trees)


def outside(page: str, folder: Path) -> str:
    """Links that leave docs/ become downloads of the file, or the name of a folder in the repository."""

    def replaced(found: re.Match[str]) -> str:
        text, target = found.groups()
        path = (folder / target).resolve()
        if not path.exists():
            raise ExtensionError(f"{target} does not exist")
        text = text.replace("`", "")
        if path.is_dir():
            return f"`{target.replace('../', '')}`"
        return f"{{download}}`{text} <{target}>`"

    return re.sub(r"\[([^\]]+)\]\((\.\./(?!reference)[^)\s#]+)\)", replaced, page)


def _read(app: Sphinx, name: str, source: list[str]) -> None:
    folder = (Path(app.srcdir) / name).parent
    if folder == Path(app.srcdir):
        source[0] = outside(source[0], folder)
    if name == app.config.root_doc:
        source[0] += navigation(source[0])


def _index(app: Sphinx, error: Exception | None) -> None:
    """The contents are what a folder shows: index.html beside README.html."""
    if error is None and app.builder.format == "html":
        shutil.copy(Path(app.outdir) / f"{app.config.root_doc}.html", Path(app.outdir) / "index.html")


# --- figures ----------------------------------------------------------------------------------------------------


def _linked(app: Sphinx, doctree: nodes.document, name: str) -> None:
    """A figure leads to its file, which a phone can zoom into."""
    if app.builder.format != "html":
        return
    for image in list(doctree.findall(nodes.image)):
        if image["uri"] in app.env.images and not isinstance(image.parent, nodes.reference):
            target = f"{'../' * name.count('/')}_images/{app.env.images[image['uri']][1]}"
            link = nodes.reference("", "", refuri=target)
            image.replace_self(link)
            link += image


# --- formulas -------------------------------------------------------------------------------------------------------


def _mathml(visitor: Any, node: nodes.Element, block: bool) -> None:
    try:
        found = tex2mathml(node.astext(), as_block=block)
    except MathError as error:
        logger.warning("a formula cannot be typeset: %s", error, location=node)
        raise nodes.SkipNode from None
    visitor.body.append(f'<div class="formula">{found}</div>' if block else found)
    raise nodes.SkipNode


def _inline(visitor: Any, node: nodes.Element) -> None:
    _mathml(visitor, node, block=False)


def _block(visitor: Any, node: nodes.Element) -> None:
    _mathml(visitor, node, block=True)


# --- the command line -----------------------------------------------------------------------------------------------


def _usage(command: Any, name: str) -> str:
    words = [name]
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            word = _placeholder(parameter) + ("..." if parameter.nargs == -1 else "")
            words.append(word if parameter.required else f"[{word}]")
    return " ".join([*words, "[OPTIONS]"])


def _default(parameter: Any) -> str:
    value = parameter.default
    if value is None or value is False or callable(value) or value in ((), []) or parameter.required:
        return ""
    return f" Default: ``{value}``."


def _option(parameter: Any) -> str:
    spelled = ", ".join(f"``{each}``" for each in (*parameter.opts, *parameter.secondary_opts))
    return spelled if parameter.is_flag else f"{spelled} *{_placeholder(parameter)}*"


def _placeholder(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper()).rstrip(".")


def described(command: Any, name: str, mark: str = "-") -> list[str]:
    """A command as reStructuredText: heading, what it does, how it is called, arguments and options."""
    lines = [name, mark * len(name), "", " ".join((command.help or "").split()), ""]
    inner = getattr(command, "commands", None)
    if inner:
        for word, each in inner.items():
            lines += described(each, f"{name} {word}", "~")
        return lines
    lines += [".. code-block:: text", "", f"   {_usage(command, name)}", ""]
    for parameter in command.params:
        if parameter.name == "help" or getattr(parameter, "hidden", False):
            continue
        is_option = parameter.param_type_name == "option"
        term = _option(parameter) if is_option else f"*{_placeholder(parameter)}*"
        text = " ".join((parameter.help or "").split())
        repeated = " Several may be given." if is_option and parameter.multiple and "repeatable" not in text else ""
        needed = " Required." if is_option and parameter.required else ""
        lines += [term, f"   {_escaped(text) or '…'}{needed}{repeated}{_default(parameter)}", ""]
    return lines


def _escaped(text: str) -> str:
    """Code in single quotes becomes code, and what reStructuredText would read as markup is text."""
    parts = re.split(r"`([^`]+)`", text)
    parts[::2] = [re.sub(r"([*_|\\])", r"\\\1", each) for each in parts[::2]]
    parts[1::2] = [f"``{each}``" for each in parts[1::2]]
    return "".join(parts)


class CommandLine(SphinxDirective):
    """Every command of ``goniometer`` with its arguments and options, as the commands themselves say it."""

    has_content = False

    def run(self) -> list[nodes.Node]:
        """The sections."""
        import typer

        from goniometer.cli.app import app

        group: Any = typer.main.get_command(app)
        commands = sorted(group.commands.items())
        lines = [line for name, command in commands for line in described(command, f"goniometer {name}")]
        holder = nodes.section()
        holder.document = self.state.document
        nested_parse_with_titles(self.state, StringList(lines, source="goniometer --help"), holder)
        return holder.children


# --- docstrings -----------------------------------------------------------------------------------------------------


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings as the source has them, in the reStructuredText that Sphinx expects of them.

    A formula is an indented block, and becomes a literal one. What is said after a section, unindented, ends it. Bars
    are those of absolute values.
    """
    found: list[str] = []
    last, in_section, literal = 0, False, -1
    for place, line in enumerate(lines):
        blank = not found or not found[-1].strip()
        if line.strip() and literal >= 0 and _depth(line) < literal:
            literal = -1
        if line.strip() and blank and literal < 0 and found:
            if _depth(line) > last and found[-2:][0].strip():
                found += [" " * last + "::", ""]
                literal = _depth(line)
            elif in_section and _depth(line) == 0 and not _opens_entry(lines, place):
                found.append("")
                in_section = False
        if set(line) == {"-"} and len(line) > 3:
            in_section = True
        if line.strip() and literal < 0:
            last = _depth(line)
        found.append(line if literal >= 0 or "::" in line else line.replace("|", "\\|"))
    # A colon in the first line of an attribute's docstring is no type.
    lines[:] = ["..", "", *found] if what in ("attribute", "data", "property") else found


def _opens_entry(lines: list[str], place: int) -> bool:
    """Whether a line is the name of a parameter or the heading of a section: the next one is indented or a rule."""
    after = lines[place + 1] if place + 1 < len(lines) else ""
    return after.startswith("    ") or set(after) == {"-"} or not _is_prose(lines[place])


def _is_prose(line: str) -> bool:
    return " " in line.split(" : ")[0].replace(", ", "")


def _alias(app: Sphinx, env: Any, node: Any, content: nodes.Node) -> nodes.Node | None:
    """References to names as users import them, and to bare names, lead to where the object is documented."""
    if node.get("refdomain") != "py":
        return None
    target, domain = node["reftarget"].lstrip("~."), env.get_domain("py")
    name = _home(target) if target.startswith("goniometer.") else ""
    if name not in domain.objects:
        same = [each for each in domain.objects if each.endswith(f".{target}")]
        name = same[0] if len(same) == 1 else ""
    if not name:
        return None
    entry = domain.objects[name]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, name)


def _home(target: str) -> str:
    """Module and name under which an object was defined; nothing if it cannot be found."""
    words = target.split(".")
    for split in range(len(words) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(words[:split]))
            for word in words[split:]:
                found = getattr(found, word)
        except (ImportError, AttributeError):
            continue
        if isinstance(found, ModuleType):  # packages that answer to a call
            home = found.__dict__.get("_home")
            return f"{home}.{words[-1]}" if home else found.__name__
        return f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
    return ""


def setup(app: Sphinx) -> dict[str, Any]:
    """Register all of it."""
    app.connect("autodoc-process-docstring", _docstring, priority=400)  # before napoleon
    app.connect("missing-reference", _alias)
    app.connect("doctree-resolved", _linked)
    app.connect("source-read", _read)
    app.connect("build-finished", _index)
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.add_directive("command-line", CommandLine)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
