#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Queue administration: list, view, remove, freeze, thaw, edit, move, run."""
import re
import subprocess

from harness import EXIM, QUEUED_LAYOUTS, QUEUE_ONLY, Client, Message, Skip, check, main, test, wait_for


def queue_messages(exim, count, recipient="user@sink.test", place="sink"):
    """Queue COUNT messages, and expect them at PLACE unless it is None.  Returns [(ID, message)]."""
    known, result = set(exim.queue()), []
    for _ in range(count):
        message = Message(recipient)
        if place:
            exim.expect(message, place)
        exim.submit(message)
        new = [name for name in exim.queue() if name not in known]
        check(len(new) == 1, f"one message was queued, {new} are new")
        known.update(new)
        result.append((new[0], message))
    return result


@test(*QUEUED_LAYOUTS)
def listing(exim):
    """-bp, -bpr, -bpu, -bpa and -bpru list the queue, and -bpc counts it."""
    check(exim.run("-bp") == b"" and exim.run("-bpc") == b"0\n", "an empty queue is not listed as empty")
    queued = queue_messages(exim, 7)
    names = [name for name, _ in queued]
    for option in ("-bp", "-bpr", "-bpu", "-bpa", "-bpru"):
        output = exim.run(option).decode()
        check(sorted(set(re.findall("|".join(names), output))) == sorted(names), f"{option} shows {output}")
        check(output.count("user@sink.test") == 7, f"{option} doesn't show each recipient: {output}")
    check(exim.run("-bpc") == b"7\n", "-bpc is wrong")
    exim.deliver_queue()


@test(*QUEUED_LAYOUTS)
def view(exim):
    """-Mvh, -Mvb, -Mvl and -Mvc print a message's header, body, log and whole text."""
    (name, message), = queue_messages(exim, 1)
    header = exim.run("-Mvh", name)
    check(header.startswith(f"{name}-H\n".encode()) and message.token.encode() in header, f"-Mvh: {header!r}")
    check(exim.run("-Mvb", name) == f"{name}-D\n".encode() + message.body, "-Mvb differs from what was submitted")
    check(b"Received from" in exim.run("-Mvl", name), "-Mvl has no line about the reception")
    check(exim.run("-Mvc", name).endswith(b"\n\n" + message.body), "-Mvc differs from what was submitted")
    exim.deliver_queue()


@test(*QUEUED_LAYOUTS)
def remove(exim):
    """-Mrm removes the named messages, and the others stay."""
    queued = queue_messages(exim, 3, place=None)
    output = exim.run("-Mrm", queued[0][0], queued[2][0]).decode()
    check(output.count("has been removed") == 2, f"-Mrm said {output}")
    check(exim.queue() == [queued[1][0]], f"the queue is {exim.queue()}")
    check(exim.command("-Mrm", queued[0][0]).returncode != 0, "a message was removed twice")
    exim.run("-Mrm", queued[1][0])


@test(*QUEUED_LAYOUTS)
def freeze_and_thaw(exim):
    """-Mf freezes a message: -q and -qf skip it, -qff delivers it.  -Mt thaws it."""
    queued = queue_messages(exim, 3)
    exim.run("-Mf", queued[0][0], queued[1][0])
    check(exim.run("-bp").decode().count("*** frozen ***") == 2, "-bp doesn't show two frozen messages")
    exim.run("-q")
    exim.wait_arrived(queued[2][1])
    check(sorted(exim.queue()) == sorted(name for name, _ in queued[:2]), "-q delivered a frozen message")
    exim.run("-Mt", queued[0][0])
    exim.run("-qf")
    exim.wait_arrived(queued[0][1])
    check(exim.queue() == [queued[1][0]], "-qf delivered a frozen message")
    exim.deliver_queue()


@test(*QUEUED_LAYOUTS)
def deliver_one(exim):
    """-M and -Mc deliver the named messages, and no others."""
    queued = queue_messages(exim, 3)
    exim.run("-M", queued[1][0])
    exim.wait_arrived(queued[1][1])
    exim.run("-Mc", queued[2][0])
    exim.wait_arrived(queued[2][1])
    exim.settle()
    check(exim.queue() == [queued[0][0]], f"the queue is {exim.queue()}")
    exim.deliver_queue()


@test()
def missing(exim):
    """Each command reports a message that doesn't exist."""
    for option in ("-M", "-Mc", "-Mrm", "-Mf", "-Mvh", "-Mvb"):
        result = exim.command(option, "1aaaaa-000001-AA")
        said = (result.stdout + result.stderr).decode() + exim.log()
        check("1aaaaa-000001-AA" in said or "No such file" in said, f"{option} said nothing")


@test(main=QUEUE_ONLY)
def give_up(exim):
    """-Mg gives a message up: the sender gets a bounce that contains it."""
    (name, message), = queue_messages(exim, 1, place=None)
    exim.run("-Mg", name)
    exim.run("-qff")

    def bounced():
        return [raw for place, raw in exim.arrived() if place == "sink" and message.token.encode() in raw]
    wait_for(bounced, "the bounce arrives")
    exim.wait_empty()


@test(main=QUEUE_ONLY)
def edit(exim):
    """-Mes changes the sender, -Mar adds recipients, -Mmd marks one as delivered, -Mmad marks all."""
    (name, message), (other, _) = queue_messages(exim, 1) + queue_messages(exim, 1, place=None)
    exim.run("-Mes", name, "new@sink.test")
    exim.run("-Mar", name, "user@maildir.test", "nobody@sink.test")
    exim.run("-Mmd", name, "nobody@sink.test")
    header = exim.run("-Mvh", name)
    check(b"<new@sink.test>" in header and b"user@maildir.test" in header, f"-Mvh: {header!r}")
    exim.expect(message, "maildir")
    exim.run("-Mmad", other)
    exim.deliver_queue()
    check(not [recipients for recipients, _ in exim.sink.messages if "nobody@sink.test" in recipients],
          "a recipient that was marked delivered got the message")


def refused_to_move(exim, said, names):
    """By the view, Exim can't move a message between two directories that are mounts of their own (docs/limits.md): it SAID
    so, and the queue is NAMES as before."""
    check(said.returncode == 0 and b"Invalid cross-device link" in said.stderr, f"Exim says {said}")
    check(sorted(exim.queue()) == sorted(names), f"the queue is {exim.queue()}")
    exim.panic = "Invalid cross-device link"


@test(*QUEUED_LAYOUTS)
def named_queue(exim):
    """-MG moves a message to a named queue.  Listings and runs of the default queue don't see it there."""
    queued = queue_messages(exim, 3)
    name = queued[0][0]
    if exim.with_view:
        refused_to_move(exim, exim.command("-MG", "slow", name), [other for other, _ in queued])
        check(not exim.queue("-qGslow"), f"the named queue is {exim.queue('-qGslow')}")
        exim.deliver_queue()
        return
    exim.run("-MG", "slow", name)
    check(sorted(exim.queue()) == sorted(other for other, _ in queued[1:]), f"the queue is {exim.queue()}")
    check(exim.queue("-qGslow") == [name], f"the named queue is {exim.queue('-qGslow')}")
    exim.run("-qff")
    exim.wait_arrived(queued[1][1], queued[2][1])
    check(exim.queue("-qGslow") == [name] and len(exim.sink.messages) == 2, "the named queue was run")
    exim.run("-qffGslow")
    exim.wait_arrived()
    wait_for(lambda: not exim.queue("-qGslow"), "the named queue is empty")


@test(main=("acl_smtp_mail = accept queue = slow", "queue_only = true"))
def queue_by_acl(exim):
    """An ACL puts messages into a named queue.  Exim creates its directories and delivers from there."""
    exim.start()
    client = Client()
    for _ in range(3):
        check(client.send(exim.expect(Message(), "sink"))[0] == 250, "not accepted")
    client.close()
    exim.wait_queued(3, "slow")
    check(not exim.queue(), "the messages are in the default queue")
    exim.run("-qGslow")
    exim.wait_arrived()
    wait_for(lambda: not exim.queue("-qGslow"), "the named queue is empty")


@test(("_db", {"main": ("acl_smtp_mail = accept queue = db",) + QUEUE_ONLY}),
      ("_scan", {"main": ("acl_smtp_mail = accept queue = scan",) + QUEUE_ONLY}), library=True)
def queue_of_that_name(exim):
    """A queue that is called as a directory whose fsync is free stays on the disk, which is asked to keep its mail."""
    name = exim.work.name.rpartition("_")[2]
    trace = exim.work / "trace"
    message = exim.expect(Message(body=b"plain\n"), "sink")
    exim.run("-bpc")                # its mirror is not traced
    dialogue = b"EHLO client.test\nMAIL FROM:<%s>\nRCPT TO:<%s>\nDATA\n%s.\nQUIT\n" % (
        message.sender.encode(), message.recipients[0].encode(), message.content())
    exim.command("-f", "-o", trace, "-e", "trace=fsync,fdatasync", EXIM, "-bs", program="strace", input=dialogue)
    check(len(list((exim.spool / name / "input").glob("*-D"))) == 1, "the message isn't on the disk")
    syncs = len(re.findall(r"\bf(?:data)?sync\(", trace.read_text()))
    check(syncs >= 3, f"{syncs} syncs of the three that Exim asks for before it takes a message")
    exim.run(f"-qG{name}")
    exim.wait_arrived()


@test()
def runner(exim):
    """The daemon's queue runner (-q1s), a re-executed set-user-ID Exim, delivers the queue."""
    exim.configure(QUEUE_ONLY)
    queue_messages(exim, 4)
    exim.start("-q1s")
    exim.wait_arrived()
    exim.wait_empty()


@test(main=QUEUE_ONLY)
def runners(exim):
    """Four parallel queue runners deliver each message once."""
    exim.sink.delay = 0.05
    queue_messages(exim, 12)
    several = [subprocess.Popen([EXIM, "-q"], env=exim.environment()) for _ in range(4)]
    for one in several:
        check(one.wait(60) == 0, "a queue runner failed")
    exim.wait_arrived()
    exim.wait_empty()


@test(("", {"main": QUEUE_ONLY + ("message_logs = false",)}), ("_kept", {"main": QUEUE_ONLY + (
    "preserve_message_logs = true",)}))
def message_logs(exim):
    """Exim works without message logs, and preserve_message_logs keeps them in msglog.OLD."""
    queued = queue_messages(exim, 2)
    listed = exim.run("-bP", "preserve_message_logs").decode().strip() == "preserve_message_logs"
    if exim.with_view and listed:       # two mounts: Exim delivers once, and can't end
        for _ in range(2):
            said = exim.command("-qff")
            exim.wait_arrived()
            exim.settle()
            check(said.stderr.count(b"to the msglog.OLD directory") == 2, f"Exim says {said}")
        logs = {path.name for path in (exim.spool / "msglog").rglob("*") if path.is_file()}
        check(logs == {name for name, _ in queued}, f"msglog holds {logs}")
        exim.queued, exim.panic = 2, "to the msglog.OLD directory"
        return
    exim.deliver_queue()
    kept = {path.name for path in (exim.spool / "msglog.OLD").rglob("*") if path.is_file()}
    check(kept <= {name for name, _ in queued} and (not listed or not exim.stock or len(kept) == 2),
          f"msglog.OLD holds {kept}")


@test(main=QUEUE_ONLY + ("move_frozen_messages = true",))
def moved_when_frozen(exim):
    """move_frozen_messages: a frozen message leaves the queue for Finput."""
    (name, _), (_, other) = queue_messages(exim, 1, place=None) + queue_messages(exim, 1)
    exim.run("-Mf", name)
    if exim.with_view:
        said = exim.command("-q")
        exim.wait_arrived(other)
        exim.settle()
        refused_to_move(exim, said, [name])
        exim.run("-Mrm", name)
        return
    exim.run("-q")
    exim.wait_arrived(other)
    wait_for(lambda: not exim.queue(), "the frozen message was moved")


@test(*QUEUED_LAYOUTS)
def left_from_before(exim):
    """A message that stock Exim left on the disk is listed, viewed, frozen, thawed and delivered together with those of the
    store.  Its files stay on the disk until delivery."""
    if exim.with_view:
        raise Skip("there is one queue; view.imported tests how it comes about")
    message = exim.expect(Message(), "sink")
    exim.run("-oi", "-f", message.sender, *message.recipients, input=message.content(), stock=True)
    left = exim.real_files()
    check(len(left) == 3, f"stock Exim left {left}")
    old, = exim.queue()
    queued = queue_messages(exim, 2)
    check(sorted(exim.queue()) == sorted([old] + [name for name, _ in queued]), f"the queue is {exim.queue()}")
    check(exim.run("-Mvb", old) == f"{old}-D\n".encode() + message.body, "-Mvb of the message from before differs")
    exim.run("-Mf", old)
    check(exim.run("-bp").decode().count("*** frozen ***") == 1, "the message from before isn't frozen")
    if not exim.stock:
        check(exim.real_files() == left, f"on the disk are now {exim.real_files()}")
    exim.run("-Mt", old)
    exim.run("-q")
    exim.wait_arrived()
    exim.wait_empty()


@test(main=QUEUE_ONLY)
def many(exim):
    """A listing of 150 messages is complete and sorted, and one run delivers them all."""
    exim.start()
    client = Client()
    for _ in range(150):
        check(client.send(exim.expect(Message(size=600), "sink"), pipelining=True)[0] == 250, "not accepted")
    client.close()
    names = exim.queue()
    check(len(names) == 150 and names == sorted(names), f"{len(names)} messages are listed")
    exim.deliver_queue()


if __name__ == "__main__":
    main("queueing")
