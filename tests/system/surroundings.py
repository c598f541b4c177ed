#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Surroundings: copies of a spool, sandboxes, containers, and what operators do below a living store.

Each row has two tests: in one the daemon is in it, in the other somebody else is.  In each of them either all goes on as
with Exim alone, or a process is refused with a line and nobody else's mail notices.  No test loses an acknowledged
message: what got 250 arrives exactly once in the end.
"""
import concurrent.futures
import glob
import os
import pathlib
import shutil
import signal
import subprocess
import time

from harness import (EXIM, QUEUE_ONLY, TOOL, Client, Message, check, forget_memory, kill, kill_all, main, processes,
                     stores, suspend, test, wait_for)

LAZY = ("durability = lazy", "flush_interval = 3600s")       # nothing reaches the disk before the mirror's last commit
OWN_MEMORY = "mount -t tmpfs -o mode=1777 own /dev/shm && mount -t tmpfs -o mode=755 own /run"
SHM = "runtime = /dev/shm"                                   # outlives a container here
CONTAINER = ("--pid", "--fork", "--kill-child", "--mount-proc")
ROWS = (("_daemon", {}), ("_else", {}))
MODES = tuple((f"{mode}{who}", {"fastspool": options} if options else {})
              for mode, options in (("_acked", ()), ("_lazy", LAZY)) for who in ("_daemon", "_else"))


def in_it(exim):
    """Is this the test whose daemon is in it?"""
    return exim.work.name.endswith("_daemon")


def send(count):
    """Send COUNT messages, each over a connection of its own.  Returns [(message, code)]."""
    sent = []
    for _ in range(count):
        message = Message()
        try:
            client = Client()
            sent.append((message, client.send(message)[0]))
            client.close()
        except (OSError, ValueError, AssertionError) as error:
            sent.append((message, str(error)))
        except Exception as error:                          # the harness's Failure: another reply than 250
            sent.append((message, str(error)))
    return sent


def accept(exim, count):
    """COUNT messages must get 250."""
    for message, code in send(count):
        check(code == 250, f"refused: {code}")
        exim.expect(message, "sink")


def offer(exim, count):
    """COUNT messages may get 250.  Returns how many did; they must arrive."""
    taken = [message for message, code in send(count) if code == 250]
    for message in taken:
        exim.expect(message, "sink")
    return len(taken)


def start_in(exim, *unshare, script="true", path=EXIM):
    """Start the daemon in namespaces of its own, after SCRIPT."""
    run = '"$@"' if "--pid" in unshare else 'exec "$@"'     # a set-user-ID program as process 1 would outlive unshare
    exim.daemon = subprocess.Popen(["unshare", "--mount", *unshare, "sh", "-c", f"{script} && {run}; :", "sh", path, "-bdf"],
                                   env=exim.environment(), cwd="/", stdin=subprocess.DEVNULL,
                                   stdout=open(exim.work / "daemon.out", "ab"), stderr=subprocess.STDOUT)
    exim.wait_listens()


def run_in(exim, *command, script="true", unshare=()):
    """Run COMMAND with the library in namespaces of its own, after SCRIPT.  Returns (exit status, output)."""
    result = subprocess.run(["unshare", "--mount", *unshare, "sh", "-c", script + ' && exec "$@"', "sh", *map(str, command)],
                            env=exim.environment(), cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    return result.returncode, (result.stdout + result.stderr).decode(errors="replace")


def end_daemon(exim):
    """Kill the daemon, and its container with it."""
    exim.daemon.kill()
    exim.daemon.wait()
    exim.daemon = None
    wait_for(lambda: not [pid for pid, name in processes() if name.startswith("exim")], "every Exim has ended")


def mirrors():
    return [pid for pid, name in processes() if name == "fastspool"]


def mirror_ends():
    wait_for(lambda: not mirrors(), "the mirror ends by itself")


def remove_state(exim):
    """rm -rf of the state directory, below a mirror that makes files there."""
    def removed():
        shutil.rmtree(exim.spool / ".fastspool", ignore_errors=True)
        return not (exim.spool / ".fastspool").exists()
    wait_for(removed, "the state directory is gone")


def counted(exim):
    return int(exim.run("-bpc"))


def expect_refusals(exim):
    """The panic log may say that the spool can't be used."""
    exim.panic = "Failed to create spool file|failed to stat spool directory"


def finish(exim):
    """A new daemon takes mail, and all that was ever acknowledged arrives once."""
    if exim.daemon:
        end_daemon(exim)
    exim.start()
    accept(exim, 2)
    exim.deliver_queue()
    print(f"  {len(exim.expected)} acknowledged, {len(exim.expected)} arrived", flush=True)


# --- whose memory -------------------------------------------------------------------------------------------------

@test(*ROWS, main=QUEUE_ONLY, library=True)
def copy_of_the_spool(exim):
    """A `cp -a` of a running spool is another spool: whoever uses it, the original's memory stays, and so does its mail."""
    exim.start()
    accept(exim, 3)
    exim.tool("flush")
    before, copy = stores(), exim.work / "copy"
    subprocess.run(["cp", "-a", exim.spool, copy], check=True)
    if in_it(exim):
        end_daemon(exim)
        original, exim.spool = exim.spool, copy
        exim.configure(QUEUE_ONLY)
        exim.fastspool_configuration()
        exim.start()
        check(counted(exim) == 3, "the copy's queue is not that of the original")
        check(len(stores()) == 2 and set(before) < set(stores()), f"memory: {before}, then {stores()}")
        check(send(1)[0][1] == 250, "the copy takes no mail")
        check(counted(exim) == 4, "the copy's queue does not grow")
        end_daemon(exim)
        exim.tool("stop")
        exim.spool = original
        exim.configure(QUEUE_ONLY)
        exim.fastspool_configuration()
    else:
        listed = exim.command("run", "--spool", copy, "--", "ls", copy / "input", program=TOOL, stock=True)
        check(len(listed.stdout.split()) == 6, f"the copy shows {listed}")
        check(len(stores()) == 2 and set(before) < set(stores()), f"memory: {before}, then {stores()}")
        accept(exim, 2)
        exim.tool("stop", "--spool", str(copy))
    finish(exim)
    exim.tool("stop")


@test(*MODES, main=QUEUE_ONLY, library=True)
def private_memory(exim):
    """Who has a /run and a /dev/shm of its own makes no second store while somebody lives, though no mirror runs."""
    if in_it(exim):
        start_in(exim, script=OWN_MEMORY)
    else:
        exim.start()
    accept(exim, 5)
    for pid in mirrors():
        kill(pid)
    script = "true" if in_it(exim) else OWN_MEMORY
    status, output = run_in(exim, EXIM, "-bpc", script=script)
    check("can't be seen from here" in output, f"exim -bpc is not refused: exit {status}, {output}")
    accept(exim, 5)
    if in_it(exim):                             # its memory ends with it: what a power cut would leave is there
        if "_lazy" in exim.work.name:
            subprocess.run(["nsenter", "--mount", "--target", str(exim.daemon.pid), TOOL, "flush"], check=True)
    finish(exim)


@test(*ROWS, main=QUEUE_ONLY, library=True)
def left_of_a_sandbox(exim):
    """A mirror that lives alone, in memory that the next process can't reach, ends for it, in order, and leaves no memory
    behind: in lazy nothing is lost."""
    exim.fastspool_configuration(*LAZY)
    script = "true" if in_it(exim) else OWN_MEMORY
    for turn in range(3):
        message = exim.expect(Message(), "sink")
        result = subprocess.run(["unshare", "--mount", "sh", "-c", script + ' && exec "$@"', "sh", EXIM, "-oi", "-f",
                                 message.sender, *message.recipients], env=exim.environment(), cwd="/",
                                input=message.content(), capture_output=True, timeout=60)
        check(result.returncode == 0 and not result.stderr, f"turn {turn}: {result}")
        exim.settle()
        wait_for(lambda: len(mirrors()) == 1, f"turn {turn}: one mirror runs")
        check(len(stores()) == (script == "true"), f"turn {turn}: memory {stores()}")
        script = OWN_MEMORY if script == "true" else "true"
    finish(exim)


@test(*ROWS, main=QUEUE_ONLY, library=True)
def read_only(exim):
    """A process for which the spool is read-only joins those who live, and reads what the dead have left."""
    exim.start()
    accept(exim, 3)
    if in_it(exim):
        kill_all()
        exim.daemon = None
    script = f"mount --bind {exim.spool} {exim.spool} && mount -o remount,bind,ro {exim.spool}"
    status, output = run_in(exim, EXIM, "-bpc", script=script)
    check(output.strip() == "3", f"read-only: exit {status}, {output}")
    if in_it(exim):                             # the mirror was started where it can't write
        wait_for(mirrors, "a mirror runs")
        for pid in mirrors():
            kill(pid)
    finish(exim)


def strict(exim, *writable):
    """What systemd's ProtectSystem=strict does, with ReadWritePaths= of the test's directory and WRITABLE."""
    places = [str(path) for path in (exim.work, *writable)]
    return (f"for place in {' '.join(places)}; do mount --rbind $place $place; done; findmnt -rno TARGET | "
            f"while read -r place; do case $place in /dev|/dev/*|/proc|/proc/*|/sys|/sys/*|{'|'.join(f'{place}|{place}/*' for place in places)}) ;; "
            "*) mount -o remount,bind,ro $place ;; esac; done; ! touch /run/x 2>/dev/null")


@test(*ROWS, main=QUEUE_ONLY, library=True)
def strict_sandbox(exim):
    """Who sees all but the spool and /run/fastspool read-only has the same queue as everybody: Exim, which has given up
    root's rights when it comes to the spool, and who attaches as root."""
    sandbox = strict(exim, "/run/fastspool")
    exim.command("-bpc")
    check(len(stores()) == 1 and stores()[0].startswith("/run/"), f"memory: {stores()}")
    if in_it(exim):
        kill_all()                              # also the mirror: the one that comes next is started in the sandbox
        start_in(exim, script=sandbox)
    else:
        exim.start()
    accept(exim, 3)
    for command in ((EXIM, "-bpc"), (TOOL, "run", "--", "sh", "-c", f"ls {exim.spool}/input | grep -c -e -H")):
        status, output = run_in(exim, *command, script="true" if in_it(exim) else sandbox)
        check(output.strip() == "3", f"{command[0]}: exit {status}, {output}")
    check(len(stores()) == 1, f"memory: {stores()}")
    finish(exim)


@test(*ROWS, main=QUEUE_ONLY, library=True)
def strict_sandbox_without_memory(exim):
    """The memory is read-only there, too, with and without CAP_SYS_ADMIN: a line says what the service needs.  The mount stays as
    the administrator has made it."""
    powerless = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    exim.start()
    accept(exim, 3)
    if in_it(exim):
        end_daemon(exim)
    for rights in ((), powerless):
        status, output = run_in(exim, *rights, EXIM, "-bpc", script=strict(exim))
        check("Read-only file system: " in output and "needs ReadWritePaths=/run/fastspool" in output, f"exit {status}, {output}")
        looks = f"{EXIM} -bpc; {TOOL} run -- ls {exim.spool}/input; findmnt -no OPTIONS /run/fastspool/memory"
        status, output = run_in(exim, *rights, "sh", "-c", looks, script=strict(exim))
        check(any(line.startswith("ro,") for line in output.splitlines()), f"exit {status}, {output}")
    status, output = run_in(exim, *powerless, EXIM, "-bpc", script=strict(exim, "/run/fastspool"))
    check(output.strip() == "3", f"exit {status}, {output}")
    finish(exim)


@test(library=True)
def closed_descriptors(exim):
    """A process that closes all descriptors in sight still counts as one that lives; one that becomes a user does not."""
    exim.command("-bpc")
    for pid in mirrors():
        kill(pid)
    script = """
import os, sys
os.path.exists(sys.argv[1])
if "/fastspool." not in open("/proc/self/maps").read(): sys.exit("nothing is mapped")
if sys.argv[2] == "leave": os.setgroups([]); os.setgid(23001); os.setuid(23001)
os.closerange(3, 4096)
print("here", flush=True)
sys.stdin.read()
"""
    for what in ("stay", "leave"):
        with subprocess.Popen(["python3", "-c", script, exim.spool / "input", what], env=exim.environment(), cwd="/",
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            check(process.stdout.readline() == b"here\n", f"the process that is to {what} failed")
            for pid in mirrors():
                kill(pid)
            status, output = run_in(exim, EXIM, "-bpc", script=OWN_MEMORY)
            check(("can't be seen from here" in output) == (what == "stay"), f"{what}: exit {status}, {output}")
            process.stdin.close()
        kill_all()
    exim.command("-bpc")


@test(("_kept_daemon", {}), ("_kept_else", {}), ("_lost_daemon", {}), ("_lost_else", {}), ("_kept_lazy_daemon", {"fastspool": LAZY}),
      main=QUEUE_ONLY, library=True)
def container_restart(exim):
    """A container is killed and another one takes over, with or without the old memory.  While it lives, others are
    refused; then they take over."""
    script = OWN_MEMORY if "_lost" in exim.work.name else "true"
    if script == "true":
        exim.fastspool_configuration(SHM, *(LAZY if "_lazy" in exim.work.name else ()))
    start_in(exim, *CONTAINER, script=script)
    accept(exim, 4)
    status, output = run_in(exim, EXIM, "-bpc")
    wanted = "can't be seen from here" if "_lost" in exim.work.name else "another PID namespace"
    check(wanted in output, f"outside of the container: exit {status}, {output}")
    check(f"{exim.spool}: {exim.spool}" not in output, f"the spool is named twice: {output}")
    accept(exim, 1)
    end_daemon(exim)
    if in_it(exim):
        holder = subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "sleep", "300"])    # takes the number
        start_in(exim, *CONTAINER, script=script)
        accept(exim, 4)
        status, output = run_in(exim, EXIM, "-bpc")
        check(wanted in output, f"outside of the second container: exit {status}, {output}")
        holder.kill()
        holder.wait()
        end_daemon(exim)
    check(counted(exim) == len(exim.expected), f"{len(exim.expected)} acknowledged, {counted(exim)} in the queue")
    finish(exim)


@test(*ROWS, main=QUEUE_ONLY, library=True)
def container_restart_without_state(exim):
    """The state directory goes with the container, and the memory stays: the queue is empty, as a new spool's, and mail
    is taken.  The old memory is nobody's."""
    exim.fastspool_configuration(SHM)
    start_in(exim, *CONTAINER)
    accept(exim, 4)
    end_daemon(exim)
    exim.expected = []
    old = stores()
    shutil.rmtree(exim.spool / ".fastspool")
    if in_it(exim):
        start_in(exim, *CONTAINER)
        accept(exim, 2)
        end_daemon(exim)
    check(counted(exim) == len(exim.expected), f"the queue holds {counted(exim)}")
    check(set(old) < set(stores()), "memory that may be another store's was removed")
    finish(exim)


# --- what operators do below a living store ------------------------------------------------------------------------

@test(*ROWS, main=QUEUE_ONLY)
def spool_made_anew(exim):
    """`rm -rf spool; mkdir spool` with the state directory elsewhere, below a living mirror: mail is taken, as without the
    library, and what was acknowledged is in the state directory still."""
    state = exim.work / "state"
    state.mkdir(mode=0o700)
    exim.own(state)
    state.chmod(0o700)
    exim.fastspool_configuration(f"state = {state}")
    exim.start()
    accept(exim, 3)
    if not in_it(exim):
        end_daemon(exim)
    check(mirrors() or exim.stock, "no mirror lives: this test can't fail")
    shutil.rmtree(exim.spool)
    exim.expected = [] if exim.stock else exim.expected
    exim.spool.mkdir()
    exim.own(exim.spool)
    if not in_it(exim):
        exim.start()
    accept(exim, 3)
    finish(exim)


@test(*MODES, main=QUEUE_ONLY, library=True)
def memory_wiped(exim):
    """The memory is removed by hand.  The mirror ends by itself with a line, what it had acknowledged is on the disk, and
    the next start finds it."""
    expect_refusals(exim)
    exim.start()
    accept(exim, 5)
    if not in_it(exim):
        end_daemon(exim)
    wait_for(lambda: len(mirrors()) == 1, "one mirror runs")
    forget_memory()
    if in_it(exim):
        print(f"  {offer(exim, 3)} of 3 taken after the memory was removed", flush=True)
    mirror_ends()
    if in_it(exim):
        print(f"  {offer(exim, 1)} of 1 taken without a mirror", flush=True)
        end_daemon(exim)
    check(counted(exim) == len(exim.expected), f"{len(exim.expected)} acknowledged, {counted(exim)} in the queue")
    finish(exim)


@test(*MODES, main=QUEUE_ONLY, library=True)
def moved_spool(exim):
    """The spool is moved below a living mirror, which ends; the next start at the new path has all, from memory."""
    exim.start()
    accept(exim, 5)
    if not in_it(exim):
        end_daemon(exim)
    moved = exim.work / "moved"
    exim.spool.rename(moved)
    mirror_ends()
    before = stores()
    exim.spool = moved
    exim.configure(QUEUE_ONLY)
    exim.fastspool_configuration(*(LAZY if "_lazy" in exim.work.name else ()))
    check(counted(exim) == 5, f"5 acknowledged, {counted(exim)} in the queue")
    check(stores() == before, "the memory was not taken over")
    finish(exim)
    exim.tool("stop")


@test(*ROWS, main=QUEUE_ONLY, library=True)
def restored(exim):
    """The spool is restored from a backup below a living mirror, which ends and writes nothing there.  The queue is the
    backup's, as on a disk."""
    expect_refusals(exim)
    exim.start()
    accept(exim, 5)
    exim.tool("flush")
    backup = exim.work / "backup"
    subprocess.run(["cp", "-a", exim.spool, backup], check=True)
    check(all(code == 250 for _, code in send(3)), "mail was refused before")
    if not in_it(exim):
        end_daemon(exim)
    check(mirrors(), "no mirror lives: this test can't fail")
    remove_state(exim)
    subprocess.run(["cp", "-a", backup / ".fastspool", exim.spool], check=True)
    if in_it(exim):
        check(not any(code == 250 for _, code in send(2)), "mail was acknowledged that nobody can find again")
    mirror_ends()
    if in_it(exim):
        end_daemon(exim)
    check(counted(exim) == 5, f"the backup has 5, the queue {counted(exim)}")
    check(len(stores()) == 1, f"memory: {stores()}")
    finish(exim)


@test(*ROWS, main=QUEUE_ONLY, library=True)
def state_removed(exim):
    """`rm -rf .fastspool` below a living mirror, which ends.  No mail is acknowledged into nowhere, and its memory goes."""
    expect_refusals(exim)
    exim.start()
    check(all(code == 250 for _, code in send(3)), "mail was refused before")
    if not in_it(exim):
        end_daemon(exim)
    check(mirrors(), "no mirror lives: this test can't fail")
    remove_state(exim)
    if in_it(exim):
        check(not any(code == 250 for _, code in send(2)), "mail was acknowledged that nobody can find again")
    mirror_ends()
    check(not stores(), f"memory stays: {stores()}")
    finish(exim)


@test(main=QUEUE_ONLY, library=True)
def locks_removed(exim):
    """The locks are removed below a daemon, and another store is made beside its one.  What its mirror writes then nobody
    will read: it is not acknowledged."""
    expect_refusals(exim)
    exim.start()
    accept(exim, 3)
    old, = mirrors()
    suspend(old)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        late = pool.submit(send, 1)
        wait_for(lambda: exim.status()["waiters"] == 1, "a message waits for the mirror")
        for path in exim.spool.glob(".fastspool/*lock"):
            path.unlink()
        check(counted(exim) == 3, "the other store has not all that was acknowledged")
        os.kill(old, signal.SIGCONT)
        (refused, code), = late.result()
        check(code != 250, "mail was acknowledged that nobody can find again")
    wait_for(lambda: old not in mirrors(), "the mirror ends by itself")
    finish(exim)
    if ("sink", refused.token) in exim.tokens():    # not acknowledged: a later recovery may have read it, or not
        exim.expect(refused, "sink")


@test(main=QUEUE_ONLY, library=True, fastspool=LAZY)
def locks_removed_lazy(exim):
    """The same where no fsync waits for the disk: when the mirror has seen it and ended, nothing is acknowledged."""
    expect_refusals(exim)
    exim.start()
    accept(exim, 3)
    exim.tool("flush")
    old, = mirrors()
    for path in exim.spool.glob(".fastspool/*lock"):
        path.unlink()
    check(counted(exim) == 3, "the other store has not all that was on the disk")
    wait_for(lambda: old not in mirrors(), "the mirror ends by itself")
    check(not any(code == 250 for _, code in send(2)), "mail was acknowledged that nobody can find again")
    finish(exim)


@test(main=QUEUE_ONLY, library=True)
def mirrors_lock_removed(exim):
    """The mirror's lock is removed, and another mirror starts: it waits for the end of the old one, and one is left."""
    exim.start()
    accept(exim, 3)
    old, = mirrors()
    suspend(old)
    (exim.spool / ".fastspool/mirror.lock").unlink()
    check(counted(exim) == 3, "the queue is another one")
    wait_for(lambda: len(mirrors()) == 2, "another mirror has started")
    time.sleep(0.5)
    owner = lambda: exim.status()["mirror_pid"]                                     # noqa: E731
    check(owner() == old, "the other mirror does not wait")
    os.kill(old, signal.SIGCONT)
    wait_for(lambda: old not in mirrors(), "the old mirror ends")
    accept(exim, 3)
    check(len(mirrors()) == 1 and owner() == mirrors()[0], f"{mirrors()}")
    finish(exim)


def stops_in_sync(exim, pid):
    """The mirror PID is stopped in its next sync, of a message that is accepted when a mirror goes on: a future of that."""
    seen = exim.work / "seen"
    with subprocess.Popen(["strace", "-f", "-o", seen, "-p", str(pid), "-e", "trace=fdatasync", "-e", "inject=fdatasync:signal=STOP:when=1"],
                          stderr=subprocess.DEVNULL) as tracer:
        wait_for(lambda: "TracerPid:\t0" not in pathlib.Path(f"/proc/{pid}/status").read_text(), "the mirror is traced")
        accepted = concurrent.futures.ThreadPoolExecutor().submit(accept, exim, 1)
        wait_for(lambda: "stopped by SIGSTOP" in seen.read_text(), "the mirror stops in a sync")
        tracer.terminate()
    return accepted


@test(main=QUEUE_ONLY, library=True)
def mirrors_lock_removed_for_long(exim):
    """The same, and the old one hangs in a commit: the other one ends it before it goes on.  What was acknowledged is on the disk."""
    exim.start()
    accept(exim, 3)
    old, = mirrors()
    accepted = stops_in_sync(exim, old)
    (exim.spool / ".fastspool/mirror.lock").unlink()
    accepted.result()
    check(old not in mirrors(), "the old mirror lives, and may go on")
    accept(exim, 3)
    exim.reboot()
    finish(exim)


@test(*ROWS, main=QUEUE_ONLY, library=True)
def reboot(exim):
    """A runtime directory on a disk outlives a reboot, and is older than the state directory then: the store comes from
    the state directory.  (The daemon, or a command, comes first.)"""
    runtime = pathlib.Path("/home/runtime")
    disk = pathlib.Path("/home/disk")
    with open(disk, "wb") as image:
        image.truncate(512 << 20)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    runtime.mkdir()
    subprocess.run(["mount", "-o", "loop", disk, runtime], check=True)
    try:
        runtime.chmod(0o1777)
        exim.fastspool_configuration(f"runtime = {runtime}", "memory = 64M")
        exim.start()
        accept(exim, 2)
        exim.tool("flush")
        old = exim.work / "old"
        place = glob.glob(f"{runtime}/fastspool.*")[0]
        subprocess.run(["cp", "-a", "--sparse=always", place, old], check=True)
        accept(exim, 3)
        kill_all()
        exim.daemon = None
        shutil.rmtree(place)
        subprocess.run(["cp", "-a", "--sparse=always", old, place], check=True)
        if not in_it(exim):
            check(counted(exim) == 5, f"5 acknowledged, {counted(exim)} in the queue")
        finish(exim)
        exim.tool("stop")
    finally:
        kill_all()
        exim.daemon = None
        subprocess.run(["umount", "--lazy", runtime], check=True)
        disk.unlink()
        runtime.rmdir()
    exim.fastspool_configuration()


if __name__ == "__main__":
    main("surroundings")
