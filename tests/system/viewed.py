# SPDX-License-Identifier: MIT
"""A spool with its view mounted: for tests and benchmarks, in a private namespace.

`fastspool view SPOOL` runs as a child of the test, as the service would run it.  It is started again when it was killed.
"""
import ctypes
import os
import pathlib
import subprocess
import time

TOOL = "/usr/bin/fastspool"
FUSE = 0x65735546
libc = ctypes.CDLL(None, use_errno=True)


def is_view(path):
    """Is PATH a directory of a FUSE file system?"""
    found = ctypes.create_string_buffer(256)
    return libc.statfs(os.fsencode(path), found) == 0 and int.from_bytes(found.raw[:8], "little") == FUSE


def configure(spool, *lines):
    """Write /etc/fastspool.conf for SPOOL, with a view."""
    pathlib.Path("/etc/fastspool.conf").write_text("".join(line + "\n" for line in (f"spool = {spool}", "view = auto", *lines)))


class View:
    """The view of SPOOL, mounted until stop()."""

    def __init__(self, spool, output=None):
        self.spool, self.output, self.process = pathlib.Path(spool), output, None

    def start(self, seconds=60, prepared=True):
        """PREPARED: there are directories and a store, as after an Exim's first message."""
        environment = {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "FASTSPOOL_VIEW")}
        for name in ("input", "msglog"):
            if prepared and not os.path.lexists(self.spool / name) and not self.is_dead():
                (self.spool / name).mkdir()
                owner = self.spool.stat()
                os.chown(self.spool / name, owner.st_uid, owner.st_gid)
                (self.spool / name).chmod(0o750)
        if prepared:                            # it starts the mirror, too
            subprocess.run(["ls", f"{self.spool}/input"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={
                **environment, "LD_PRELOAD": "libfastspool.so", "FASTSPOOL_SPOOL": str(self.spool), "FASTSPOOL_VIEW": "off"})
        self.process = subprocess.Popen([TOOL, "view", str(self.spool)], stdin=subprocess.DEVNULL, stdout=self.output,
                                        stderr=self.output, env=environment, cwd="/")
        end = time.monotonic() + seconds
        while not (is_view(self.spool / "input") and is_view(self.spool / "msglog")):
            if self.process.poll() is not None:
                raise RuntimeError(f"fastspool view ended with status {self.process.returncode}")
            if time.monotonic() > end:
                raise RuntimeError(f"no view of {self.spool} after {seconds} s")
            time.sleep(0.02)
        return self

    def is_dead(self):
        """Is there what an earlier server left, which answers with an error?"""
        return any(line.split()[1].startswith(f"{self.spool}/") and line.split()[2].startswith("fuse")
                   for line in pathlib.Path("/proc/self/mounts").read_text().splitlines())

    def server(self):
        """The pid of the process that answers: the child of the supervisor with the most descriptors of /dev/fuse."""
        for pid in pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            try:
                if os.stat(f"/proc/{pid}").st_uid != 0 and any(
                        os.readlink(f"/proc/{pid}/fd/{number}") == "/dev/fuse" for number in os.listdir(f"/proc/{pid}/fd")):
                    return int(pid)
            except OSError:             # it is just dying
                pass
        return None

    def stop(self):
        """Unmount, and end mirror and view."""
        subprocess.run([TOOL, "stop", "--spool", str(self.spool)], check=True, stdout=subprocess.DEVNULL)
        if self.process:
            self.process.wait(60)
            self.process = None

    __enter__ = start

    def __exit__(self, *_):
        self.stop()
