/* SPDX-License-Identifier: MIT
 *
 * Messages between the view's supervisor and its children.
 *
 * Failure modes: a message of another size, or without the end of its name, is -EBADMSG.  The server is not trusted: it
 * runs as the mail user.
 */
#include "mount/control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int control_pair(int sockets[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0 ? -errno : 0;
}

int control_send(int socket, enum control_kind kind, int error, const char *name)
{
    struct control message = {.kind = kind, .error = error};
    ssize_t sent;

    if (name && strlen(name) >= sizeof(message.name))
        return -ENAMETOOLONG;
    strcpy(message.name, name ? name : "");
    do {
        sent = send(socket, &message, sizeof(message), MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : 0;
}

int control_receive(int socket, struct control *message)
{
    ssize_t size;

    do {
        size = recv(socket, message, sizeof(*message), 0);
    } while (size < 0 && errno == EINTR);
    if (size <= 0)
        return size < 0 ? -errno : 0;
    if (size != sizeof(*message) || message->name[sizeof(message->name) - 1] != '\0')
        return -EBADMSG;
    return 1;
}
