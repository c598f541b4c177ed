# SPDX-License-Identifier: MIT
"""What a benchmark has outside of its private machine (tests/system/namespace.sh): the one place that makes it, and takes it
away.

The program runs twice.  Outside, run_inside() makes what the benchmark asks for, runs the same program in the private
machine, and waits.  Inside, the program finds it: directory(), Group(), and a slow disk by the name of its device.

- A signal that ends programs (^C, SIGTERM, SIGHUP) ends the private machine first, then what is outside goes, and the exit
  status is 128 and the signal's number.  Meanwhile further signals are not heard.
- Where something can't be made, what has been made before it goes, and the exit status is 77 with a sentence.
- Each name has the process number of the program outside, so two benchmarks don't meet.
- SIGKILL leaves all of it; nobody can help that.
"""
import contextlib
import json
import mmap
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

NAMESPACE = pathlib.Path(__file__).resolve().parent.parent / "system/namespace.sh"
CGROUP = pathlib.Path("/sys/fs/cgroup")
CPUACCT = CGROUP / "cpuacct"
DIRECTORY, GROUP = "FASTSPOOL_BENCH_DIRECTORY", "FASTSPOOL_BENCH_GROUP"     # in the environment of the program inside
FIGURES = "figures.json"                                                   # in the directory
IOPS = 200              # of the slow disk
MEBIBYTES = 2048        # size of the slow disk
HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


def name(what):
    return f"fastspool-{what}.{os.getpid()}"


def skip(why):
    print(f"{pathlib.Path(sys.argv[0]).name}: skipped: {why}")
    sys.exit(77)


# --- outside ---

@contextlib.contextmanager
def made_directory():
    """A directory on the machine's own disk, for spools."""
    with tempfile.TemporaryDirectory(prefix=f"{name('bench')}.", dir="/var/tmp") as path:
        os.chmod(path, 0o755)
        yield path


@contextlib.contextmanager
def made_group():
    """A control group that counts processor time."""
    path = CPUACCT / name("bench")
    path.mkdir()
    try:
        yield str(path)
    finally:
        remove_group(path)


def remove_group(path):
    """(Its last processes leave it a moment after they were killed.)"""
    for _ in range(600):
        try:
            path.rmdir()
            return
        except OSError:
            time.sleep(0.1)
    print(f"{path} stays: processes are in it", file=sys.stderr)


@contextlib.contextmanager
def slow_disk(iops=IOPS):
    """A loop device on tmpfs with ext4 and a limit on writes a second; yields the device."""
    with contextlib.ExitStack() as undo:
        work = tempfile.mkdtemp(prefix=f"{name('disk')}.", dir="/dev/shm")
        undo.callback(shutil.rmtree, work)
        image = f"{work}/image"
        with open(image, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, MEBIBYTES << 20)
        device = subprocess.run(["losetup", "--find", "--show", image], check=True, text=True, stdout=subprocess.PIPE).stdout.strip()
        undo.callback(subprocess.run, ["losetup", "--detach", device])
        subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", device], check=True)
        limit_writes(undo, device, iops)
        yield device


def limit_writes(undo, device, iops):
    """Limit the writes of every process, because ext4's journal thread writes too."""
    number = os.stat(device).st_rdev
    numbers = f"{os.major(number)}:{os.minor(number)}"
    old, new = CGROUP / "blkio/blkio.throttle.write_iops_device", CGROUP / "cgroup.subtree_control"
    if old.exists():
        old.write_text(f"{numbers} {iops}")
        undo.callback(old.write_text, f"{numbers} 0")
    elif new.exists():
        group = CGROUP / name("disk")
        new.write_text("+io")
        before = pathlib.Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2]
        group.mkdir()
        undo.callback(remove_group, group)
        (group / "io.max").write_text(f"{numbers} wiops={iops}")
        (group / "cgroup.procs").write_text(str(os.getpid()))
        undo.callback(pathlib.Path(f"{CGROUP}{before}/cgroup.procs").write_text, str(os.getpid()))
    else:
        skip("the kernel offers neither blkio.throttle nor io.max here")


def hold_signals():
    """From here on a signal that ends programs is heard by wait() alone: nothing is half made, or half taken away."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)


def wait(command, **keywords):
    """Run COMMAND, after hold_signals(), and return its exit status.  At a signal it gets SIGTERM and time to end, and then
    this program ends, by the way of what is to be taken away."""
    process = subprocess.Popen(list(map(str, command)), preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD),
                               **keywords)
    while process.poll() is None:
        number = signal.sigwait(HEARD)
        if number != signal.SIGCHLD:
            process.terminate()
            process.wait()
            sys.exit(128 + number)
    return process.returncode


def run_inside(build, group=False, iops=None, figures_to=None):
    """Run this program in a private machine, with BUILD installed if it is not None, and end as it ends.  It has a directory on
    the machine's own disk, a group that counts processor time if GROUP, and with IOPS a slow disk: --device.  FIGURES_TO, a path
    or None, gets the figures that it keeps: what it writes elsewhere may be gone with its machine."""
    if os.geteuid() != 0:
        skip("needs root")
    hold_signals()
    with contextlib.ExitStack() as made:
        place, environment, command = None, dict(os.environ), [NAMESPACE, *(["--build", build] if build else []), *sys.argv]
        try:
            place = made.enter_context(made_directory())
            environment[DIRECTORY] = place
            if group:
                environment[GROUP] = made.enter_context(made_group())
            if iops:
                command += ["--device", made.enter_context(slow_disk(iops))]
        except (OSError, subprocess.CalledProcessError) as error:
            skip(f"can't make what it needs outside of its machine: {error}")
        status = wait(command, env=environment)
        if figures_to and not status:
            shutil.copyfile(f"{place}/{FIGURES}", figures_to)
    sys.exit(status)


# --- inside ---

def directory():
    """The directory on the machine's own disk."""
    return pathlib.Path(os.environ[DIRECTORY])


def warm_memory(size=1 << 30):
    """Touch free memory of the machine, and give it back at once.  The host of a virtual machine takes huge pages that have been
    free for two seconds, and to have one again costs 5 ms, twenty times what zeroing takes.  Small pages stay, so this would
    count against whoever uses huge ones."""
    size = min(size, os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE // 4)
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for page in range(0, size, mmap.PAGESIZE):
            memory[page] = 1


def keep(figures):
    """Keep FIGURES for who ran the program with --json."""
    (directory() / FIGURES).write_text(json.dumps(figures))


class Group:
    """The control group that counts the processor time of what starts in it."""

    def __init__(self):
        self.path = pathlib.Path(os.environ[GROUP])

    def enter(self, inside):
        (self.path if inside else CPUACCT).joinpath("cgroup.procs").write_text("0")

    def take(self, pid):
        """A process that runs already counts from here on."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def nanoseconds(self):
        return int((self.path / "cpuacct.usage").read_text())
