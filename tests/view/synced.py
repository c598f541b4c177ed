# SPDX-License-Identifier: MIT
"""When the fsync of a directory of the view waits (lib/view/synced.c), with `durability = acked`.

The mirror is stopped, so that nothing is committed.  A call that waits lasts until the mirror goes on.
"""
import contextlib
import json
import os
import signal
import subprocess
import threading
import time

from harness import suspend

HELD = 0.5              # seconds for which the mirror is stopped, where a call has to wait
PATIENCE = 30.0         # seconds that a call which does not wait may take on a busy machine
SOON = 0.5              # seconds from the open to it, of one in which the view knows the open still
TRIES = 50


class Commits:
    """Held up, while this is entered: for HELD seconds, and then not longer.  A mirror that is stopped while it holds the
    store's lock is killed by who waits for that: then they were not held up, which is ProcessLookupError in the end."""

    def __init__(self, spool):
        self.spool = spool

    def __enter__(self):
        self.mirror = 0             # the next one is started by who waits for a commit
        while not self.mirror:
            told = subprocess.run(["fastspool", "status", "--json", "--spool", str(self.spool)], stdout=subprocess.PIPE).stdout
            self.mirror = json.loads(told)["mirror_pid"]
        suspend(self.mirror)

    def __exit__(self, *_):
        os.kill(self.mirror, signal.SIGCONT)

    def waits(self, call, seconds):
        """Does CALL wait for the mirror, which goes on after so many SECONDS?"""
        ended, went_on = threading.Event(), False

        def go_on():
            nonlocal went_on
            if not ended.wait(seconds):
                went_on = True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.mirror, signal.SIGCONT)
        thread = threading.Thread(target=go_on)
        thread.start()
        call()
        ended.set()
        thread.join()
        return went_on


def by_other(command, top):
    subprocess.run(["sh", "-c", command], cwd=top, check=True)


def in_thread(call):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def sync_file(path):
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, b"x")
    os.fsync(fd)
    os.close(fd)


def run(spool, top):
    """Returns the number of errors."""
    commits, bad = Commits(spool), 0
    (top / "file").write_bytes(b"x")
    (top / "other").write_bytes(b"x")

    def expect(waits, title, before, call, flags=os.O_RDONLY):
        """Open the directory, stop the commits, do BEFORE, and look whether CALL(descriptor) waits."""
        nonlocal bad
        right = None                # the commits were not held up, or it comes too late
        for _ in range(TRIES):
            fd, opened, held = os.open(top, flags | os.O_DIRECTORY), time.monotonic(), None
            with contextlib.suppress(ProcessLookupError):
                with commits:
                    before(fd)
                    if waits or time.monotonic() - opened < SOON:
                        held = commits.waits(lambda: call(fd), HELD if waits else PATIENCE)
                right = None if held is None else held == waits
            os.close(fd)
            if right is not None:
                break
        bad += not right
        print(f"{'ok' if right else 'not ok'} - {title}: {'waits' if waits else 'at once'}", flush=True)

    def change(_):
        by_other("echo >new-$$", top)

    def nothing(_):
        pass

    def reopen(_):
        os.close(os.open(top, os.O_RDONLY | os.O_DIRECTORY))
    by_python = "exec python3 -c 'import os; fd = os.open(\"other\", os.O_WRONLY); os.write(fd, b\"x\"); os.fsync(fd)'"
    expect(False, "fsync of a file", nothing, lambda fd: sync_file(top / "file"))
    expect(False, "the first fsync after the open that waited, another process has changed a name", change, os.fsync)
    expect(True, "the second fsync", lambda fd: (os.fsync(fd), change(fd)), os.fsync)
    expect(True, "the fsync by another thread", change, lambda fd: in_thread(lambda: os.fsync(fd)))

    def other_opens(fd):
        nonlocal opener
        opener = subprocess.Popen(["python3", "-c", "import os; fd = os.open('.', os.O_DIRECTORY); print(flush=True); input()\n"
                                   "if os.fork() == 0: os.fsync(fd)\nelse: os.wait()"], cwd=top, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        opener.stdout.readline()
        change(fd)
    opener = None
    # Neither of these two processes has changed or synced anything.
    expect(True, "the fsync by another process", other_opens, lambda _: opener.communicate(b"\n"))
    expect(True, "the fsync after a change of a name by the same process", lambda fd: (top / "mine").write_bytes(b"x"), os.fsync)
    expect(True, "the same by another thread of it", lambda fd: in_thread(lambda: ((top / "mine").touch(), os.unlink(top / "mine"))),
           os.fsync)
    expect(True, "the fsync after the sync of a file by the same process", lambda fd: sync_file(top / "file"), os.fsync)
    expect(True, "the same by another thread of it", lambda fd: in_thread(lambda: sync_file(top / "file")), os.fsync)
    expect(True, "the fsync a second later", lambda fd: (change(fd), time.sleep(1.1)), os.fsync)
    expect(True, "the fsync of a directory opened with O_NONBLOCK", change, os.fsync, os.O_NONBLOCK)
    expect(True, "an open without O_NONBLOCK after the sync of a file", lambda fd: sync_file(top / "file"), reopen)
    expect(True, "an open after the sync of a file by another thread", lambda fd: in_thread(lambda: sync_file(top / "file")), reopen)
    expect(False, "an open after the sync of a file by another process", lambda fd: by_other(by_python, top), reopen)
    expect(True, "the same by another thread than the first", lambda fd: by_other(by_python, top), lambda fd: in_thread(lambda: reopen(fd)))
    expect(False, "an open with O_NONBLOCK after it", lambda fd: sync_file(top / "file"),
           lambda fd: os.close(os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)))
    return bad
