# SPDX-License-Identifier: MIT
"""An ext4 of its own, on a loop device: a disk that a test may cut the power of, fill up or freeze.

The device's image lies on tmpfs, so what is in the image is what has reached the device; what was only in the page cache
of the file system on it is not.  The mount and the device go with the private mount namespace, whatever becomes of the
test (mount's loop devices are released by the last unmount).
"""
import contextlib
import pathlib
import subprocess


def run(*command):
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)


class LoopDisk:
    def __init__(self, place, mebibytes):
        """Make it, and mount it at PLACE, a directory that exists."""
        self.place = pathlib.Path(place)
        self.image = self.place.with_name(self.place.name + ".image")
        with open(self.image, "wb") as file:
            file.truncate(mebibytes << 20)
        # Nothing is left for later: a background initialisation would write at its own times.
        run("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.image)
        self.mount()

    def mount(self):
        run("mount", "-o", "loop", self.image, self.place)

    def unmount(self):
        run("umount", self.place)

    def copy(self):
        """Take the disk as it is at this instant.  The kernel's own writing may go on while the image is copied; then the
        copy is no instant, and another one is taken."""
        copy = self.image.with_name(self.image.name + ".copy")
        while True:
            run("cp", "--sparse=always", self.image, copy)
            if subprocess.run(["cmp", "--silent", self.image, copy]).returncode == 0:
                return

    def use_copy(self):
        """Mount the copy in the disk's place.  Nobody may use it meanwhile."""
        self.unmount()
        self.image.with_name(self.image.name + ".copy").rename(self.image)
        self.mount()

    @contextlib.contextmanager
    def frozen(self):
        """Whoever writes to it waits."""
        run("fsfreeze", "--freeze", self.place)
        try:
            yield
        finally:
            run("fsfreeze", "--unfreeze", self.place)
