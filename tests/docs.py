#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The documentation names only what the tree has.

    docs.py [TREE]

Looked at are README.md, CONTRIBUTING.md, SECURITY.md and docs/*.md.  What must exist:

  - each source file that they name (.c, .h, .def, .sed, .py, .sh), from the top of the tree, or by its last part alone;
  - each function or macro `name()`: in the sources, or in OTHERS;
  - each relative link, and the heading that it leads to;
  - each test, in the forms that docs/exim-calls.md explains: `family.name`, `suite: name`, surprise "name".

Exit status: 0 all is there, 1 not; each thing that is not is one line.
"""
import collections
import pathlib
import re
import sys

# Names that the sources do not define: examples; functions of libc, LMDB and the kernel, where the library does not
# wrap them.
OTHERS = {"fastspool_x", "module_x"}
SOURCES = ("lib", "shim", "tools", "include", "tests", "examples")
CODE_SPAN = re.compile(r"(`+)(.+?)\1", re.S)
LINK = re.compile(r"\]\(([^()\s]+)\)")
FILE = re.compile(r"(?<![\w/.*-])((?:[\w.-]+/)*[\w-]+\.(?:c|h|def|sed|py|sh))(?![\w/(-]|\.\w)")
FUNCTION = re.compile(r"\b(\w+)\(\)")
SURPRISE = re.compile(r'\bsurprise\s+"([^"]+)"')


def documents(tree):
    top = [tree / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    return top + sorted((tree / "docs").glob("*.md"))


def sources(tree, *ends):
    return [path for top in SOURCES for path in sorted((tree / top).rglob("*")) if path.suffix in ends]


def functions(tree):
    """The functions and macros that a source defines or declares."""
    names = set()
    for path in sources(tree, ".c", ".h", ".def"):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
        text = re.sub(r"__attribute__\(\(.*?\)\)\)?", "", text)
        names.update(re.findall(r"^[ \t]*#[ \t]*define[ \t]+(\w+)\(", text, re.M))
        names.update(re.findall(r"^[A-Za-z_][\w *]*[ *](\w+)\(", text, re.M))  # a call never begins in the first column
        names.update(re.findall(r"^(?:SYMBOL|ENTRY_AT)\([^,]*, (\w+),", text, re.M))
        names.update(re.findall(r"\bALIAS\((\w+), ", text))
    for path in sources(tree, ".py"):
        names.update(re.findall(r"^\s*def (\w+)\(", path.read_text(), re.M))
    return names


def tests(tree):
    """({family: its tests}, {suite: its tests}, surprises)."""
    families = {path.stem: set(re.findall(r"^def (\w+)\(", path.read_text(), re.M))
                for path in (tree / "tests/system").glob("*.py") if re.search(r"^@test\(", path.read_text(), re.M)}
    units = collections.defaultdict(set)
    for path in (tree / "tests/unit").glob("*.c"):
        for suite, name in re.findall(r"^Test\((\w+), (\w+)", path.read_text(), re.M):
            units[suite].add(name)
    surprises = (tree / "tests/shim/surprises.c").read_text()
    return families, units, set(re.findall(r'^    \{"([^"]+)", \w+', surprises, re.M))


def headings(path):
    """The anchors of a document, as GitHub makes them."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.*?)\s*$", path.read_text(), re.M)}


class Checker:
    def __init__(self, tree):
        self.tree = tree
        self.paths = {path.relative_to(tree).as_posix()
                      for path in sources(tree, ".c", ".h", ".def", ".sed", ".py", ".sh")}
        self.last_parts = {path.rsplit("/", 1)[-1] for path in self.paths}
        self.functions = functions(tree) | OTHERS
        self.families, self.units, self.surprises = tests(tree)

    def file(self, name):
        return name in (self.paths if "/" in name else self.last_parts)

    def link(self, document, target):
        if re.match(r"[a-z]+:", target):
            return True
        place, _, anchor = target.partition("#")
        path = document.parent / place if place else document
        return path.exists() and (not anchor or path.suffix == ".md" and anchor in headings(path))

    def test(self, span):
        """Is the text of a code span a test that exists, or none at all?"""
        family = re.fullmatch(r"(\w+)\.(\w+)", span)
        if family and family[1] in self.families and not self.file(span):
            return family[2] in self.families[family[1]]
        suite = re.fullmatch(r"(\w+):\s+(\w+)", span)
        return not suite or suite[2] in self.units.get(suite[1], ())

    def missing(self, document):
        """Yield (offset, what is not there)."""
        text = document.read_text()
        for match in LINK.finditer(text):
            if not self.link(document, match[1]):
                yield match.start(), "no such place: " + match[1]
        text = LINK.sub(lambda match: "](" + " " * len(match[1]) + ")", text)  # as long as before
        for match in FILE.finditer(text):
            if not self.file(match[1]):
                yield match.start(), "no such file: " + match[1]
        for match in SURPRISE.finditer(text):
            if " ".join(match[1].split()) not in self.surprises:
                yield match.start(), f'no such test: surprise "{match[1]}"'
        for paragraph in re.finditer(r"(?:^.*\S.*\n?)+", text, re.M):
            if paragraph[0].startswith("    "):
                continue  # a listing
            for span in CODE_SPAN.finditer(paragraph[0]):
                place = paragraph.start() + span.start()
                for name in FUNCTION.findall(span[2]):
                    if name not in self.functions:
                        yield place, f"no such function: {name}()"
                if not self.test(span[2].strip()):
                    yield place, "no such test: " + " ".join(span[2].split())


def main():
    tree = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent).resolve()
    checker = Checker(tree)
    wrong = 0
    for document in documents(tree):
        text = document.read_text()
        for place, what in sorted(checker.missing(document)):
            print(f"{document.relative_to(tree)}:{text.count(chr(10), 0, place) + 1}: {what}")
            wrong += 1
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
