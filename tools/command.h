/* SPDX-License-Identifier: MIT
 *
 * Running other programs: what one prints, and what the loader maps into a set-user-ID one.
 */
#ifndef FASTSPOOL_COMMAND_H
#define FASTSPOOL_COMMAND_H

#include <sys/types.h>

#define COMMAND_OUTPUT 8192

/** Run @arguments[0], found by PATH, and wait for its end.  @output has the start of what it prints on standard output,
 *  as a string, without the last newline.  @preload: its LD_PRELOAD; NULL: none.  Its standard error goes nowhere.
 *  The exit status; 127: it can't be executed; -1: it was killed, or a system call failed. */
int command_run(const char *const arguments[], const char *preload, char output[COMMAND_OUTPUT]);

/** The same, but what it prints goes where this process's output goes, and it can ask on the terminal.  ^C
 *  is for it alone. */
int command_show(const char *const arguments[], const char *preload);

/** Run Exim's @image with -bV as the ordinary user @uid, so that the loader is in secure execution, and look whether
 *  the library is in its memory.  @preload: as above.  1: it is; 0: it is not; -errno: it can't be said:
 *  -ECHILD: Exim has ended before it said anything. */
int command_maps_library(const char *image, uid_t uid, gid_t gid, const char *preload);

#endif
