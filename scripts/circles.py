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
from types import SimpleNamespace

CRATES = ("src", "backends/src", "models/src")
# Comments, strings, characters and lifetimes.
NOISE = re.compile(r"""//[^\n]*|/\*.*?\*/|\b[bc]?r(#*)".*?"\1|"(?:\\.|[^"\\])*"|'(?:\\.[^']*|[^\\'])'|'\w+""", re.S)
ONLY_TESTS = re.compile(r"#\[cfg\((?:test\)|all\(test,)[^\]]*\]")
CODE = re.compile(r"""(?P<public>\bpub(?:\([^)]*\))?\s+)?\buse\s(?P<use>[^;]*);
    | \bmod\s+(?P<module>\w+)\s*(?P<body>[{;])
    | \b(?:fn|struct|enum|union|trait|type|static|const(?!\s+(?:unsafe|fn)\b))\s+(?P<item>\w+)
    | (?P<open>[\[({]) | (?P<close>[\])}])
    | (?:::|(?<!\.)\.)\s*\w+                  # what a value or a type has
    | \b(?P<path>[A-Za-z_]\w*(?:\s*::\s*[A-Za-z_]\w*)*)""", re.X)


def code_of(file):
    text = NOISE.sub(" ", file.read_text(encoding="utf-8"))
    for test in reversed(list(ONLY_TESTS.finditer(text))):
        end, depth = test.end(), 0
        while depth or text[end - 1] not in ";}":
            depth += (text[end] in "([{") - (text[end] in ")]}")
            end += 1
        text = text[:test.start()] + text[end:]
    return text


def leaves(tree):
    """What a `use` brings in: paths, and the names that they have from there on (`*` for a glob)."""
    tree = re.sub(r"\s*(::|[{},])\s*", r"\1", tree)
    while "{" in tree:
        tree = re.sub(r"([\w:]*)\{([^{}]*)\}", lambda m: ",".join(m[1] + part for part in m[2].split(",") if part), tree)
    for leaf in tree.split(","):
        path, _, name = re.sub(r"::self\b", "", leaf.strip()).partition(" as ")
        *before, last = path.split("::")
        yield tuple(before if last == "*" else [*before, last]), name or last


def read(modules, file, module, folder):
    """Adds `module` (its path from the crate on), which is `file`, and all below it, whose files lie in `folder`."""
    modules[module] = SimpleNamespace(file=file, items=set(), imports=[], paths=set())
    scopes, depth = [(module, 0)], 0
    for found in CODE.finditer(code_of(file)):
        path, level = scopes[-1]
        here = modules[path]
        if found["use"]:
            here.imports += [(leaf, name, bool(found["public"])) for leaf, name in leaves(found["use"])]
        elif found["module"]:
            child = path + (found["module"],)
            if found["body"] == "{":
                depth += 1
                scopes.append((child, depth))
                modules[child] = SimpleNamespace(file=file, items=set(), imports=[], paths=set())
            else:
                below = folder.joinpath(*child[len(module):])
                own = below.with_suffix(".rs")
                read(modules, own if own.is_file() else below / "mod.rs", child, below)
        elif found["item"] and depth == level:
            here.items.add(found["item"])
        elif found["path"]:
            here.paths.add(tuple(re.split(r"\s*::\s*", found["path"])))
        depth += bool(found["open"]) - bool(found["close"])
        if depth < level:
            scopes.pop()


def find(modules, at, path, named=False, seen=()):
    """Where `path` leads from inside module `at`: a module and a name that it defines (None for the module itself), or None
    where that is unknown, as with other crates. With `named`, `at` is the only place for the first name."""
    if not path:
        return at, None
    name, rest, imports = path[0], path[1:], modules[at].imports
    if name in ("crate", "self", "super"):
        return find(modules, {"crate": at[:1], "self": at, "super": at[:-1]}[name], rest, True, seen)
    used = [leaf for leaf, known_as, _ in imports if known_as == name]
    if at + (name,) in modules and (rest or not used):
        return find(modules, at + (name,), rest, True, seen)
    place = None
    if name not in modules[at].items and (at, name) not in seen:
        seen += ((at, name),)
        for leaf in used:
            place = place or find(modules, at, leaf + rest, False, seen)
        for glob in (leaf for leaf, known_as, _ in imports if known_as == "*"):
            inside = None if place else find(modules, at, glob, False, seen)
            place = find(modules, inside[0], path, False, seen) if inside and not inside[1] else place
    return place or ((at, name) if named or name in modules[at].items else None)


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
    """The sets of files that can all reach each other (Tarjan 1972), but for single ones."""
    number, low, stack, circles = {}, {}, [], []

    def visit(file):
        number[file] = low[file] = len(number)
        stack.append(file)
        for other in sorted(end for start, end in arrows if start == file):
            if other not in number:
                visit(other)
            if other in stack:
                low[file] = min(low[file], low[other])
        if low[file] == number[file]:
            circle = stack[stack.index(file):]
            del stack[-len(circle):]
            circles.extend([circle] if len(circle) > 1 else [])

    for file in sorted({start for start, _ in arrows}):
        if file not in number:
            visit(file)
    return circles


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default=Path(__file__).parent.parent, type=Path, metavar="DIR", help="the workspace")
    parser.add_argument("--rooms", action="store_true", help="print the arrows between rooms")
    options = parser.parse_args()
    files, arrows = set(), {}
    for file in (options.root / folder / top for folder in CRATES for top in ("lib.rs", "main.rs")):
        if file.is_file():
            modules = {}
            read(modules, file, ("crate",), file.parent)
            files |= {module.file for module in modules.values()}
            arrows.update(arrows_of(modules))
    name = {file: file.relative_to(options.root).as_posix() for file in files}
    room = {file: re.match(r"(?:.*/)?src/[^/.]+", name[file])[0] for file in files}
    between = sorted({(room[a], room[b]) for a, b in arrows if room[a] != room[b]})
    circles = circles_of(arrows)
    print(f"{len(files)} files, {len(set(room.values()))} rooms, {len(between)} arrows between rooms, {len(circles)} circles")
    if options.rooms:
        print(*(f"  {a} -> {b}" for a, b in between), sep="\n")
    for circle in circles:
        print(f"\na circle of {len(circle)} files:")
        for a, b in sorted(arrow for arrow in arrows if set(arrow) <= set(circle)):
            print(f"  {name[a]} -> {name[b]}: {', '.join(sorted(arrows[a, b]))}")
    return 1 if circles else 0


if __name__ == "__main__":
    sys.exit(main())
