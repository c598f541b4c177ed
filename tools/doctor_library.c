/* SPDX-License-Identifier: MIT
 *
 * fastspool doctor: the library, and how Exim gets it.
 *
 * Happy path: the library is root's, of mode 4644, in the loader's own directory; a real set-user-ID Exim that an
 * ordinary user runs has it in its memory; and so has one with the environment that the next start will have.
 *
 * Failure modes: the environment of the next start is known from this process's own (--start), from systemd's unit and
 * from /etc/default/exim4.  What another script sets is not seen.
 */
#include "base/error.h"
#include "config.h"
#include "doctor.h"
#include "exims.h"
#include "installed.h"
#include "ways.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIBRARY     INSTALLED_LIBRARY
#define MEND        "`chown root:root " LIBRARY " && chmod 4644 " LIBRARY "`"
#define SEPARATORS  " \t\n:"
#define NO_USER     65534u
#define LIST_MAX    4096
#define SYNC_IS_OWN 1 /* exit status of a child */

void doctor_installed(struct doctor *doctor)
{
    char user[ERROR_USER], differs[INSTALLED_SENTENCE];
    struct stat st;

    if (stat(LIBRARY, &st) < 0)
        doctor_tell(doctor, DOCTOR_WRONG, ways_install(true), "%s: %s", LIBRARY, strerrordesc_np(errno));
    else if (!S_ISREG(st.st_mode))
        doctor_tell(doctor, DOCTOR_WRONG, ways_install(true), "%s is no file", LIBRARY);
    else if (st.st_uid != 0 || (st.st_mode & 022))
        doctor_tell(doctor, DOCTOR_WRONG, MEND, "%s is %s's, mode %04o, and not root's alone to write", LIBRARY,
                    error_user(st.st_uid, user), st.st_mode & 07777);
    else if (!(st.st_mode & S_ISUID))
        doctor_tell(doctor, DOCTOR_WRONG, MEND,
                    "%s has mode %04o and not 4644: the loader does not take it into Exim's re-executions", LIBRARY,
                    st.st_mode & 07777);
    else if (installed_differs(differs))
        doctor_tell(doctor, DOCTOR_WRONG, ways_install_both(), "%s", differs);
    else if ((st.st_mode & 07777) != 04644)
        doctor_tell(doctor, DOCTOR_ATTENTION, MEND, "%s has mode %04o and not 4644", LIBRARY, st.st_mode & 07777);
    else
        doctor_tell(doctor, DOCTOR_OK, NULL, "%s is root's, mode 4644", LIBRARY);
}

/* As the spool's owner: Exim re-executes itself so. */
static int maps_library(const struct doctor *doctor, const char *preload)
{
    return doctor->spool[0] && doctor->owner != 0
               ? command_maps_library(doctor->exim, doctor->owner, doctor->group, preload)
               : command_maps_library(doctor->exim, NO_USER, NO_USER, preload);
}

void doctor_secure(struct doctor *doctor)
{
    char mend[sizeof(LIBRARY) + 256];
    struct stat st;

    if (!doctor->exim[0] || stat(doctor->exim, &st) < 0)
        return;
    snprintf(mend, sizeof(mend), "see that " LIBRARY " is as above; then %s", ways_install(true));
    int result = maps_library(doctor, EXIMS_LIBRARY);
    doctor->loads = result == 1;
    if (result == -EACCES)
        doctor_tell(doctor, DOCTOR_ATTENTION, DOCTOR_LOOKS,
                    "whether %s, run by an ordinary user, loads the library can't be seen from here", doctor->exim);
    else if (result == -ECHILD)
        doctor_tell(doctor, DOCTOR_WRONG, mend,
                    "%s, run by an ordinary user with LD_PRELOAD=%s, ends at once, as where its file is a part of a "
                    "library",
                    doctor->exim, EXIMS_LIBRARY);
    else if (result < 0)
        doctor_tell(doctor, DOCTOR_ATTENTION, "run `exim -bV` and see what it says",
                    "%s -bV could not be looked at: %s", doctor->exim, strerrordesc_np(-result));
    else if (result == 0)
        doctor_tell(doctor, DOCTOR_WRONG, mend,
                    "%s, run by an ordinary user with LD_PRELOAD=%s, does not load the library", doctor->exim,
                    EXIMS_LIBRARY);
    else if (st.st_uid == 0 && !(st.st_mode & S_ISUID))
        doctor_tell(doctor, DOCTOR_ATTENTION, "install Exim again, or `chmod u+s` it, if it is to take users' mail",
                    "%s is not set-user-ID: an ordinary user's mail fails, and the daemon's deliveries may",
                    doctor->exim);
    else
        doctor_tell(doctor, DOCTOR_OK, NULL, "%s, run by an ordinary user, loads the library", doctor->exim);
}

/* ---- the next start ---- */

/* The LD_PRELOAD of Exim's next start, "" if there is none. */
static void find_preload(const struct doctor *doctor, char value[COMMAND_OUTPUT])
{
    const char *own = getenv("LD_PRELOAD");

    if (doctor->preload) {
        snprintf(value, COMMAND_OUTPUT, "%s", doctor->preload);
        return;
    }
    if (doctor->start)
        snprintf(value, COMMAND_OUTPUT, "%s", own ? own : "");
    else
        ways_of_service(value);
    ways_of_defaults(value, value);
}

/* With the library itself in order.  What is needed by Exim's image, or preloaded everywhere, comes without a variable.
 */
void doctor_preload(struct doctor *doctor)
{
    char value[COMMAND_OUTPUT];

    doctor->leads = ways_are_in(); /* where it can't be said better */
    if (!doctor->loads)
        return;
    find_preload(doctor, value);
    int result = maps_library(doctor, value[0] ? value : NULL);
    doctor->leads = result < 0 ? doctor->leads : result > 0;
    if (result == -EACCES)
        doctor_tell(doctor, DOCTOR_ATTENTION, DOCTOR_LOOKS,
                    value[0]
                        ? "whether Exim gets the library by LD_PRELOAD=%s can't be seen from here"
                        : "Exim has no LD_PRELOAD, and whether it gets the library otherwise can't be seen from here%s",
                    value);
    else if (result < 0)
        doctor_tell(doctor, DOCTOR_ATTENTION, NULL, "%s -bV could not be looked at: %s", doctor->exim,
                    strerrordesc_np(-result));
    else if (result == 0 && value[0])
        doctor_tell(doctor, DOCTOR_WRONG, "LD_PRELOAD=" EXIMS_LIBRARY ", the bare name: `fastspool enable`",
                    "with LD_PRELOAD=%s Exim's re-executions do not load the library", value);
    else if (result == 0)
        doctor_tell(doctor, DOCTOR_WRONG, "`fastspool enable`",
                    "nothing gives Exim the library: neither its service, nor %s, nor %s", WAYS_DEFAULTS,
                    WAYS_EVERYWHERE);
    else
        doctor_tell(doctor, DOCTOR_OK, NULL, "Exim gets the library%s%s",
                    value[0] ? " by LD_PRELOAD=" : " without LD_PRELOAD", value);
}

/* ---- other libraries that stand in the way ---- */

/* Does library @name have an fsync or fdatasync of its own?  It is loaded in a child. */
static bool replaces_sync(const char *name)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        struct link_map *library = dlopen(name, RTLD_NOW);
        static const char *const names[] = {"fsync", "fdatasync"};
        for (size_t i = 0; library && i < sizeof(names) / sizeof(*names); i++) {
            void *function = dlsym(library, names[i]);
            Dl_info info;
            if (function && dladdr(function, &info) && (ElfW(Addr))(uintptr_t)info.dli_fbase == library->l_addr)
                _exit(SYNC_IS_OWN);
        }
        _exit(0);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == SYNC_IS_OWN;
}

static bool look_through(struct doctor *doctor, char *list, const char *where)
{
    char *rest = NULL;
    bool found = false;

    for (char *name = strtok_r(list, SEPARATORS, &rest); name; name = strtok_r(NULL, SEPARATORS, &rest)) {
        if (strstr(name, EXIMS_LIBRARY) || !replaces_sync(name))
            continue;
        doctor_tell(doctor, DOCTOR_WRONG, "take it out there, and restart Exim",
                    "%s, in %s, replaces fsync: acknowledged mail may never reach the disk", name, where);
        found = true;
    }
    return found;
}

void doctor_ahead(struct doctor *doctor)
{
    char list[LIST_MAX] = "", value[COMMAND_OUTPUT];
    FILE *file = fopen(WAYS_EVERYWHERE, "re");

    if (file) {
        list[fread(list, 1, sizeof(list) - 1, file)] = '\0';
        fclose(file);
    }
    find_preload(doctor, value);
    bool everywhere = look_through(doctor, list, WAYS_EVERYWHERE);
    if (!look_through(doctor, value, "Exim's LD_PRELOAD") && !everywhere)
        doctor_tell(doctor, DOCTOR_OK, NULL, "no library that is preloaded replaces fsync");
}
