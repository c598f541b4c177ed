# SPDX-License-Identifier: MIT
"""A client of the view whose server is killed between two of its calls, or during one.

Each call gives the right result, or an error that says that the view is gone: never a wrong result, as ENOENT for a file
that is there, or an empty listing.  When the view is back, everything is as it should be.

A call that failed was done or was not.  So the model is a list of states that may be.  A call that succeeds, or fails as on
any file system, must do so in one of them; the others are dropped.
"""
import copy
import errno
import os
import pathlib
import random
import signal
import threading
import time

GONE = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
CALLS = 40


class State:
    """Names, files and open descriptors, and what each call does to them.  A call returns its result, or raises OSError."""

    def __init__(self):
        self.names, self.files, self.open, self.count = {"": None}, {}, {}, 0     # None: a directory

    def key(self):
        return repr((sorted(self.names.items()), sorted(self.files.items()), sorted(self.open.items())))

    def file(self, name):
        if name not in self.names:
            raise OSError(errno.ENOENT, name)
        return self.names[name]

    def new(self, name):
        if name in self.names:
            raise OSError(errno.EEXIST, name)
        if self.names.get(os.path.dirname(name), 0) is not None:
            raise OSError(errno.ENOENT, name)

    def create(self, slot, name):
        self.new(name)
        self.count += 1
        self.names[name] = self.open[slot] = self.count
        self.files[self.count] = b""

    def reopen(self, slot, name):
        self.open[slot] = self.file(name)

    def write(self, slot, offset, content):
        old = self.files[self.open[slot]].ljust(offset, b"\0")
        self.files[self.open[slot]] = old[:offset] + content + old[offset + len(content):]
        return len(content)

    def read(self, slot):
        return self.files[self.open[slot]]

    def sync(self, slot):
        pass

    def close(self, slot):
        del self.open[slot]

    def load(self, name):
        return self.files[self.file(name)]

    def look(self, name):
        number = self.file(name)
        return None if number is None else (len(self.files[number]), list(self.names.values()).count(number))

    def list(self, name):
        self.file(name)
        return sorted(os.path.basename(path) for path in self.names if path and os.path.dirname(path) == name)

    def truncate(self, name, size):
        number = self.file(name)
        self.files[number] = self.files[number][:size].ljust(size, b"\0")

    def link(self, name, other):
        number = self.file(name)
        self.new(other)
        self.names[other] = number

    def rename(self, name, other):
        number = self.file(name)
        if self.names.get(os.path.dirname(other), 0) is not None:
            raise OSError(errno.ENOENT, other)
        if self.names.get(other, 0) == number:
            return
        self.names[other] = number
        del self.names[name]

    def unlink(self, name):
        self.file(name)
        del self.names[name]

    def mkdir(self, name):
        self.new(name)
        self.names[name] = None

    def rmdir(self, name):
        self.file(name)
        if self.list(name):
            raise OSError(errno.ENOTEMPTY, name)
        del self.names[name]


class Real:
    """The same calls, below the directory TOP."""

    def __init__(self, top):
        self.top, self.open = str(top), {}

    def path(self, name):
        return f"{self.top}/{name}" if name else self.top

    def create(self, slot, name):
        self.open[slot] = os.open(self.path(name), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    def reopen(self, slot, name):
        self.open[slot] = os.open(self.path(name), os.O_RDWR)

    def write(self, slot, offset, content):
        return os.pwrite(self.open[slot], content, offset)

    def read(self, slot):
        return os.pread(self.open[slot], 1 << 20, 0)

    def sync(self, slot):
        os.fsync(self.open[slot])

    def close(self, slot):
        os.close(self.open.pop(slot))

    def load(self, name):
        fd = os.open(self.path(name), os.O_RDONLY)
        try:
            return os.pread(fd, 1 << 20, 0)
        finally:
            try:
                os.close(fd)
            except OSError:
                pass

    def look(self, name):
        about = os.stat(self.path(name))
        return None if about.st_mode & 0o40000 else (about.st_size, about.st_nlink)

    def list(self, name):
        return sorted(os.listdir(self.path(name)))

    def truncate(self, name, size):
        os.truncate(self.path(name), size)

    def link(self, name, other):
        os.link(self.path(name), self.path(other))

    def rename(self, name, other):
        os.rename(self.path(name), self.path(other))

    def unlink(self, name):
        os.unlink(self.path(name))

    def mkdir(self, name):
        os.mkdir(self.path(name), 0o700)

    def rmdir(self, name):
        os.rmdir(self.path(name))


def choose(random_, slots):
    """A call: (its name, its arguments).  SLOTS are the open descriptors."""
    files = [place + name for place in ("", "", "d/", "e/") for name in ("f", "g", "h")]
    directory = random_.choice(("d", "e"))
    file, other = random_.choice(files), random_.choice(files)
    content = bytes([random_.randrange(256)]) * random_.randrange(1, 9000)
    by_name = [("create", random_.randrange(100, 1000), file)] * 4 + [("reopen", random_.randrange(100, 1000), file)] * 2 + [
        ("load", file), ("load", file), ("look", file), ("look", file), ("list", random_.choice(("", "d", "e"))), ("truncate", file, random_.randrange(9000)),
        ("link", file, other), ("rename", file, other), ("unlink", file), ("mkdir", directory), ("rmdir", directory)]
    slot = random_.choice(slots) if slots else None
    by_slot = [("write", slot, random_.randrange(9000), content)] * 3 + [("read", slot), ("sync", slot), ("close", slot)]
    return random_.choice(by_name + (by_slot if slots else []))


def outcome(side, call, *arguments):
    """(what a call returned, 0) or (None, errno)."""
    try:
        return getattr(side, call)(*arguments), 0
    except OSError as error:
        return None, error.errno


class Client:
    def __init__(self, top, spoil=False):
        self.real, self.states, self.failed, self.spoil = Real(top), [State()], 0, spoil

    def do(self, call, *arguments):
        """Make a call.  Returns what is wrong, or None."""
        result, error = outcome(self.real, call, *arguments)
        if self.spoil and error in GONE:
            error = errno.ENOENT
        may_be = []
        for state in self.states:
            after = copy.deepcopy(state)
            if error in GONE:
                self.failed += 1
                outcome(after, call, *arguments)
                if call in ("create", "reopen"):
                    after.open.pop(arguments[0], None)      # nobody has the descriptor
                may_be += [after] if call == "close" else [state, after]
            elif outcome(after, call, *arguments) == (result, error):
                may_be.append(after)
        if call == "close":
            self.real.open.pop(arguments[0], None)
        if not may_be:
            return f"{call}{arguments!r:.100}: {result!r:.100} {errno.errorcode.get(error, '')}, expected {outcome(copy.deepcopy(self.states[0]), call, *arguments)!r:.200}"
        self.states = list({state.key(): state for state in may_be}.values())
        return None

    def judge(self):
        """Close what is open, look at everything, and take it away.  Returns what is wrong, or None."""
        for slot in list(self.real.open):
            if wrong := self.do("close", slot):
                return wrong
        for name in ("", "d", "e"):
            if wrong := self.do("list", name):
                return wrong
        for name in [f"{place}{file}" for place in ("", "d/", "e/") for file in ("f", "g", "h")]:
            for call in ("look", "load"):
                if wrong := self.do(call, name):
                    return wrong
        seen = {repr(sorted((name, state.files.get(number)) for name, number in state.names.items())) for state in self.states}
        return None if len(seen) == 1 else f"{len(seen)} states are left"


def sequence(view, top, seed, at, spoil):
    """Make CALLS calls below TOP.  The server is killed before call AT, and the client waits for its death; or, if AT is even,
    some time after it, perhaps during a call.  Returns (what is wrong or None, number of failed calls)."""
    random_ = random.Random(seed)
    client = Client(top, spoil)
    old, killed = view.server(), None
    signal.alarm(60)
    for number in range(CALLS):
        if number == at:
            threading.Timer(0 if at % 2 else random_.random() * 0.02, os.kill, (old, signal.SIGKILL)).start()
            killed = time.monotonic()
            while at % 2 and os.path.exists(f"/proc/{old}/fd/0"):
                time.sleep(0.001)
        call = choose(random_, list(client.real.open))
        if wrong := client.do(*call):
            return f"seed {seed}, killed before {at}, call {number}: {wrong}", client.failed
        if killed and client.failed:
            time.sleep(0.6 / (CALLS - at))              # to the end of the time without a view
    while view.server() in (None, old) or not answers(top):
        time.sleep(0.02)
    failed, client.spoil = client.failed, False
    wrong = client.judge()
    signal.alarm(0)
    return f"seed {seed}, killed before {at}, afterwards: {wrong}" if wrong else None, failed


def answers(top):
    try:
        return pathlib.Path(top).exists()
    except OSError:
        return False


def run(view, top, spoil, kills):
    """Returns the number of errors."""
    bad, failures, began = 0, 0, time.monotonic()
    for number in range(kills):
        if number:                  # a new supervisor starts its second server at once
            view.stop()
            view.start()
        below = top / str(number)
        below.mkdir()
        wrong, failed = sequence(view, below, number + 1, 1 + number % (CALLS - 1), spoil)
        failures += failed
        if wrong:
            bad += 1
            print(f"not ok - {wrong}", flush=True)
            if spoil:
                break
    print(f"{'not ok' if bad or not failures else 'ok'} - deaths: {kills} sequences of {CALLS} calls, {failures} calls failed, {time.monotonic() - began:.0f} s", flush=True)
    return bad + (failures == 0)
