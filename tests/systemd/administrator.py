#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""An administrator's way through fastspool on a Debian 12 with systemd and a working exim4, as one story:

    administrator.py --packages DIR

500 messages wait in Exim's queue.  The packages of DIR (tests/debs) are installed, enabled, misused, upgraded under load,
rebooted, disabled and purged.  After each step every reader counts every message, and in the end each one has arrived
exactly once.

Prints the transcript: the administrator's commands behind `#`, what they say, and a line for each step.  Needs root;
machine.py says what is booted.  The last line is "N passed, N failed, N skipped".
"""
import argparse
import shutil
import threading

from machine import OWNER, REBOOT, SERVICE, SPOOL, Failure, Machine, begin, check, report, wait_for

QUEUED = 500
LIBRARY = "/usr/lib/x86_64-linux-gnu/libfastspool.so.0"
CONFIGURATION = "/etc/fastspool.conf"
WAYS = "/etc/systemd/system/exim4.service.d/fastspool.conf /etc/default/exim4"
PACKAGES = "libfastspool0_*.deb fastspool_*.deb"

# A reader: what it is called, and a command that prints how many messages it sees.
# (mailq lists a message without its age while it can't read the header, so the identifiers are counted.)
READERS = (("mailq", "mailq | tee /tmp/mailq.$$ | grep -cE ' [0-9A-Za-z]{6}-[0-9A-Za-z]{6}-[0-9A-Za-z]{2} '; grep -F '***' /tmp/mailq.$$"),
           ("exim -bpc", "exim4 -bpc"),
           ("exiqgrep -c", "exiqgrep -c | sed 's/ .*//'"),
           ("ls", f"ls -R {SPOOL}/input | grep -c -e -H$"))
# Exim takes a member of `mail` for an administrator (admin_groups); he may not list its directories.
USERS = ((None, READERS), (OWNER, READERS), ("bob", READERS), ("carol", READERS[:3]))


class Story:
    def __init__(self, m):
        self.m = m

    # ---- telling it ----

    def do(self, command, status=0, shown=40):
        """The administrator types COMMAND."""
        result = self.m.sh(command, may_fail=True)
        lines = result.stdout.rstrip().splitlines()
        print(f"# {command}")
        print("\n".join(lines[:shown] + ["..."] * (len(lines) > shown)), flush=True)
        check(result.returncode == status, f"{command}: exit status {result.returncode}, not {status}")
        return result.stdout

    # ---- what holds after each step ----

    def counts(self):
        """All readers, as each user, see all that was taken."""
        taken = len(self.m.owed)
        for user, readers in USERS:
            for name, command in readers:
                seen = self.m.out(command, user=user, may_fail=True)
                if seen != str(taken):
                    again = self.m.out(command, user=user, may_fail=True)
                    raise Failure(f"{name} of {user or 'root'} says {seen!r}, then {again!r}; {taken} messages were taken")
        for how, command in (("su -", "su - bob -c '/usr/sbin/exim4 -bpc'"), ("an empty environment", "env -i /usr/sbin/exim4 -bpc"),
                             ("cron", "cat /run/counted")):
            if how == "cron":
                self.m.sh("rm -f /run/crond.reboot /run/counted; systemctl restart cron")
                wait_for(lambda: self.m.out("cat /run/counted 2>/dev/null", may_fail=True), "cron's job counts")
            seen = self.m.out(command, may_fail=True)
            check(seen == str(taken), f"exim -bpc by {how} says {seen!r}, and {taken} messages were taken")
        print(f"== {taken} messages: so say mailq, exim -bpc, exiqgrep -c and ls, by root, the owner, a member of its group and "
              "of `mail`, cron and su")

    def takes_mail(self, smtp=10, user="alice"):
        check(self.m.send(smtp) == [250] * smtp, "SMTP is refused")
        self.m.submit(user=user)
        self.m.submit()

    def served(self):
        daemon = self.m.out("cat /run/exim4/exim.pid")
        return "libfastspool" in self.m.out(f"cat /proc/{daemon}/maps", may_fail=True)

    def green(self):
        said = self.do("fastspool doctor")
        check(all(line.startswith("ok ") for line in said.splitlines()), "doctor is not green")
        self.do("fastspool status")

    # ---- the steps ----

    def exim_alone(self):
        """500 messages in the queue of Debian's Exim, and no fastspool."""
        m = self.m
        m.write("/etc/cron.d/count", "PATH=/usr/sbin:/usr/bin:/bin\n@reboot root exim4 -bpc >/run/counted 2>&1\n")
        m.sh("chmod 644 /etc/cron.d/count")
        m.submit_many(QUEUED - 20)
        check(m.send(20) == [250] * 20, "Exim alone refuses mail")
        self.files = m.out("find /etc /usr /lib -xdev | sort")
        self.counts()

    def installed(self):
        """The packages change nothing about Exim."""
        self.do(f"cd /packages && dpkg -i {PACKAGES}")
        check(not self.served(), "the installation gives Exim the library")
        self.counts()

    def enabled(self):
        """enable, restart, and everybody sees what was there and what comes."""
        self.do("fastspool enable", status=1)          # nobody is there to ask
        self.do("fastspool enable --yes")
        self.do("systemctl restart exim4")
        wait_for(self.m.listens, "Exim listens")
        check(self.served() and self.m.is_active(SERVICE), "Exim is not served")
        self.green()
        self.counts()
        self.takes_mail()
        self.counts()

    def mistake(self, make, mend, words, status):
        """A start of Exim is refused, with WORDS; doctor and status tell it; nobody misses a message meanwhile."""
        self.do(make)
        self.do("systemctl restart exim4", status=1, shown=1)
        check(words in self.do("journalctl -b -u exim4 --no-pager -o cat -n 12 | grep 'must not start'"), "the refusal does not tell")
        said = self.do("fastspool doctor | grep -v '^ok '; fastspool doctor >/dev/null", status=2)
        check(words in said, "doctor does not tell")
        said = self.do("fastspool status | head -n 1; fastspool status >/dev/null", status=status)
        check("all is well" not in said, "status does not tell")
        check(not self.m.listens(), "Exim runs")
        self.counts()
        self.do(mend)
        self.m.sh("systemctl reset-failed exim4")       # systemd allows five starts in ten seconds; nobody types as fast
        self.do("systemctl restart exim4")
        wait_for(self.m.listens, "Exim listens")
        check(self.served(), "Exim is not served")
        self.takes_mail(2)
        self.counts()

    def without_the_library(self):
        """The lines that give Exim the library are lost."""
        self.mistake(f"mkdir /root/kept && cp --parents {WAYS} /root/kept && sed -i /LD_PRELOAD/d {WAYS} && systemctl daemon-reload",
                     "cp -r /root/kept/etc / && rm -r /root/kept && systemctl daemon-reload", "nothing gives Exim the library", 2)

    def by_hand(self):
        """A daemon that is started by hand, without the library, works on the view, and doctor names it."""
        self.do("systemctl stop exim4")
        self.do("exim4 -bd -q30m")
        wait_for(self.m.listens, "Exim listens")
        check("has not got the library" in self.do("fastspool doctor | grep -v '^ok '; fastspool doctor >/dev/null", status=1),
              "doctor does not tell")
        self.takes_mail(2)
        self.counts()
        self.do("pkill -o -x exim4; while pgrep -x exim4; do sleep 0.1; done", shown=0)
        self.do("systemctl start exim4")
        wait_for(self.m.listens, "Exim listens")

    def a_typo(self):
        """A key of the configuration is misspelt."""
        self.mistake(f"echo 'memroy = 1G' >>{CONFIGURATION}", f"sed -i /memroy/d {CONFIGURATION}", "memroy", 2)

    def the_lost_bit(self):
        """The library's set-user-ID bit is lost."""
        self.mistake(f"chmod 0644 {LIBRARY}", f"chmod 4644 {LIBRARY}", "chmod 4644", 2)

    def upgraded(self):
        """Another version is installed while Exim takes mail."""
        codes, more = [], threading.Event()

        def load():
            while not more.wait(0.05):
                codes.extend(self.m.send())

        sender = threading.Thread(target=load)
        sender.start()
        try:
            wait_for(lambda: len(codes) >= 20, "mail comes")
            self.do(f"cd /packages/next && dpkg -i {PACKAGES}")
            seen = len(codes)
            wait_for(lambda: len(codes) >= seen + 20, "mail comes")
        finally:
            more.set()
            sender.join()
        refused = [code for code in codes if code != 250]
        print(f"== {codes.count(250)} messages were taken meanwhile; {len(refused)} connections came to nothing, while Exim restarted: "
              f"{sorted(set(map(str, refused)))}")
        check(not any(isinstance(code, int) for code in refused), "Exim answered with an error")
        wait_for(self.m.listens, "Exim listens")
        check("(deleted)" not in self.m.out("grep -h libfastspool /proc/[0-9]*/maps", may_fail=True), "a process has the old library")
        self.green()
        self.counts()

    def rebooted(self):
        """The machine is rebooted."""
        print("# reboot")
        check(self.m.end("reboot") == REBOOT, "no reboot")
        self.m.boot()
        wait_for(self.m.listens, "Exim listens")
        check(self.served(), "Exim is not served")
        self.green()
        self.counts()

    def disabled(self):
        """disable moves every message to the plain spool, and Exim is Debian's again."""
        self.do("fastspool disable --yes", status=1)   # Exim runs
        self.do("systemctl stop exim4")
        self.do("fastspool disable --yes")
        self.do("systemctl start exim4")
        wait_for(self.m.listens, "Exim listens")
        check(not self.served(), "Exim has the library")
        check(not self.m.sh(f"grep {SPOOL}/ /proc/mounts", may_fail=True).stdout, "a view is mounted")
        check(not self.m.pids("(mirror|view)"), "a process of fastspool runs")
        self.counts()
        self.takes_mail(2)
        self.counts()

    def purged(self):
        """The packages go, and leave nothing; then all mail is delivered, each message once."""
        self.do("dpkg -P fastspool libfastspool0")
        left = set(self.m.out("find /etc /usr /lib -xdev | sort").splitlines()) - set(self.files.splitlines())
        check(not left, f"a purge leaves {left}")
        check(not self.m.sh(f"ls -d {SPOOL}/.fastspool /run/fastspool", may_fail=True).stdout.startswith("/"), "a purge leaves state")
        self.counts()
        self.m.deliver_all()
        print(f"== {len(self.m.owed)} messages were delivered, each of them once")

    STEPS = (exim_alone, installed, enabled, without_the_library, by_hand, a_typo, the_lost_bit, upgraded, rebooted, disabled, purged)

    def tell(self):
        """Returns how many steps passed, and how many didn't.  None comes after one that failed."""
        for done, step in enumerate(self.STEPS):
            print(f"\n== {step.__name__}: {step.__doc__}", flush=True)
            try:
                step(self)
            except Failure as error:
                print(f"not ok - {step.__name__}: {error}")
                print(self.m.journal("-n 30 -t fastspool -t exim4 -t systemd"))
                return done, len(self.STEPS) - done
            print(f"ok - {step.__name__}", flush=True)
        return len(self.STEPS), 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--packages", required=True)
    arguments = parser.parse_args()
    begin()
    m = Machine()
    try:
        m.make()
        shutil.copytree(arguments.packages, m.root / "packages")
        m.chroot("useradd", "--groups", "mail", "--create-home", "carol")
        m.boot()
        passed, failed = Story(m).tell()
    finally:
        m.remove()
    report(passed, failed)


main()
