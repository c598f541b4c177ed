#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every way into the queue: all forms of SMTP, the command line, many clients, large messages, broken clients."""
import os
import signal
import threading

from harness import LAYOUTS, QUEUE_ONLY, USER, Client, Message, check, main, processes, test, wait_for


@test(*LAYOUTS)
def smtp(exim):
    """Three messages on one connection, from a client that waits for each reply, are delivered at once."""
    exim.start()
    client = Client()
    for _ in range(3):
        code, reply = client.send(exim.expect(Message(), "sink"))
        check(code == 250, reply)
    client.close()
    exim.wait_arrived()


@test(*LAYOUTS)
def pipelining(exim):
    """Messages with a pipelined envelope are delivered."""
    exim.start()
    client = Client()
    for _ in range(3):
        code, reply = client.send(exim.expect(Message(), "sink"), pipelining=True)
        check(code == 250, reply)
    client.close()
    exim.wait_arrived()


@test(*LAYOUTS)
def chunking(exim):
    """Messages by BDAT, in one chunk or several, pipelined or not, are delivered."""
    exim.start()
    client = Client()
    for chunks, pipelined in ((1, False), (5, False), (1, True), (3, True)):
        code, reply = client.send(exim.expect(Message(), "sink"), chunks=chunks, pipelining=pipelined)
        check(code == 250, reply)
    client.close()
    exim.wait_arrived()


@test(main=("spool_wireformat = true",))
def wire_format(exim):
    """Messages spooled in wire format are read back with their CRLFs, also by sendfile."""
    exim.start()
    client = Client()
    for size in (2000, 200000):
        code, reply = client.send(exim.expect(Message(size=size), "sink"), chunks=4)
        check(code == 250, reply)
    client.close()
    exim.wait_arrived()


@test()
def tls(exim):
    """Messages over STARTTLS, by DATA and by BDAT, are delivered."""
    exim.start()
    client = Client(tls=True)
    for chunks in (0, 3):
        code, reply = client.send(exim.expect(Message(), "sink"), chunks=chunks)
        check(code == 250, reply)
    client.close()
    exim.wait_arrived()


@test(*LAYOUTS)
def command_line(exim):
    """-bm works for root and for a user (set-user-ID Exim in secure execution), and -t takes recipients from the header."""
    exim.submit(exim.expect(Message(), "sink"))
    exim.submit(exim.expect(Message(), "sink"), user=USER)
    message = exim.expect(Message(["one@sink.test", "two@sink.test"]), "sink")
    exim.run("-oi", "-t", "-f", message.sender, input=message.content(), user=USER)
    exim.wait_arrived()
    exim.wait_empty()


@test()
def foreground(exim):
    """-odf delivers before it returns."""
    message = exim.expect(Message("user@maildir.test"), "maildir")
    exim.submit(message, "-odf", user=USER)
    check(("maildir", message.token) in exim.tokens(), "-odf returned before the delivery")


@test()
def batch(exim):
    """-bS accepts a silent SMTP batch on standard input, -bs an SMTP dialogue."""
    for option in ("-bS", "-bs"):
        lines = [b"EHLO client.test\n"] if option == "-bs" else []
        for _ in range(4):
            message = exim.expect(Message(body=b"plain\nlines\n"), "sink")
            lines.append(b"MAIL FROM:<%s>\nRCPT TO:<user@sink.test>\nDATA\n%s.\n" % (
                message.sender.encode(), message.content()))
        output = exim.run(option, input=b"".join(lines) + b"QUIT\n")
        check(option == "-bs" or output == b"", f"-bS said {output!r}")
    exim.wait_arrived()
    exim.wait_empty()


@test(main=QUEUE_ONLY)
def queue_only(exim):
    """queue_only: nothing is delivered before a queue run, and everything by it."""
    exim.start()
    client = Client()
    for _ in range(5):
        check(client.send(exim.expect(Message(), "sink"))[0] == 250, "not accepted")
    client.close()
    exim.submit(exim.expect(Message(), "sink"), user=USER)
    exim.settle()
    check(len(exim.queue()) == 6 and not exim.tokens(), f"queue {exim.queue()}, arrived {exim.tokens()}")
    exim.deliver_queue()


def flood(exim, connections, each, place, recipient, **sending):
    """CONNECTIONS parallel clients, EACH messages per client."""
    problems = []

    def one():
        try:
            client = Client()
            for _ in range(each):
                code, reply = client.send(exim.expect(Message(recipient), place), **sending)
                check(code == 250, reply)
            client.close()
        except Exception as problem:
            problems.append(problem)
    threads = [threading.Thread(target=one) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(not problems, f"{len(problems)} clients failed, the first: {problems[:1]}")


@test(main=QUEUE_ONLY)
def parallel_queued(exim):
    """Messages over 32 parallel connections are queued, and a queue run delivers them."""
    exim.start()
    flood(exim, 32, 4, "sink", "user@sink.test")
    check(int(exim.run("-bpc")) == 128, "the queue doesn't hold what was accepted")
    exim.deliver_queue()


@test(*LAYOUTS)
def parallel_delivered(exim):
    """Messages over 16 parallel connections are delivered at once, to the sink and then to a maildir."""
    exim.start()
    flood(exim, 16, 3, "sink", "user@sink.test", pipelining=True)
    flood(exim, 16, 3, "maildir", "user@maildir.test", chunks=2)
    exim.wait_arrived()
    exim.wait_empty()


@test(main=QUEUE_ONLY + ("process_log_path = {work}/log/process",))
def signalled(exim):
    """exiwhat's SIGUSR1 is harmless at any instant of a reception, although its handler opens and writes files."""
    exim.start()
    stop = threading.Event()

    def signals():
        while not stop.is_set():
            for pid, name in processes():
                if name.startswith("exim"):
                    try:
                        os.kill(pid, signal.SIGUSR1)
                    except ProcessLookupError:
                        pass
            stop.wait(0.002)
    thread = threading.Thread(target=signals)
    thread.start()
    try:
        flood(exim, 8, 10, "sink", "user@sink.test")
    finally:
        stop.set()
        thread.join()
    check((exim.work / "log" / "process").exists(), "no process wrote its status")
    exim.deliver_queue()


@test(main=QUEUE_ONLY + ("message_size_limit = 200M",))
def large(exim):
    """50 MiB arrive whole, by DATA at the sink and by BDAT in a maildir."""
    exim.start()
    client = Client()
    body = Message(size=50 << 20).body
    for recipient, place, chunks in (("user@sink.test", "sink", 0), ("user@maildir.test", "maildir", 7)):
        code, reply = client.send(exim.expect(Message(recipient, body=body), place), chunks=chunks)
        check(code == 250, reply)
    client.close()
    exim.deliver_queue()


@test(main=QUEUE_ONLY)
def tiny(exim):
    """Bodies of no byte, one byte, and about one stdio buffer or block arrive whole."""
    exim.start()
    client = Client()
    for size in (0, 1, 2, 4000, 4076, 4077, 4078, 4095, 4096, 4097, 8192, 65536):
        body = ((b"x" * 76 + b"\n") * (size // 77 + 1))[:size - 1] + b"\n" if size else b""
        check(client.send(exim.expect(Message(body=body), "sink"))[0] == 250, f"{size} bytes not accepted")
    client.close()
    exim.deliver_queue()


@test(main=("acl_smtp_data = deny", "queue_only = true"))
def refused(exim):
    """A message that an ACL refuses after DATA, or that a client abandons, leaves nothing in the queue."""
    exim.start()
    client = Client()
    check(client.send(Message())[0] == 550, "not refused")
    client.close()
    for sent in (b"DATA\r\n", b"DATA\r\nhalf a mess", b"BDAT 100\r\nhalf", b"BDAT 4\r\nfourBDAT 5\r\n"):
        client = Client()
        client.socket.sendall(b"MAIL FROM:<a@sink.test>\r\nRCPT TO:<b@sink.test>\r\n" + sent)
        client.expect(250)
        client.expect(250)
        client.socket.close()
    wait_for(lambda: not exim.queue(), "the queue is empty")


@test(main=("queue_only = true", "message_size_limit = 20K"))
def too_large(exim):
    """A message over the size limit is refused after its data, and its files, unlinked while open, are gone."""
    exim.start()
    client = Client()
    check(client.send(Message(size=100000))[0] == 552, "a message over the limit was not refused by DATA")
    check(client.send(Message(size=100000), chunks=1)[0] == 552, "a message over the limit was not refused by BDAT")
    client.socket.close()       # Exim refuses BDAT early, and reads the rest as commands
    client = Client()
    check(client.send(exim.expect(Message(), "sink"))[0] == 250, "the next one was not accepted")
    client.close()
    exim.deliver_queue()


@test(main=QUEUE_ONLY + ("acl_smtp_data = body",))
def body_in_acl(exim):
    """$message_body reads -D back through the descriptor that Exim is still writing to."""
    exim.start()
    client = Client()
    check(client.send(exim.expect(Message(size=400), "sink"))[0] == 250, "the ACL didn't see the body")
    check(client.send(Message(body=b"other\n"))[0] == 550, "the ACL didn't see the body")
    client.close()
    exim.deliver_queue()


@test(main=QUEUE_ONLY + ("acl_smtp_data = command",))
def command_in_acl(exim):
    """A ${run} command inherits no descriptor of the store.  (Stock Exim leaks -D to it.)"""
    exim.start()
    client = Client()
    check(client.send(exim.expect(Message(), "sink"))[0] == 250, "not accepted")
    client.close()
    inherited = (exim.work / "mail" / "inherited").read_text().split()
    check(exim.stock or not [path for path in inherited if "fastspool" in path or path.startswith(str(exim.spool))],
          f"the command inherited {inherited}")
    exim.deliver_queue()


@test()
def hang_up(exim):
    """After SIGHUP the daemon re-executes itself and serves the same queue."""
    exim.start("-q1m")
    # The daemon listens before it handles signals.
    wait_for(lambda: "End queue run" in exim.log(), "its first queue run has ended")
    before = os.readlink(f"/proc/{exim.daemon.pid}/exe")
    exim.daemon.send_signal(signal.SIGHUP)
    wait_for(lambda: exim.log().count("daemon started") + exim.log().count("SIGHUP received") >= 2, "SIGHUP was seen")

    def accepts():
        try:
            client = Client()
        except OSError:
            return False
        code, reply = client.send(exim.expect(Message(), "sink"))
        check(code == 250, reply)
        client.close()
        return True
    wait_for(accepts, "the daemon accepts again")
    check(os.readlink(f"/proc/{exim.daemon.pid}/exe") == before, "another program runs")
    exim.wait_arrived()


if __name__ == "__main__":
    main("reception")
