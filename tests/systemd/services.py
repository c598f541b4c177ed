#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The units under a real systemd: starts, stops, deaths, reboots, and what sandboxes of exim4.service do.

    services.py --build DIR [NAME-PART...]

Needs root; machine.py says what is booted.  The tests run in order on one machine.  After each of them all that was
acknowledged is delivered, and has arrived exactly once.  The last line is "N passed, N failed, N skipped".
"""
import argparse
import os
import re
import sys
import time
import traceback

from machine import POWER_OFF, REBOOT, SERVICE, SPOOL, Failure, Machine, begin, check, report, wait_for

TESTS = []


def test(function):
    TESTS.append(function)
    return function


# ---- what Exim alone does in each sandbox ----

STRICT = f"ProtectSystem=strict\nReadWritePaths={SPOOL} /var/log/exim4 /var/mail /run/exim4"
SANDBOXES = {
    "PrivateTmp": "PrivateTmp=yes",
    "ProtectSystem": STRICT,
    "PrivateDevices": "PrivateDevices=yes",
    "PrivateMounts": "PrivateMounts=yes",
    "ProtectHome": "ProtectHome=yes",
    "MemoryMax": "MemoryMax=64M",
    "LimitAS": "LimitAS=256M",
    "LimitFSIZE": "LimitFSIZE=1M",
    "LimitNOFILE": "LimitNOFILE=64",
    "all": f"PrivateTmp=yes\n{STRICT}\nPrivateDevices=yes\nPrivateMounts=yes\nProtectHome=yes\nMemoryMax=64M\n"
           "LimitFSIZE=64M\nLimitNOFILE=256",
}
stock = {}                                          # sandbox: what was seen


def try_sandbox(m, name):
    """Exim in the sandbox takes three messages that wait, a large one, and one that is delivered at once."""
    m.write("/etc/systemd/system/exim4.service.d/sandbox.conf", f"[Service]\n{SANDBOXES[name]}\n")
    m.sh("systemctl daemon-reload")
    started = m.sh("systemctl restart exim4", may_fail=True).returncode == 0
    wait_for(m.listens, "Exim listens", 40)         # it tries again after 30 s where the one before is not gone yet
    codes = m.send(3) + m.send(size=300_000) + m.send(size=2_000_000)
    delivered = len(m.delivered())
    now = m.send(domain="here.test")
    if now == [250]:
        wait_for(lambda: len(m.delivered()) > delivered, "the message is delivered")
    return started, codes + now


def leave_sandbox(m):
    os.unlink(m.root / "etc/systemd/system/exim4.service.d/sandbox.conf")
    m.sh("systemctl daemon-reload; systemctl restart exim4")
    wait_for(m.listens, "Exim listens", 40)


@test
def exim_alone(m):
    """The rig: Exim without the library in each sandbox."""
    check(m.out("systemctl is-system-running") == "running", m.out("systemctl --failed"))
    for name in filter(lambda name: m.wants(f"sandbox_{name}"), SANDBOXES):
        stock[name] = try_sandbox(m, name)
        leave_sandbox(m)
        print(f"#   {name}: {stock[name]}", flush=True)
        m.deliver_all()
    if m.wants("rebooted_while_a_delivery_hangs"):
        stock["hang"] = reboot_while_a_delivery_hangs(m)


# ---- the service ----

@test
def enabled_with_mail_on_the_disk(m):
    """What Exim alone has queued is in the view when the service is ready; then Exim starts with the library."""
    m.send(5)
    m.write(f"/etc/systemd/system/{SERVICE}.d/seen.conf",
            f"[Service]\nExecStartPost=+/bin/sh -c 'find {SPOOL}/input -name *-H | wc -l >/run/seen'\n")
    m.sh("fastspool enable --yes; systemctl restart exim4")
    check(m.is_active(SERVICE), m.out(f"systemctl status {SERVICE}", may_fail=True))
    check(m.out("cat /run/seen") == "5", f"ready with {m.out('cat /run/seen')} of 5 messages")
    daemon = m.out("cat /run/exim4/exim.pid")
    check("libfastspool" in m.out(f"cat /proc/{daemon}/maps"), "the daemon has no library")
    memory = m.out(f"head -n 1 {SPOOL}/.fastspool/runtime")
    check(memory.startswith("/run/fastspool/memory/"), f"the memory is in {memory}, not in root's tmpfs")
    check(m.sh("fastspool status", may_fail=True).returncode == 0, m.out("fastspool status", may_fail=True))


@test
def everybody_counts(m):
    """root, the owner, a member of its group and cron see the same queue; an ordinary user's sendmail reaches it."""
    m.send(3)
    m.submit(user="alice")
    m.submit()
    for user in (None, "Debian-exim", "bob"):
        check(m.count(user) == 5, f"{user} counts {m.count(user)} of 5")
    m.write("/etc/cron.d/count", "PATH=/usr/sbin:/usr/bin:/bin\n@reboot root exim4 -bpc >/run/cron 2>&1\n")
    m.sh("chmod 644 /etc/cron.d/count; rm -f /run/crond.reboot; systemctl restart cron")
    wait_for(lambda: m.out("cat /run/cron", may_fail=True) == "5", "cron's job counts")
    os.unlink(m.root / "etc/cron.d/count")
    check(m.out(f"find {SPOOL}/input -name '*-H' | wc -l") == "5", "find does not see the queue")


def view_in_service(m):
    """(After a mirror's death whoever needs one first starts the next: it may be in exim4's group.)"""
    check(m.show(SERVICE, "MainPID") in m.pids("view"), "the view is not the service's")
    for pid in m.pids("view"):
        check(m.group_of(pid) == SERVICE, m.out(f"ps -o pid,unit,args -p {pid}"))


@test
def one_group(m):
    """View, server, hand and mirror are in the service's control group."""
    view_in_service(m)
    for pid in m.pids("mirror"):
        check(m.group_of(pid) == SERVICE, m.out(f"ps -o pid,unit,args -p {pid}"))


@test
def hardened(m):
    """systemd-analyze has little to ask for."""
    m.out(f"systemd-analyze verify --man=no {SERVICE}")
    text = m.out(f"systemd-analyze security --no-pager {SERVICE}")
    print("#   " + text.splitlines()[-1])
    for line in text.splitlines():
        if line.startswith("✗"):
            print("#   " + " ".join(line.split()))
    check(float(text.splitlines()[-1].split(":")[1].split()[0]) <= 3.0, text)


@test
def restarted(m):
    """A restart of the service with mail in the queue; Exim takes mail the whole time."""
    m.send(3)
    m.sh(f"systemctl restart {SERVICE} --no-block")
    codes = m.send(20)
    check(codes == [250] * 20, f"refused: {codes}")
    wait_for(lambda: m.is_active(SERVICE), "the service is active", 120)
    check(m.count() == 23, f"{m.count()} of 23")


@test
def stopped(m):
    """After a stop nothing runs of it, and all is on the disk; after a start the queue is there."""
    m.send(3)
    m.sh("systemctl stop exim4")
    m.sh(f"systemctl stop {SERVICE}")
    check(m.show(SERVICE, "Result") == "success", m.out(f"systemctl status {SERVICE}", may_fail=True))
    check(not m.pids("(mirror|view)"), m.out("ps -ef | grep fastspool"))
    check(not m.sh(f"grep {SPOOL}/ /proc/mounts", may_fail=True).stdout, "something is mounted")
    m.sh(f'rm -rf "$(head -n 1 {SPOOL}/.fastspool/runtime)"')    # what memory alone had would be lost
    m.sh("systemctl start exim4")
    check(m.is_active(SERVICE), "Exim's start does not start the service")
    check(m.count() == 3, f"{m.count()} of 3")


@test
def without_a_view(m):
    """With `view = off` the service is skipped, and no failure; mail goes on.  Without that line it has the view again."""
    configuration = m.root / "etc/fastspool.conf"
    before = configuration.read_text() if configuration.exists() else ""
    m.sh(f"systemctl stop exim4; systemctl stop {SERVICE}")
    configuration.write_text(before + "view = off\n")
    m.sh("systemctl start exim4")
    check(m.show(SERVICE, "ActiveState") == "inactive", m.out(f"systemctl status {SERVICE}", may_fail=True))
    wait_for(m.listens, "Exim listens")
    check(m.send(2) == [250] * 2 and not m.sh(f"grep {SPOOL}/ /proc/mounts", may_fail=True).stdout, "a view is mounted")
    m.sh("systemctl stop exim4; fastspool stop", may_fail=True)
    configuration.write_text(before)
    m.sh("systemctl start exim4")
    check(m.is_active(SERVICE) and m.count() == 2, f"{m.count()} of 2")


@test
def stopped_by_hand(m):
    """After `fastspool stop` beside a running Exim its own mirror and view serve the spool, the service is inactive, and `status` says
    that all is well.  A start of the service takes them back."""
    m.send(2)
    m.sh("fastspool stop", may_fail=True)
    m.send(1)
    wait_for(lambda: m.sh("fastspool status", may_fail=True).returncode == 0, "all is well")
    check(m.show(SERVICE, "ActiveState") == "inactive", m.out(f"systemctl status {SERVICE}", may_fail=True))
    m.sh(f"systemctl start {SERVICE}")
    view_in_service(m)
    check(m.is_active(SERVICE) and m.count() == 3, f"{m.count()} of 3")


@test
def started_after_exims_own_view(m):
    """The service takes the view over from one that Exim had started."""
    m.send(3)
    m.sh(f"systemctl stop {SERVICE}")
    check(m.show(SERVICE, "Result") == "success", m.out(f"systemctl status {SERVICE}", may_fail=True))  # beside Exim
    check("uses the store of" in m.journal(f"-u {SERVICE} -n 20"), "Exim is not named")
    m.send(1)                                       # has the view mounted
    wait_for(lambda: m.pids("view"), "Exim starts a view")
    m.sh(f"systemctl start {SERVICE}")
    check(m.count() == 4, f"{m.count()} of 4")
    view_in_service(m)


def killed(m, pids, what):
    m.send(2)
    m.sh(f"kill -9 {' '.join(pids)}")
    codes = m.send(5)
    check(codes == [250] * 5, f"after the death of the {what}: {codes}")
    wait_for(lambda: m.is_active(SERVICE) and m.sh("fastspool status", may_fail=True).returncode == 0,
             f"all is well after the death of the {what}")
    wait_for(lambda: m.sh("exim4 -bpc", may_fail=True).stdout.strip() == "7", "everybody sees the queue")
    view_in_service(m)


@test
def mirror_killed(m):
    """Another mirror goes on."""
    killed(m, m.pids("mirror"), "mirror")


@test
def server_killed(m):
    """Another server goes on."""
    view = m.show(SERVICE, "MainPID")
    killed(m, m.out(f"pgrep -P {view} -u Debian-exim").split(), "server")


@test
def supervisor_killed(m):
    """systemd starts another one."""
    killed(m, [m.show(SERVICE, "MainPID")], "supervisor")


@test
def all_killed(m):
    """systemd starts it anew."""
    killed(m, m.pids("(mirror|view)"), "view and mirror")


@test
def exim_restarted(m):
    """A restart of exim4.service touches nothing of the service."""
    m.send(3)
    view, mirror = m.show(SERVICE, "MainPID"), m.pids("mirror")
    m.sh("systemctl restart exim4")
    check((view, mirror) == (m.show(SERVICE, "MainPID"), m.pids("mirror")), "view or mirror is another one")
    check(m.send(2) == [250] * 2 and m.count() == 5, f"{m.count()} of 5")


# ---- Exims that systemd takes for something else than they are ----

def obey(m, words):
    """Type the commands that doctor's first line with WORDS names, in their order."""
    said = m.sh("fastspool doctor", may_fail=True).stdout
    told = [line for line in said.splitlines() if words in line]
    check(told, f"doctor says nothing of it: {said}")
    commands = re.findall("`(.*?)`", told[0].partition("; to do: ")[2])
    print(f"#   {told[0]}")
    for command in commands:
        m.sh(command)
    wait_for(m.listens, "Exim listens")


def all_is_well(m):
    said = m.sh("fastspool status", may_fail=True)
    check(said.returncode == 0, f"after what doctor says: {said.stdout}")


@test
def died(m):
    """For systemd the service of a daemon that was killed is active (Debian's has RemainAfterExit=): what doctor says starts one."""
    m.send(2)
    m.sh("kill -9 $(cat /run/exim4/exim.pid)")
    wait_for(lambda: not m.sh("pgrep -x exim4", may_fail=True).stdout, "no Exim runs")
    check(m.is_active("exim4"), "the rig: the service is not active")
    check(m.sh("fastspool status", may_fail=True).returncode == 2, "status does not tell")
    obey(m, "no Exim runs; ")
    all_is_well(m)
    check(m.send(2) == [250] * 2 and m.count() == 4, f"{m.count()} of 4")


@test
def a_daemon_by_hand(m):
    """exim4.service did not start a daemon, and ends none: what status and doctor say does, alone and beside the service's."""
    for beside in (False, True):
        m.sh("systemctl stop exim4")
        if beside:
            m.sh("systemctl start exim4")
        m.sh(f"exim4 -bd -q30m{' -oX 127.0.0.1.2526' if beside else ''}")
        daemon = m.out("pgrep -f '^exim4 -bd'")
        said = m.sh("fastspool status", may_fail=True)
        check(said.returncode == 1 and f"`kill {daemon}`" in said.stdout, f"status does not tell how: {said.stdout}")
        obey(m, f"process {daemon} ")
        all_is_well(m)
        check(m.send(2) == [250] * 2, "refused")


@test
def a_daemon_of_another_unit(m):
    """A unit of the operator's starts Exim: what doctor says is of that one."""
    unit = m.root / "etc/systemd/system/mta.service"
    m.sh("systemctl stop exim4")
    unit.write_text("[Service]\nExecStart=/usr/sbin/exim4 -bdf -q30m\n")
    m.sh("systemctl daemon-reload; systemctl start mta")
    wait_for(m.listens, "Exim listens")
    for call in ("status", "doctor"):
        said = m.sh(f"fastspool {call} | grep 'without the library\\|has not got'", may_fail=True).stdout
        check("Environment=LD_PRELOAD=libfastspool.so" in said and "`systemctl restart mta.service`" in said, f"{call} says {said}")
    unit.write_text(unit.read_text() + "Environment=LD_PRELOAD=libfastspool.so\n")
    m.sh("systemctl daemon-reload; systemctl restart mta.service")
    wait_for(m.listens, "Exim listens")
    all_is_well(m)
    m.sh("systemctl stop mta; rm /etc/systemd/system/mta.service; systemctl daemon-reload; systemctl restart exim4")
    wait_for(m.listens, "Exim listens")


# ---- the machine ----

def clean_shutdown(m):
    console = m.console()
    bad = [line for line in console.splitlines() if "FAILED" in line]
    check(not bad, f"{bad}")
    check("Unmounted" in console and "var-spool-exim4.mount" in console, "the spool was not unmounted")


@test
def rebooted(m):
    """A reboot with mail in the queue: all of it comes back before Exim starts; the spool is unmounted in order."""
    m.send(20)
    check(m.end("reboot") == REBOOT, "no reboot")
    clean_shutdown(m)
    m.boot()
    check(m.is_active(SERVICE), m.out(f"systemctl status {SERVICE}", may_fail=True))
    check(m.out("cat /run/seen") == "20", f"ready with {m.out('cat /run/seen')} of 20 messages")
    ready, start = m.show(SERVICE, "ActiveEnterTimestampMonotonic"), m.show("exim4", "InactiveExitTimestampMonotonic")
    check(int(ready) <= int(start), f"Exim was started at {start}, the service ready at {ready}")
    check(m.count() == 20, f"{m.count()} of 20")


def reboot_while_a_delivery_hangs(m):
    """Returns what systemd could not do."""
    m.send(10)
    m.send(1, "hang.test")
    wait_for(lambda: m.out("pgrep -f '^/bin/sh -c while'", may_fail=True), "a delivery hangs")
    m.end("reboot")
    failed = [line for line in m.console().splitlines() if "FAILED" in line]
    m.boot()
    check(m.count() == 11, f"{m.count()} of 11")
    return failed


@test
def rebooted_while_a_delivery_hangs(m):
    """A process that has the spool open is in the way of its unmounting as it is for Exim alone."""
    failed = reboot_while_a_delivery_hangs(m)
    print(f"#   {failed}, alone {stock['hang']}")
    check(bool(failed) == bool(stock["hang"]), f"{failed}, but Exim alone {stock['hang']}")


@test
def power_cut(m):
    """Process 1 is killed, and with it everything."""
    m.send(20)
    m.cut_power()
    m.boot()
    check(m.is_active(SERVICE), m.out(f"systemctl status {SERVICE}", may_fail=True))
    check(m.count() == 20, f"{m.count()} of 20")


# ---- sandboxes of exim4.service ----

def in_sandbox(m, name):
    waiting = m.count()
    started, codes = try_sandbox(m, name)
    print(f"#   {name}: {(started, codes)}, alone {stock.get(name)}")
    m.submit()                                      # of somebody else
    m.submit(user="alice")
    taken = sum(code == 250 for code in codes[:-1]) + 2 + waiting
    check(m.count() == taken, f"{m.count()} of {taken} in the queue")
    status = m.sh("fastspool status", may_fail=True)
    check(status.returncode == 0, status.stdout)
    view_in_service(m)
    lines = m.journal("-t fastspool -t exim4 --since -60s")
    leave_sandbox(m)
    check(m.send(2) == [250] * 2, "refused after the sandbox is left")
    for code, alone in zip([started, *codes], [stock[name][0], *stock[name][1]]):
        check(code in (alone, True, 250), f"{(started, codes)}, but Exim alone {stock[name]}: {lines[-1500:]}")


for sandbox in SANDBOXES:
    def row(m, name=sandbox):
        in_sandbox(m, name)
    row.__name__ = f"sandbox_{sandbox}"
    row.__doc__ = f"Exim with {sandbox} takes what Exim alone does, or more (RLIMIT_FSIZE); nobody else notices."
    test(row)


@test
def powered_off(m):
    """The last shutdown is clean, too."""
    m.send(3)
    check(m.end("poweroff") == POWER_OFF, "no power-off")
    clean_shutdown(m)
    m.boot()


ALWAYS = (exim_alone, enabled_with_mail_on_the_disk)                    # what the others begin with


def run(m):
    passed = failed = 0
    for function in TESTS:
        if function not in ALWAYS and not m.wants(function.__name__):
            continue
        began = time.monotonic()
        try:
            if not m.first:
                m.boot()
            function(m)
            m.deliver_all()
            print(f"ok - {function.__name__} ({time.monotonic() - began:.0f} s)", flush=True)
            passed += 1
        except Exception as error:                  # whatever it is, the others go on
            if not isinstance(error, Failure):
                traceback.print_exc(file=sys.stdout)
            print(f"not ok - {function.__name__}: {error}", flush=True)
            failed += 1
            if m.first:
                print("#   " + m.journal("-t fastspool -n 8").replace("\n", "\n#   "))
                m.forget()
    return passed, failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    begin()
    m = Machine(arguments.names)
    try:
        m.make(os.path.abspath(arguments.build))
        passed, failed = run(m)
    finally:
        m.remove()
    report(passed, failed)


main()
