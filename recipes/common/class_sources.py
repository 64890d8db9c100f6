"""Reads the fields that a class declares from its source. A command line needs their names and defaults, and importing
transformers for them takes seconds."""

import ast
import importlib
import importlib.util
import re
from functools import cache
from pathlib import Path


def class_fields(module: str, name: str) -> dict[str, ast.AnnAssign]:
    """
    The fields that a dataclass declares itself, by name.

    Args:
        module, name: of the class. The module may also be one that imports the class: "trl", "SFTConfig".

    Raises:
        LookupError: if the source of the class is not found.
    """
    _, declaration = _find(module, name)
    return {
        statement.target.id: statement
        for statement in declaration.body
        if isinstance(statement, ast.AnnAssign) and "ClassVar" not in ast.unparse(statement.annotation)
    }


def inherited_fields(module: str, name: str) -> set[str]:
    """The names of the fields of a dataclass and of its base classes."""
    home, declaration = _find(module, name)
    names = set(class_fields(module, name))
    for base in declaration.bases:
        if not isinstance(base, ast.Name):
            raise LookupError(f"{name} has the base {ast.unparse(base)}, expected a plain name")
        names |= inherited_fields(home, base.id)
    return names


def init_parameters(module: str, name: str) -> dict[str, tuple[ast.expr, ast.expr]]:
    """Annotation and default of each parameter of `__init__`; every parameter must have both."""
    _, declaration = _find(module, name)
    (init,) = (node for node in declaration.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    parameters = init.args.args[1:]
    return {node.arg: (node.annotation, default) for node, default in zip(parameters, init.args.defaults, strict=True)}


def field_descriptions(module: str, name: str) -> dict[str, str]:
    """What the section `Args:` of a class docstring says of each field: the first sentence, or all if fields share an entry."""
    _, declaration = _find(module, name)
    _, _, section = (ast.get_docstring(declaration) or "").partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", section, maxsplit=1)[0]
    descriptions = {}
    for entry in re.split(r"(?<!,\n)^ {4}(?=\S)", section, flags=re.MULTILINE)[1:]:
        heading, _, text = entry.partition(":")
        names = re.findall(r"\w+", re.sub(r"\([^()]*\)", "", heading))
        text = re.sub(r"\[`~?(?:\w+\.)*(\w+)`\]|`", r"\1", " ".join(text.split()))
        if len(names) == 1:
            text = re.split(r'(?<=\.) (?=["A-Z])', text, maxsplit=1)[0]
        if re.match("[A-Z][a-z ]", text):
            text = text[0].lower() + text[1:]
        descriptions |= dict.fromkeys(names, text.rstrip("."))
    return descriptions


def evaluate(module: str, name: str, expression: ast.expr):
    """
    The value of an annotation or a default in the source of a class.

    Args:
        module, name: of the class.
        expression: may use names that the source imports from the standard library, and fields of other dataclasses
            (`Cleaning.max_gap`), whose value is their default.
    """
    home, _ = _find(module, name)
    imports = _imports(home)
    if isinstance(expression, ast.Attribute):
        other = imports[expression.value.id]
        return evaluate(*other, class_fields(*other)[expression.attr].value)
    used = {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}
    namespace = {
        local: getattr(importlib.import_module(source), original)
        for local, (source, original) in imports.items()
        if local in used
    }
    return eval(compile(ast.Expression(expression), home, "eval"), namespace)


def _file(module: str) -> Path:
    root, *parts = module.split(".")
    # For a top-level package, this does not import it.
    spec = importlib.util.find_spec(root)
    if spec is None or spec.origin is None:
        raise LookupError(f"the source of {root} was not found")
    path = Path(spec.origin).parent.joinpath(*parts) if parts else Path(spec.origin)
    return path if path.is_file() else path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _parsed(module: str) -> ast.Module:
    try:
        return ast.parse(_file(module).read_text(encoding="utf-8"))
    except OSError as error:
        raise LookupError(f"the source of {module} was not found") from error


@cache
def _imports(module: str) -> dict[str, tuple[str, str]]:
    """Local name → (module, name there) of everything that a module imports by `from … import`, also for type checkers only."""
    package = module if _file(module).name == "__init__.py" else module.rpartition(".")[0]
    return {
        alias.asname or alias.name: (
            importlib.util.resolve_name("." * node.level + (node.module or ""), package),
            alias.name,
        )
        for node in ast.walk(_parsed(module))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _find(module: str, name: str) -> tuple[str, ast.ClassDef]:
    """The module that declares a class, and the declaration."""
    for statement in _parsed(module).body:
        if isinstance(statement, ast.ClassDef) and statement.name == name:
            return module, statement
    if name not in _imports(module):
        raise LookupError(f"{module} has no class {name}")
    return _find(*_imports(module)[name])
