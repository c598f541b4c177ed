# SPDX-License-Identifier: MIT
"""A private ext4 on a loop device.  Tests cut its power, fill it up or freeze it.

The image lies on tmpfs.  It holds what has reached the device, and nothing that was only in ext4's page cache.  The mount
and the device end with the private mount namespace, even if the test dies: `mount -o loop` releases the device at the last
unmount.
"""
import contextlib
import pathlib
import subprocess


def run(*command):
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)


class LoopDisk:
    def __init__(self, place, mebibytes):
        """Create the disk and mount it at PLACE, an existing directory."""
        self.place = pathlib.Path(place)
        self.image = self.place.with_name(self.place.name + ".image")
        with open(self.image, "wb") as file:
            file.truncate(mebibytes << 20)
        # No lazy initialisation: it would write in the background at any time.
        run("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.image)
        self.mount()

    def mount(self):
        run("mount", "-o", "loop", self.image, self.place)

    def unmount(self):
        run("umount", self.place)

    def copy(self):
        """Copy the disk as of one instant.  The kernel may write to the image during the copy; then copy again."""
        copy = self.image.with_name(self.image.name + ".copy")
        while True:
            run("cp", "--sparse=always", self.image, copy)
            if subprocess.run(["cmp", "--silent", self.image, copy]).returncode == 0:
                return

    def use_copy(self):
        """Mount the copy in place of the disk.  No process must use the disk meanwhile."""
        self.unmount()
        self.image.with_name(self.image.name + ".copy").rename(self.image)
        self.mount()

    @contextlib.contextmanager
    def frozen(self):
        """Freeze the file system: writers wait."""
        run("fsfreeze", "--freeze", self.place)
        try:
            yield
        finally:
            run("fsfreeze", "--unfreeze", self.place)
