/* SPDX-License-Identifier: MIT
 *
 * The protocol of sd_notify(3), which its manual describes for programs without libsystemd: one datagram to a socket.
 *
 * Failure modes:
 *   - There is no manager, or its socket can't be reached: nothing is sent.  A manager that waits for READY=1 says so
 *     itself, when its time is up.
 */
#include "mount/notify.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

bool notify_is_awaited(void)
{
    return getenv("NOTIFY_SOCKET") != NULL;
}

void notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (!path || strlen(path) >= sizeof(address.sun_path))
        return;
    strcpy(address.sun_path, path);
    if (path[0] == '@') /* an abstract socket */
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address,
           (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path)));
    close(fd);
}
