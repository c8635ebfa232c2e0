#!/usr/bin/env python3
"""Finds files that import each other, directly or around a longer circle.

In: the .rs files that `lib.rs` and `main.rs` of each crate reach through `mod`, without those (and that code) only for tests.
Out: how many files and rooms there are, how many arrows join rooms, and each circle with the names that tie it; exit code 1
where there is one. A room is a first-level folder or file of a crate. Who uses it: authors, before a change goes in.

An import goes to the file that defines the name, past every re-export on the way, and ends at the first name that is no
module: `crate::error::Error::Io` is an import of `Error`. `mod x;` and the re-export of a child are no imports of their own,
unless the parent's code uses the name. Methods are not followed, nor paths to other crates: those cannot form a circle.
"""
import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path

CRATES = ("src", "backends/src", "models/src")
# Comments, strings, characters, lifetimes and numbers, which say nothing here; then what does.
TOKEN = re.compile(
    r"""//[^\n]*|/\*.*?\*/|[bc]?r(#*)".*?"\1|[bc]?"(?:\\.|[^"\\])*"|b?'(?:\\.[^']*|[^\\'])'|'\w+|\d\w*"""
    r"""|((?:r\#)?[A-Za-z_]\w*|::|\S)""", re.S)
ONLY_TESTS = re.compile(r"# \[ cfg \( (test \)|all \( test ,)")
ITEMS = {"fn", "struct", "enum", "union", "trait", "type", "const", "static"}


class Module:
    """A file, or a block `mod x { … }` in one: what it defines, its imports (path, name, whether public), paths in its code."""

    def __init__(self, file):
        self.file, self.items, self.imports, self.paths = file, set(), [], set()


def tokens_of(file):
    tokens = [m.group(2) for m in TOKEN.finditer(file.read_text(encoding="utf-8")) if m.group(2)]
    kept, i = [], 0
    while i < len(tokens):
        if ONLY_TESTS.match(" ".join(tokens[i:i + 8])):
            depth, i = 0, i + 1
            while depth or tokens[i - 1] not in (";", "}"):
                depth += (tokens[i] in "([{") - (tokens[i] in ")]}")
                i += 1
            i += tokens[i:i + 1] == [";"]
        else:
            kept.append(tokens[i])
            i += 1
    return kept + [";"] * 3


def use_tree(tokens, i, prefix):
    """The leaves of the `use` tree at `i`, each a path and its name in scope (or `*`), and the index behind the tree."""
    path = prefix
    while tokens[i] not in (",", "}", ";"):
        if tokens[i] == "{":
            leaves, i = [], i + 1
            while tokens[i] != "}":
                more, i = use_tree(tokens, i, path)
                leaves, i = leaves + more, i + (tokens[i] == ",")
            return leaves, i + 1
        if tokens[i] in ("as", "*"):
            return [(path, tokens[i + (tokens[i] == "as")])], i + 1 + (tokens[i] == "as")
        # `self` in braces is what stands before them. A path that begins with `::` is another crate's and leads nowhere.
        if not path or tokens[i] not in ("self", "::"):
            path += (tokens[i],)
        i += 1
    return [(path, path[-1])], i


def read(modules, file, module, folder):
    """Adds `module` (its path from the crate on), which is `file`, and all below it, whose files lie in `folder`."""
    modules[module] = Module(file)
    tokens, scopes, depth, i = tokens_of(file), [(module, 0)], 0, 0
    while i < len(tokens) - 3:
        (path, level), before, token, after = scopes[-1], tokens[i - 1], tokens[i], tokens[i + 1]
        here = modules[path]
        if token == "mod" and tokens[i + 2] in "{;":
            child, i = path + (after,), i + 1
            if tokens[i + 1] == "{":
                modules[child] = Module(file)
                scopes.append((child, depth + 1))
            else:
                below = folder.joinpath(*child[len(module):])
                found = [f for f in (below.with_suffix(".rs"), below / "mod.rs") if f.is_file()]
                read(modules, found[0] if found else sys.exit(f"{file}: no file for `mod {after};`"), child, below)
        elif token == "use" and after != "<":
            leaves, i = use_tree(tokens, i + 1, ())
            here.imports += [(leaf, name, before in ("pub", ")")) for leaf, name in leaves]
        elif token in ITEMS and depth == level:
            here.items.add(after)
        elif token in "([{":
            depth += 1
        elif token in ")]}":
            depth -= 1
            scopes = scopes[:-1] if depth < level else scopes
        elif token.isidentifier() and before not in (".", "::", "fn", "let", "mut"):
            end = i + 1
            while tokens[end] == "::" and tokens[end + 1].isidentifier():
                end += 2
            here.paths.add(tuple(tokens[i:end:2]))
        i += 1


def find(modules, at, path, named=False, seen=()):
    """Where `path` leads from inside module `at`: a module and a name that it defines (None for the module itself), or None
    where that is unknown, as with other crates. With `named`, `at` is the only place for the first name."""
    if not path:
        return at, None
    name, imports = path[0], modules[at].imports
    if name in ("crate", "self", "super"):
        return find(modules, {"crate": at[:1], "self": at, "super": at[:-1]}[name], path[1:], True, seen)
    used = [leaf for leaf, known_as, _ in imports if known_as == name]
    if at + (name,) in modules and (len(path) > 1 or not used):
        return find(modules, at + (name,), path[1:], True, seen)
    if name not in modules[at].items and (at, name) not in seen:
        seen += ((at, name),)
        for leaf in used:
            place = find(modules, at, leaf + path[1:], False, seen)
            if place:
                return place
        for leaf in (leaf for leaf, known_as, _ in imports if known_as == "*"):
            place = find(modules, at, leaf, False, seen)
            place = place and place[1] is None and find(modules, place[0], path, False, seen)
            if place:
                return place
    return (at, name) if named or name in modules[at].items else None


def arrows_of(modules):
    """Which file imports which, and by what names."""
    arrows = defaultdict(set)
    for at, module in modules.items():
        words = {path[0] for path in module.paths}
        for path, known_as, public in [(path, None, False) for path in module.paths] + module.imports:
            place = find(modules, at, path)
            exported = public and place and place[0][:len(at)] == at and known_as not in words
            if place and (place[1] or known_as == "*") and not exported and modules[place[0]].file != module.file:
                arrows[module.file, modules[place[0]].file].add(place[1] or "*")
    return arrows


def circles_of(arrows):
    """The sets of more than one file that can all reach each other (Tarjan 1972)."""
    after, number, low, stack, circles = defaultdict(list), {}, {}, [], []
    for start, end in arrows:
        after[start].append(end)

    def visit(file):
        number[file] = low[file] = len(number)
        stack.append(file)
        for other in after[file]:
            if other not in number:
                visit(other)
            if other in stack:
                low[file] = min(low[file], low[other])
        if low[file] == number[file]:
            circle = stack[stack.index(file):]
            del stack[-len(circle):]
            circles.extend([sorted(circle)] if len(circle) > 1 else [])

    for file in list(after):
        if file not in number:
            visit(file)
    return circles


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default=Path(__file__).parent.parent, type=Path, metavar="DIR", help="the workspace")
    parser.add_argument("--rooms", action="store_true", help="print the arrows between rooms")
    options = parser.parse_args()
    files, arrows = set(), {}
    for folder in CRATES:
        for top in ("lib.rs", "main.rs"):
            file, modules = options.root / folder / top, {}
            if file.is_file():
                read(modules, file, (folder,), file.parent)
                files |= {module.file for module in modules.values()}
                arrows.update(arrows_of(modules))
    name = {file: file.relative_to(options.root).as_posix() for file in files}
    room = {file: re.match(r"(.*?\bsrc/[^/.]+)", name[file]).group(1) for file in files}
    between = sorted({(room[a], room[b]) for a, b in arrows if room[a] != room[b]})
    circles = circles_of(arrows)
    print(f"{len(files)} files, {len(set(room.values()))} rooms, {len(between)} arrows between rooms, {len(circles)} circles")
    if options.rooms:
        print(*(f"  {a} -> {b}" for a, b in between), sep="\n")
    for circle in circles:
        print(f"\na circle of {len(circle)} files:")
        for a, b in sorted((a, b) for a, b in arrows if a in circle and b in circle):
            print(f"  {name[a]} -> {name[b]}: {', '.join(sorted(arrows[a, b]))}")
    sys.exit(1 if circles else 0)


if __name__ == "__main__":
    main()
