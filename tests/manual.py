#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The manual and the completion know every subcommand, option and key.

    manual.py FASTSPOOL [TREE]

FASTSPOOL is the built command, which says what there is.

  - Each subcommand has a page, which fastspool(8) names, with the summary that `fastspool help` prints.
  - Each option in a subcommand's --help is in its page, and each option in a page is in --help.  Both have exit statuses.
  - fastspool.conf(5) and docs/operating.md have each key of lib/spool/configuration.c.
  - libfastspool(7) has CAVEATS and SECURITY.
  - All pages are installed, no page leads to one of ours that does not exist, and man and mandoc, where they are
    installed, have nothing to warn of.
  - Bash completes subcommands, options, and the names of a large queue.
  - What the programs say names pages that are there, and no file of docs/: a package has those elsewhere, if at all.

Exit status: 0 all holds, 1 not; each thing that does not is one line.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

PROGRAM = pathlib.Path(sys.argv[1]).resolve()
TREE = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else pathlib.Path(__file__).parent.parent).resolve()
PAGES = sorted((TREE / "man").glob("*.[1-9]"))
wrong = 0


def check(condition, sentence):
    global wrong
    if not condition:
        print(sentence)
        wrong += 1


def said(*arguments):
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=True).stdout


def options_of_help(text):
    return set(re.findall(r"--([a-z][a-z-]*)", text)) | {"help"}


def options_of_page(text, macro):
    """Those of its SYNOPSIS, `.Op Fl -json | -watch`, or of its list of options, `.It Fl -json`."""
    lines = re.findall(rf"^\.{macro} Fl (.*)$", text, re.M)
    return {option for line in lines for option in re.findall(r"(?:^|\s)-([a-z][a-z-]*)", line)}


def check_subcommand(name, summary):
    path = TREE / f"man/fastspool-{name}.8"
    if not path.exists():
        return check(False, f"man/{path.name}: there is no page of the subcommand {name}")
    page, text = path.read_text(), said(name, "--help")
    check(said("help", name) == text, f"`fastspool help {name}` is not its --help")
    for place, string in (("--help", "Exit status: "), ("page", ".Sh EXIT STATUS\n")):
        check(string in (text if place == "--help" else page), f"{name}: its {place} has no exit status")
    options = options_of_help(text)
    for macro, place, wanted in (("Op", "SYNOPSIS", options - {"help"}), ("It", "list of options", options)):
        found = options_of_page(page, macro)
        check(found == wanted, f"man/{path.name}: its {place} lacks {sorted(wanted - found)}, and has "
              f"{sorted(found - wanted)}, which --help does not name")
    top = (TREE / "man/fastspool.8").read_text()
    check(f".It Xr fastspool-{name} 8\n{summary.split(' (')[0]}" in top,
          f"man/fastspool.8: fastspool-{name} is not listed with the summary of `fastspool help`: {summary}")


def check_keys():
    source = (TREE / "lib/spool/configuration.c").read_text()
    keys = set(re.findall(r'strcmp\(key, "(\w+)"\)', source))
    check(len(keys) > 6, f"only the keys {keys} were found")
    page, document = (TREE / "man/fastspool.conf.5").read_text(), (TREE / "docs/operating.md").read_text()
    for key in sorted(keys):
        check(f".It Cm {key}\n" in page, f"man/fastspool.conf.5: the key {key} is missing")
        check(f"| `{key}` |" in document, f"docs/operating.md: the key {key} is missing")


def check_page(path):
    text, installed = path.read_text(), (TREE / "man/meson.build").read_text()
    check(f"'{path.name}'" in installed, f"man/meson.build: {path.name} is not installed")
    for name, section in re.findall(r"\bXr (\S*fastspool\S*) (\d)", text):
        check((TREE / f"man/{name}.{section}").exists(), f"man/{path.name}: there is no page {name}({section})")
    for command in (["mandoc", "-Tlint", "-W", "warning", path],
                    ["man", "--warnings", "-l", "-Tutf8", "-P", "cat", path]):
        if not shutil.which(command[0]):
            continue
        result = subprocess.run(command, capture_output=True, text=True,
                                env={**os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80"})
        warnings = result.stderr + (result.stdout if command[0] == "mandoc" else "")
        check(not warnings and result.returncode == 0, f"man/{path.name}: {command[0]}: {warnings.strip()}")


def check_sentences():
    for path in (path for place in ("lib", "shim", "tools") for path in sorted((TREE / place).rglob("*.[ch]"))):
        for string in re.findall(r'"(?:[^"\\\n]|\\.)*"', path.read_text()):
            check("docs/" not in string, f"{path.relative_to(TREE)}: a sentence names a file of docs/: {string}")
            for page in re.findall(r"`man ([\w.-]+)`", string):
                check(any(each.stem == page for each in PAGES), f"{path.relative_to(TREE)}: there is no page {page}")


def complete(*words, program=PROGRAM):
    """What bash offers for the last of WORDS."""
    script = '. "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _fastspool; printf "%s\\n" "${COMPREPLY[@]}"'
    with tempfile.TemporaryDirectory() as directory:
        os.symlink(program, f"{directory}/fastspool")
        result = subprocess.run(["bash", "-c", script, "bash", TREE / "completions/fastspool", *words],
                                capture_output=True, text=True,
                                env={**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"})
    check(not result.stderr, f"completions/fastspool: {words}: {result.stderr.strip()}")
    return set(result.stdout.split())


def check_completion(names):
    offered = complete("fastspool", "")
    check(offered >= names | {"help"}, f"completions/fastspool: not offered: {names - offered}")
    check(complete("fastspool", "help", "") >= names, "completions/fastspool: help offers no subcommands")
    for name in names:
        missing = {"--" + option for option in options_of_help(said(name, "--help"))} - complete("fastspool", name, "--")
        check(not missing, f"completions/fastspool: {name}: not offered: {sorted(missing)}")
    check(complete("fastspool", "dump", "j") == {"journal"}, "completions/fastspool: dump offers no journal")
    check("cat" in complete("fastspool", "run", "--", "ca"), "completions/fastspool: run offers no commands")
    check_completion_of_many_names()


def check_completion_of_many_names():
    """What bash writes for a part of a name is what all names have in common, of a large queue, too."""
    names = [f"input/1xAA{number:04}-H" for number in range(3000)] + ["input/1xB-H", "input/1wC-H"]
    with tempfile.TemporaryDirectory() as directory:
        program = pathlib.Path(directory) / "ls"
        program.write_text("#!/bin/sh\ncat <<'END'\n" + "".join(f"-rw-r----- 1 1 1 1 date time {name}\n" for name in names) + "END\n")
        program.chmod(0o755)
        for word in ("in", "input/1x", "input/1xA", "input/1xB", "input/1xAA2999", "input/2"):
            true = [name for name in names if name.startswith(word)]
            offered = sorted(complete("fastspool", "cat", word, program=program))
            check(set(offered) <= set(true) and os.path.commonprefix(offered) == os.path.commonprefix(true),
                  f"completions/fastspool: of {word} {os.path.commonprefix(offered)!r} is written, not {os.path.commonprefix(true)!r}")


def main():
    subcommands = dict(re.findall(r"^  ([a-z]+) +(\S.*)$", said("help"), re.M))
    check(len(subcommands) > 9, f"`fastspool help` names only {sorted(subcommands)}")
    for name, summary in subcommands.items():
        check_subcommand(name, summary)
    for path in PAGES:
        check_page(path)
        match = re.fullmatch(r"fastspool-(\w+)\.8", path.name)
        check(not match or match[1] in subcommands, f"man/{path.name}: there is no such subcommand")
    library = (TREE / "man/libfastspool.7").read_text()
    check(".Sh CAVEATS" in library and ".Sh SECURITY" in library, "man/libfastspool.7: no CAVEATS or no SECURITY")
    check_keys()
    check_sentences()
    check_completion(set(subcommands))
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
