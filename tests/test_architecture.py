"""The arrows of docs/architecture.md: which part of the package may import which."""

import ast
from pathlib import Path

import odfs_jax

PACKAGE = Path(odfs_jax.__file__).parent
LAYERS = (  # a part imports from the rows below its own, and from itself
    {"__main__"},
    {"cli"},
    {"command_line"},
    {"studio", "swap"},
    {"evaluation", "interop"},
    {"training", "extraction", "conversion", "curation"},
    {"saved_model", "inference", "provenance"},
    {"data", "explain"},
    {"nets", "losses", "faces"},
    {"config", "runtime", "frame_ranges"},
    {"errors", "__init__"},
)
SIDEWAYS = {("nets", "faces"), ("losses", "faces")}  # geometry is below networks
LAZILY = {  # inside a function only: extraction that a person, or a mask network, goes over
    ("extraction", "studio"),
    ("extraction", "curation"),
}


def _imports(path: Path) -> set[tuple[str, bool]]:
    """(part of odfs_jax, whether the import stands at the module's top) of every import."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "odfs_jax":
                part = rest.split(".")[0]
                found.add((part if _is_part(part) else "__init__", node in tree.body))
    return found


def _is_part(name: str) -> bool:
    return bool(name) and ((PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file())


def test_imports_follow_the_arrows():
    layer = {part: row for row, parts in enumerate(LAYERS) for part in parts}
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).with_suffix("").parts[0]
        for imported, at_top in _imports(path):
            down = imported == part or layer[imported] > layer[part]
            allowed = down or (part, imported) in SIDEWAYS
            if not (allowed or (not at_top and (part, imported) in LAZILY)):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {imported}")
    assert not wrong


def test_only_the_media_package_knows_pyav():
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Import) and "av" in {a.name.split(".")[0] for a in node.names})
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "av")
    }
    assert users
    assert all(user.startswith("data/media/") for user in users)
