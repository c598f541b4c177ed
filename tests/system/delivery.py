#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every way out of the queue: SMTP with and without failures, delivery to files as another user, pipes, filters, bounces."""
import pathlib
import re

from harness import LAYOUTS, QUEUE_ONLY, USER, USER_ID, Client, Message, check, main, test, wait_for


# With the library alone, and with the library and the view.
VIEWS = (("", {}), ("_view", {"view": "library"}))


def bounces(exim, message):
    """The bounces of MESSAGE that reached the sender."""
    return [raw for place, raw in exim.arrived() if place == "sink" and message.token.encode() in raw
            and b"Mailer-Daemon@" in raw]


@test(*LAYOUTS)
def retry(exim):
    """A message refused with 451 stays in the queue, and the next run delivers it."""
    exim.sink.refusals = 1
    messages = [exim.expect(Message(), "sink") for _ in range(3)]
    for message in messages:
        exim.submit(message, "-odi")
    exim.settle()
    check(len(exim.queue()) == 3 and not exim.sink.messages, "a refused message is not in the queue")
    check(b"451 try again later" in exim.run("-Mvl", exim.queue()[0]), "the message log doesn't show the refusal")
    exim.run("-qff")
    exim.wait_arrived()
    exim.wait_empty()


@test(*LAYOUTS, VIEWS[1])
def local(exim):
    """Deliveries as another user reach a maildir and an mbox, also both of them and the sink from one message."""
    exim.start()
    client = Client()
    for recipients, places in ((["user@maildir.test"], ("maildir",)), (["user@mbox.test"], ("mbox",)),
                               (["user@maildir.test", "user@mbox.test", "user@sink.test"], ("maildir", "mbox", "sink"))):
        # No "From " in the body: mbox would quote it.
        message = exim.expect(Message(recipients, body=b"a\nplain\n.\nbody\n" * 300), *places)
        check(client.send(message)[0] == 250, "not accepted")
    client.close()
    exim.wait_arrived()
    exim.wait_empty()
    check((exim.work / "mail" / "mbox").stat().st_uid == USER_ID, "the mbox isn't the user's")


@test(("_none", {"main": ("keep_environment =",)}), ("_all", {"main": ("keep_environment = *",)}),
      ("_added", {"main": ("add_environment = LD_PRELOAD=libfastspool.so",)}))
def environment(exim):
    """Deliveries and bounces see one queue, whatever Exim does to its environment before it re-executes itself."""
    exim.start()
    client = Client()
    check(client.send(exim.expect(Message(), "sink"))[0] == 250, "not accepted")
    failing = Message("user@fail.test", body=b"come back\n")
    check(client.send(failing)[0] == 250, "not accepted")
    client.close()
    exim.wait_arrived()
    wait_for(lambda: bounces(exim, failing), "the bounce arrives")
    exim.wait_empty()


@test(*VIEWS)
def pipe(exim):
    """The command of a pipe transport reads the whole message."""
    for size in (500, 300000):
        exim.submit(exim.expect(Message("user@pipe.test", size=size), "command"), "-odi")
    exim.wait_arrived()
    exim.wait_empty()


def line_of(raw, text):
    """Is TEXT a line of its own in RAW?"""
    return text in [line.strip() for line in raw.splitlines()]


@test(*VIEWS)
def pipe_output(exim):
    """What the command of a user's .forward prints, also in a filter, reaches the bounce, by a file in msglog/ that root
    opened and the user's process writes.  (return_output: a failure, whatever the exit status.)"""
    for lines in ((f"\"|{exim.work}/say 0\"",), ("# Exim filter", f"pipe \"{exim.work}/say 0\"")):
        exim.forward(*lines)
        message = Message(f"{USER}@forward.test", body=b"body\n")
        exim.submit(message, "-odi")
        raw, = wait_for(lambda: bounces(exim, message), "the bounce arrives")
        check(line_of(raw, b"333333"), f"the bounce doesn't hold the output: {raw[-1500:]!r}")
        check(message.token in (exim.work / "mail" / "read").read_text(), "the command didn't read the message")
    exim.wait_empty()


@test(*VIEWS)
def pipe_output_logged(exim):
    """log_output, log_fail_output, log_defer_output: the log has the first line of what the command printed.
    return_output and return_fail_output: the bounce has all of it, and the message isn't counted as delivered."""
    for domain, bounced in (("works", b"333333"), ("fails", b"666666"), ("defers", None)):
        message = Message(f"user@{domain}.output.test", body=b"body\n")
        exim.submit(message, "-odi")
        wait_for(lambda: re.search(rf"<user@{domain}.output.test>: {domain} transport output: 333333", exim.log()),
                 f"the log has the output of {domain}")
        if bounced:
            raw, = wait_for(lambda: bounces(exim, message), "the bounce arrives")
            check(line_of(raw, b"333333") and line_of(raw, bounced), f"the bounce of {domain} holds {raw[-1500:]!r}")
    check("=> user" not in exim.log(), "a message whose command printed something counts as delivered")
    exim.settle()
    check(len(exim.queue()) == 1, "the deferred message doesn't wait")
    exim.run("-Mrm", exim.queue()[0])


@test(*VIEWS)
def pipe_output_batched(exim):
    """One command for a batch of recipients: its output reaches the one bounce."""
    message = Message([f"user{n}@batch.output.test" for n in range(4)], body=b"body\n")
    exim.submit(message, "-odi")
    raw, = wait_for(lambda: bounces(exim, message), "the bounce arrives")
    check(raw.count(b"333333") == 1 and all(recipient.encode() in raw for recipient in message.recipients),
          f"the bounce holds {raw[-3000:]!r}")
    exim.wait_empty()


@test(("_local", {}), ("_remote", {"remote_transport": "smtp_filtered"}), VIEWS[1])
def transport_filter(exim):
    """A transport filter reads the message from Exim, and its output is delivered.  It has no descriptor but 0 to 2."""
    if "smtp_filtered" in pathlib.Path("/etc/exim4/exim4.conf").read_text().split("begin transports")[0]:
        message = Message()
        exim.submit(message, "-odi")
        wait_for(lambda: exim.sink.messages, "the mail arrived")
        body = exim.sink.messages[0][1].replace(b"\r\n", b"\n").partition(b"\n\n")[2]
        check(body == message.body.replace(b"original", b"filtered"), "the filter's output isn't what arrived")
        message.body = body
        exim.expect(message, "sink")
    else:
        exim.submit(exim.expect(Message("user@filtered.test"), "filtered"), "-odi")
    exim.wait_arrived()
    exim.wait_empty()
    descriptors = (exim.work / "mail" / "filter.descriptors").read_text()
    check(descriptors == "0 1 2", f"the filter has descriptors {descriptors}")


@test(*VIEWS)
def user_filter(exim):
    """A .forward filter runs as the user, reads the message body, and files the message."""
    exim.forward("# Exim filter",
                 "if $message_body contains \"body of interest\" then",
                 f"  save {exim.work}/mail/maildir/",
                 "else",
                 f"  save {exim.work}/mail/mbox",
                 "  deliver copy@sink.test",
                 "endif")
    exim.submit(exim.expect(Message(f"{USER}@forward.test", body=b"a body of interest\n"), "maildir"), "-odi")
    exim.submit(exim.expect(Message(f"{USER}@forward.test", body=b"another body\n"), "mbox", "sink"), "-odi",
                user=USER)
    exim.wait_arrived()
    exim.wait_empty()


@test(*VIEWS)
def user_sees_no_store(exim):
    """No store is mapped in a filter that runs as a user, nor in an exim -C that runs as its caller."""
    exim.forward("# Exim filter",
                 f"logfile {exim.work}/mail/seen",
                 "logwrite \"maps ${readfile{/proc/self/maps}{:}}\"",
                 f"save {exim.work}/mail/mbox")
    exim.submit(exim.expect(Message(f"{USER}@forward.test", body=b"body\n"), "mbox"), "-odi")
    exim.wait_arrived()
    seen = (exim.work / "mail" / "seen")
    maps = seen.read_text() if seen.exists() else ""
    check("maps " in maps and "/fastspool." not in maps, f"the filter saw {maps[-3000:]}")
    own = exim.work / "mail" / "own.conf"
    own.write_text("")
    result = exim.command("-C", own, "-be", "${readfile{/proc/self/maps}}", user="nobody")
    check(b"libc" in result.stdout and b"/fastspool." not in result.stdout, f"-be showed {result.stdout!r}")


@test(*VIEWS)
def filter_tests(exim):
    """An ordinary user tries a filter (-bf, -bF), also with a configuration of his own: he may not attach the store, and
    Exim asks how much room the spool directory has."""
    exim.start()
    rules = exim.work / "mail" / "rules"
    rules.write_text("# Exim filter\nsave /srv/filed\n")
    own = exim.work / "mail" / "own.conf"
    own.write_text(pathlib.Path("/etc/exim4/exim4.conf").read_text())
    for path in (rules, own):
        path.chmod(0o644)
    for arguments in (("-bf", rules), ("-bF", rules), ("-C", own, "-bf", rules)):
        result = exim.command(*arguments, user="nobody", input=b"From: a@b.test\nSubject: x\n\nbody\n")
        check(b"Save message to: /srv/filed" in result.stdout, f"{arguments} printed {result.stdout + result.stderr!r}")


@test(*VIEWS)
def bounce(exim):
    """An unknown local recipient: the sender gets a bounce that contains the message."""
    exim.start()
    client = Client()
    message = Message("user@fail.test", body=b"come back\n" * 200)
    check(client.send(message)[0] == 250, "not accepted")
    raw, = wait_for(lambda: bounces(exim, message), "the bounce arrives")
    check(b"no such user here" in raw and b"come back\r\n" * 200 in raw, "the bounce doesn't hold the message")
    client.close()
    exim.wait_empty()


@test()
def bounce_of_remote(exim):
    """A 550 from the sink to RCPT: the sender, a local mbox, gets a bounce with the sink's reply."""
    exim.sink.reject = True
    message = Message("user@sink.test", sender="user@mbox.test", body=b"come back\n")
    exim.submit(message, "-odi")
    wait_for(lambda: [raw for place, raw in exim.arrived() if place == "mbox" and b"no such user at the sink" in raw],
             "the bounce arrives in the mbox")
    exim.wait_empty()


@test(*VIEWS)
def some_fail(exim):
    """One message, four recipients: two arrive, one bounces, one is deferred.  The next run delivers only that one."""
    exim.sink.refusals = 1
    message = exim.expect(Message(["a@maildir.test", "b@fail.test", "c@sink.test", "d@filtered.test"],
                                  sender="sender@mbox.test"), "maildir", "filtered", "sink")
    exim.submit(message, "-odi")
    wait_for(lambda: len(exim.queue()) == 1 and [1 for place, _ in exim.arrived() if place == "mbox"],
             "the bounce arrived and the message waits")
    exim.settle()
    exim.run("-qff")
    exim.wait_arrived()
    exim.wait_empty()


@test(main=("remote_max_parallel = 8",))
def many_recipients(exim):
    """A message with 60 recipients: parallel deliveries share the journal, and each recipient gets one copy."""
    message = Message([f"user{n}@sink{n}.test" for n in range(60)])
    exim.submit(message, "-odi")
    wait_for(lambda: sum(len(to) for to, _ in exim.sink.messages) >= 60, "all recipients have the message")
    exim.wait_empty()
    got = sorted(recipient for to, _ in exim.sink.messages for recipient in to)
    check(got == sorted(message.recipients), "some recipient got it twice or not at all")
    exim.sink.messages = exim.sink.messages[:1]
    exim.expect(message, "sink")


@test(main=("deliver_drop_privilege = true",))
def without_privilege(exim):
    """deliver_drop_privilege: the receiving process delivers too, as Exim's user."""
    exim.start()
    client = Client()
    for _ in range(3):
        check(client.send(exim.expect(Message(), "sink"))[0] == 250, "not accepted")
    client.close()
    exim.wait_arrived()
    exim.wait_empty()


@test(main=QUEUE_ONLY)
def same_connection(exim):
    """Messages that wait hints send over one connection, by exec with the socket (-MC), each arrive once."""
    exim.sink.refusals = 1
    for _ in range(6):
        exim.submit(exim.expect(Message(), "sink"), "-odi")
    exim.run("-qff")
    exim.settle()
    exim.run("-qff")
    exim.run("-qff")
    exim.wait_arrived()
    exim.wait_empty()


if __name__ == "__main__":
    main("delivery")
