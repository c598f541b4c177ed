# SPDX-License-Identifier: MIT
"""A Debian 12 with systemd as process 1, in private namespaces (boot), and what its tests share.

The root directory is made by debootstrap, which takes minutes and Debian's mirror.  FASTSPOOL_TEST_DEBIAN names a file:
the root is kept there, and taken from there when it exists.

The spool is a file system of its own, on a loop device that goes with its mount.  Network: the machine and the
tests share a private one.
"""
import ctypes
import os
import pathlib
import pty
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
PACKAGES = "acl,cron,dbus,e2fsprogs,exim4-daemon-light,libfuse3-3,libisal2,liblmdb0,mount,perl,procps,systemd,systemd-sysv"
MIRROR = "http://deb.debian.org/debian"
SPOOL = "/var/spool/exim4"
SERVICE = "fastspool@var-spool-exim4.service"
OWNER = "Debian-exim"
PORT = 2525
CLONE_NEWNET = 0x40000000                           # <sched.h>
REBOOT, POWER_OFF = -1, -2                          # how process 1 of a PID namespace ends

# They would change the machine below, or need a network.
MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
          "systemd-sysctl.service", "systemd-binfmt.service", "systemd-modules-load.service", "e2scrub_all.timer",
          "systemd-udevd.service", "fstrim.timer", "dev-hugepages.mount", "dev-mqueue.mount")

EXIM = f"""
primary_hostname = mail.test
qualify_domain = mail.test
local_interfaces = 127.0.0.1
daemon_smtp_ports = {PORT}
rfc1413_query_timeout = 0s
timeout_frozen_after = 0s
acl_smtp_rcpt = accept
admin_groups = mail
keep_environment =
begin acl
begin routers
wait:
  driver = redirect
  domains = wait.test
  allow_defer
  data = ${{if exists{{/etc/released}}{{box@here.test}}{{:defer: it waits}}}}
hang:
  driver = accept
  domains = hang.test
  condition = ${{if !exists{{/etc/released}}}}
  transport = hang
here:
  driver = accept
  transport = box
begin transports
box:
  driver = appendfile
  file = /var/mail/box.$message_exim_id
  user = mail
  use_lockfile = false
hang:
  driver = pipe
  command = /bin/sh -c "while [ ! -e /etc/released ]; do sleep 0.1; done; exit 75"
  temp_errors = 75
  user = mail
begin retry
* * F,1d,1s
"""

SPOOL_MOUNT = f"""
[Unit]
Before=local-fs.target
[Mount]
What=/spool.image
Where={SPOOL}
Type=ext4
Options=loop
[Install]
WantedBy=local-fs.target
"""


class Failure(Exception):
    """What a test found."""


def check(truth, sentence):
    if not truth:
        raise Failure(sentence)


def wait_for(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        check(time.monotonic() < end, f"{what}: not within {seconds} s")
        time.sleep(0.05)


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def terminate(number, _):
    hold_off()                                      # the machine is being removed
    sys.exit(128 + number)


def hold_off():
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def begin():
    """Private mounts; a signal removes the machine."""
    if not os.environ.get("FASTSPOOL_TEST_INSIDE"):
        os.environ["FASTSPOOL_TEST_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "--mount", "--", sys.executable, *sys.argv])
    for number in ENDING:
        signal.signal(number, terminate)


def children_of(pid):
    return pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def run(*command, **how):
    """Run COMMAND, which must succeed.  Where this program is interrupted, or killed, all that it has started ends: it lives in a
    PID namespace of its own, which ends with the first process, and that one with unshare."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)       # until it can be ended
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child", "--", *command],
                               preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before), **how)
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        check(process.wait() == 0, f"{' '.join(map(str, command))}: exit status {process.returncode}")
    finally:
        first = children_of(process.pid) if process.returncode is None else []
        process.kill()
        process.wait()
        wait_for(lambda: not any(map(is_alive, first)), "all processes of a command have ended")


def leave_network():
    """From here on this program, and the machine that it boots, have a network of their own.  debootstrap needed the other."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) < 0:
        raise OSError(ctypes.get_errno(), "unshare")


def report(passed, failed):
    """The end of a program of tests."""
    if os.environ.get("FASTSPOOL_TEST_COUNTS"):
        with open(os.environ["FASTSPOOL_TEST_COUNTS"], "a") as counts:
            counts.write(f"{passed} {failed} 0\n")
    print(f"{passed} passed, {failed} failed, 0 skipped")
    sys.exit(failed != 0)


def debian(root):
    """Make the root directory ROOT."""
    cache = os.environ.get("FASTSPOOL_TEST_DEBIAN")
    if cache and os.path.exists(cache):
        run("tar", "-C", root, "-xpf", cache)
        return
    print("# debootstrap: some minutes", flush=True)
    run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", root, MIRROR, stdout=subprocess.DEVNULL)
    if cache:
        new = pathlib.Path(cache + ".new")
        try:
            run("tar", "-C", root, "-cpf", new, ".")
            new.rename(cache)
        finally:
            new.unlink(missing_ok=True)


class Machine:
    def __init__(self, names=()):
        self.names = names
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="fastspool-systemd.", dir="/var/tmp"))
        self.root = self.place / "root"
        self.root.mkdir(mode=0o755)
        self.outer = None                           # unshare, whose child is
        self.first = None                           # process 1
        self.boots = 0
        self.name = self.place.name.replace(".", "-")
        self.token = 0
        self.owed = set()                           # tokens of what was acknowledged

    def make(self, build=None):
        """Debian, and BUILD in it, if one is given."""
        debian(self.root)
        if build:
            run("meson", "install", "-C", build, "--no-rebuild", "--quiet", env={**os.environ, "DESTDIR": str(self.root)})
        self.configure()
        leave_network()

    def wants(self, name):
        """Was a test of this name asked for?"""
        return not self.names or any(part in name for part in self.names)

    def write(self, path, text):
        path = self.root / path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def configure(self):
        self.chroot("ldconfig")
        self.write("/etc/exim4/exim4.conf", EXIM)
        self.write("/etc/systemd/system/var-spool-exim4.mount", SPOOL_MOUNT)
        self.write("/etc/systemd/system.conf.d/stop.conf", "[Manager]\nDefaultTimeoutStopSec=10s\n")
        self.chroot("useradd", "alice")
        self.chroot("useradd", "--groups", OWNER, "--create-home", "bob")
        self.chroot("systemctl", "mask", *MASKED)
        self.chroot("systemctl", "enable", "var-spool-exim4.mount")
        with open(self.root / "spool.image", "wb") as image:
            image.truncate(512 << 20)
        self.chroot("sh", "-c", f"mkfs.ext4 -q /spool.image -d {SPOOL} -E root_owner=$(id -u {OWNER}):$(id -g {OWNER})")

    def chroot(self, *command):
        run("chroot", self.root, *command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    # ---- its life ----

    def boot(self):
        """Boot, and wait until all units have started, or failed."""
        self.boots += 1
        ours, console = pty.openpty()
        self.outer = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", HERE / "boot", self.root, os.ttyname(console), self.name],
                                      start_new_session=True)
        self.log = open(self.place / f"console.{self.boots}", "wb", 0)
        threading.Thread(target=self.record, args=(ours, console), daemon=True).start()
        wait_for(self.find_first, "unshare starts process 1")
        wait_for(lambda: self.sh("test -S /run/systemd/private", may_fail=True).returncode == 0, "systemd is up")
        self.sh("systemctl is-system-running --wait", may_fail=True)

    def record(self, ours, console):
        while True:
            try:
                self.log.write(os.read(ours, 4096))
            except OSError:
                return

    def find_first(self):
        check(self.outer.poll() is None, f"no boot: exit status {self.outer.returncode}")
        children = children_of(self.outer.pid)
        self.first = children[0] if children else None
        try:
            return self.first and pathlib.Path(f"/proc/{self.first}/comm").read_text().strip() == "systemd"
        except FileNotFoundError:                       # a command of the script `boot`, which has ended meanwhile
            return False

    def end(self, command):
        """COMMAND: reboot or poweroff.  Returns how process 1 has ended."""
        self.sh(f"systemctl {command}", may_fail=True)
        return self.ended()

    def cut_power(self):
        os.kill(int(self.first), 9)
        self.ended()

    def ended(self):
        try:
            result = self.outer.wait(300)
        except subprocess.TimeoutExpired:
            raise Failure("process 1 has not ended within 300 s") from None
        self.first = None
        return result

    def console(self):
        return (self.place / f"console.{self.boots}").read_text(errors="replace")

    def remove(self):
        hold_off()
        if self.outer:
            self.outer.kill()
            self.outer.wait()
        groups = pathlib.Path("/sys/fs/cgroup")
        for top in [groups / self.name, *groups.glob(f"*/{self.name}")]:
            for directory, _, _ in os.walk(top, topdown=False):
                for _ in range(100):
                    try:
                        os.rmdir(directory)
                        break
                    except OSError:                 # the last process is still on its way
                        time.sleep(0.1)
        for line in reversed(pathlib.Path("/proc/self/mounts").read_text().splitlines()):
            if line.split()[1].startswith(f"{self.place}/"):    # debootstrap's, where it was interrupted
                subprocess.run(["umount", "--lazy", line.split()[1]], check=True)
        shutil.rmtree(self.place)

    # ---- commands in it ----

    def sh(self, command, user=None, may_fail=False, seconds=240):
        words = ["sh", "-c", command]
        if user:
            words = ["runuser", "-u", user, "--", *words]
        result = subprocess.run(["nsenter", "--target", self.first, "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--",
                                 "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *words], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds)
        check(may_fail or result.returncode == 0, f"{command}: exit status {result.returncode}: {result.stdout[-500:]}")
        return result

    def out(self, command, **how):
        return self.sh(command, **how).stdout.strip()

    def show(self, unit, name):
        return self.out(f"systemctl show -p {name} --value {unit}")

    def is_active(self, unit):
        return self.show(unit, "ActiveState") == "active"

    def pids(self, process):
        """PROCESS: mirror or view (with its children)."""
        return self.out(f"pgrep -f '^(/usr/bin/)?fastspool {process}'", may_fail=True).split()

    def group_of(self, pid):
        """The unit of a process."""
        return self.out(f"ps -o unit= -p {pid}", may_fail=True)

    def journal(self, arguments="-t fastspool"):
        return self.out(f"journalctl -b --no-pager -o cat {arguments}")

    # ---- mail ----

    def listens(self):
        try:
            socket.create_connection(("127.0.0.1", PORT), timeout=5).close()
            return True
        except OSError:
            return False

    def send(self, count=1, domain="wait.test", size=500):
        """Send messages, each over a connection of its own.  Returns the codes."""
        codes = []
        for _ in range(count):
            self.token += 1
            token = f"token-{self.token}."
            try:
                with smtplib.SMTP("127.0.0.1", PORT, timeout=60) as client:
                    client.sendmail("from@mail.test", [f"box@{domain}"], f"Subject: {token}\n\n" + ("x" * 70 + "\n") * (size // 71))
                code = 250
            except smtplib.SMTPResponseException as error:
                code = error.smtp_code
            except smtplib.SMTPRecipientsRefused as error:
                code = list(error.recipients.values())[0][0]
            except (OSError, smtplib.SMTPException) as error:
                code = type(error).__name__
            if code == 250:
                self.owed.add(token)
            codes.append(code)
        return codes

    def submit(self, domain="wait.test", user=None):
        """By the sendmail command."""
        self.token += 1
        token = f"token-{self.token}."
        self.sh(f"printf 'Subject: {token}\\n\\nx\\n' | sendmail -odq box@{domain}", user=user)
        self.owed.add(token)

    def submit_many(self, count, domain="wait.test"):
        """By one sendmail command that reads a batch of SMTP."""
        tokens = [f"token-{self.token + number}." for number in range(1, count + 1)]
        self.token += count
        self.write("/batch", "HELO mail.test\n" + "".join(
            f"MAIL FROM:<from@mail.test>\nRCPT TO:<box@{domain}>\nDATA\nSubject: {token}\n\nx\n.\n" for token in tokens))
        self.sh("sendmail -bS -odq </batch")
        os.unlink(self.root / "batch")
        self.owed.update(tokens)

    def count(self, user=None):
        return int(self.out("exim4 -bpc", user=user))

    def delivered(self):
        boxes = (self.root / "var/mail").glob("box.*")
        return [token for box in boxes for token in re.findall(r"^Subject: (token-\d+\.)$", box.read_text(), re.M)]

    def deliver_all(self):
        """Deliver all that waits; each acknowledged message has arrived exactly once."""
        self.write("/etc/released", "")
        end = time.monotonic() + 60                 # the daemon's own queue run may be at a message
        while (left := self.count()) and time.monotonic() < end:
            self.sh("exim4 -qff")
        os.unlink(self.root / "etc/released")
        check(left == 0, f"{left} messages stay in the queue")
        arrived = self.delivered()
        check(sorted(arrived) == sorted(self.owed), f"lost {sorted(self.owed - set(arrived))[:5]}, twice or never "
              f"acknowledged {sorted(t for t in arrived if arrived.count(t) > 1 or t not in self.owed)[:5]}")

    def forget(self):
        """After a failed test: the next one begins with what is in the queue now."""
        try:
            self.deliver_all()
        except (Failure, subprocess.TimeoutExpired):
            self.owed = set(self.delivered())
