# SPDX-License-Identifier: MIT
"""What the benchmarks take on their command lines: a wrong argument is a sentence, and exit status 2.

- Each kind of value has a function here, for argparse's `type`.  It says what is wrong and what is wanted.
- Arguments are looked at before anything else: before root is asked for, and before a disk or a namespace is made.
"""
import argparse
import os
import pathlib


def wrong(text, wanted):
    raise argparse.ArgumentTypeError(f"`{text}` is not {wanted}")


def whole(text, least=1):
    """A whole number of at least LEAST."""
    if not (text.isascii() and text.isdigit() and int(text) >= least and len(text) <= 9):
        wrong(text, f"a whole number from {least} on")
    return int(text)


def from_zero(text):
    return whole(text, 0)


def positive(text):
    """Seconds, or milliseconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e6:
        wrong(text, "a number above 0")
    return value


def numbers(text):
    """Numbers with commas between them; the text itself is kept."""
    for number in text.split(","):
        whole(number)
    return text


def names_of(known):
    """A function for names of KNOWN with commas between them; the text itself is kept."""
    def names(text):
        for name in text.split(","):
            if name not in known:
                wrong(name, "one of " + ", ".join(known))
        return text
    return names


def writable(text):
    """A file that can be written; its absolute path."""
    path = pathlib.Path(text).absolute()
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        wrong(text, "a file that can be written")
    return str(path)


def build(text):
    """Meson's build directory, with everything built."""
    for part in ("build.ninja", "shim/libfastspool.so", "tools/fastspool"):
        if not (pathlib.Path(text) / part).exists():
            wrong(text, f"a build of fastspool: it has no {part}; make one with `meson setup {text} && ninja -C {text}`")
    return text


def program(text):
    """A program that can be executed."""
    if not (os.path.isfile(text) and os.access(text, os.X_OK)):
        wrong(text, "the path of a program")
    return text
