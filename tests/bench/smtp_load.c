/* SPDX-License-Identifier: MIT
 *
 * A load generator for the SMTP server on the loopback:
 *
 *      smtp_load PORT CONNECTIONS SECONDS BYTES EACH [RECIPIENT]
 *
 * CONNECTIONS threads send messages of BYTES back to back for SECONDS.  Each message takes two writes, one for the
 * envelope and one for the data.  A thread reconnects after every EACH messages.  Prints "MESSAGES SECONDS", where
 * MESSAGES counts those answered with 250 in time.
 *
 * Failure modes: if a connection fails, the program prints why and exits with status 1.
 */
#define _GNU_SOURCE
#include "argument.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int port, each;
static double end;
static char *data;
static size_t data_size;
static char envelope[400];
static size_t envelope_size;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

/* Send @command and read @replies replies.  The last one must be @code. */
static void say(FILE *in, int out, const char *command, size_t size, int replies, int code)
{
    char line[1024] = "";
    if (size && write(out, command, size) != (ssize_t)size) {
        perror("write");
        exit(1);
    }
    while (replies) {
        if (!fgets(line, sizeof line, in)) {
            fprintf(stderr, "the connection was closed after: %s\n", line);
            exit(1);
        }
        replies -= line[3] == ' ';
    }
    if (*line && atoi(line) != code) {
        fprintf(stderr, "expected %d, got: %s", code, line);
        exit(1);
    }
}

/* One connection.  Returns how many of its messages were accepted in time. */
static long session(void)
{
    static const char hello[] = "EHLO load.test\r\n";
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int out = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(out, (struct sockaddr *)&address, sizeof address)) {
        perror("connect");
        exit(1);
    }
    setsockopt(out, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    FILE *in = fdopen(out, "r");
    long count = 0;
    say(in, out, "", 0, 1, 220);
    say(in, out, hello, sizeof hello - 1, 1, 250);
    for (int i = 0; i < each && now() < end; i++) {
        say(in, out, envelope, envelope_size, 3, 354);
        say(in, out, data, data_size, 1, 250);
        count += now() < end;
    }
    /* Don't wait for the reply: after QUIT Exim gives the client 200 ms to close first. */
    say(in, out, "QUIT\r\n", 6, 0, 250);
    fclose(in);
    return count;
}

static void *client(void *unused)
{
    (void)unused;
    long count = 0;
    while (now() < end)
        count += session();
    return (void *)count;
}

int main(int argc, char **argv)
{
    if (argc != 6 && argc != 7) {
        fprintf(stderr, "usage: smtp_load PORT CONNECTIONS SECONDS BYTES EACH [RECIPIENT]\n");
        return 2;
    }
    port = (int)argument_number("PORT", argv[1], 1, 65535);
    each = (int)argument_number("EACH", argv[5], 1, 1000000000);
    unsigned long connections = argument_number("CONNECTIONS", argv[2], 1, 100000);
    data_size = argument_number("BYTES", argv[4], 1, 1000000000);
    char *rest;
    double seconds = strtod(argv[3], &rest);
    if (*rest || !(seconds > 0 && seconds < 1e6)) {
        fprintf(stderr, "smtp_load: SECONDS must be a number above 0, and is `%s`\n", argv[3]);
        return 2;
    }
    envelope_size =
        (size_t)snprintf(envelope, sizeof envelope, "MAIL FROM:<load@sink.test>\r\nRCPT TO:<%s>\r\nDATA\r\n",
                         argc > 6 ? argv[6] : "user@sink.test");
    if (envelope_size >= sizeof envelope) {
        fprintf(stderr, "smtp_load: RECIPIENT is too long\n");
        return 2;
    }
    data = malloc(data_size + 80);
    size_t at = (size_t)sprintf(data, "Subject: load\r\n\r\n");
    while (at + 80 < data_size)
        at += (size_t)sprintf(data + at, "%076zu\r\n", at);
    data_size = at + (size_t)sprintf(data + at, ".\r\n");
    double begin = now();
    end = begin + seconds;
    pthread_t *thread = calloc(connections, sizeof *thread);
    for (unsigned long i = 0; i < connections; i++)
        pthread_create(&thread[i], NULL, client, NULL);
    long total = 0;
    for (unsigned long i = 0; i < connections; i++) {
        void *count;
        pthread_join(thread[i], &count);
        total += (long)count;
    }
    printf("%ld %.3f\n", total, seconds);
    return 0;
}
