/* SPDX-License-Identifier: MIT
 *
 * ^C, and the other signals that ask a command to end: nobody has to guess what an interrupted command has done.
 *
 * The happy path: work that can end between two steps asks whether a signal came, and says how far it has come.  Other
 * work ends at once, with a sentence that was known before.
 *
 * Failure modes: a signal that the starter has ignored, as nohup(1) does, stays ignored.  The handler may come where
 * the work has lent rights: it writes to standard error, and touches no file.
 */
#include "interrupt.h"

#include "base/atomic.h"
#include "progress.h"

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
static const char *said;
static int32_t came;
static bool noted; /* the first one is */

static void tell(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        return; /* nobody reads it */
}

/* SA_NODEFER: it ends the process now. */
static void say_and_end(int number)
{
    signal(number, SIG_DFL);
    progress_pause();
    tell("fastspool: interrupted: ");
    tell(said);
    tell("\n");
    raise(number);
}

/* The second one may come at once: timeout(1) sends two. */
static void note(int number)
{
    if (__atomic_exchange_n(&came, number, __ATOMIC_SEQ_CST) != 0)
        say_and_end(number);
}

static void catch (void (*handler)(int), int flags)
{
    const struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    struct sigaction before;

    for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++) {
        if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(signals[i], &action, NULL);
    }
}

void interrupt_says(const char *sentence)
{
    said = sentence;
    noted = false;
    catch (say_and_end, SA_NODEFER);
}

void interrupt_note(const char *sentence)
{
    said = sentence;
    noted = true;
    catch (note, SA_NODEFER | SA_RESTART);
}

bool interrupt_came(void)
{
    return LOAD(came) != 0;
}

const char *interrupt_way_out(void)
{
    return noted ? "^C twice ends this call, and nothing is lost" : "^C ends this call, and nothing is lost";
}

void interrupt_end(void)
{
    signal(LOAD(came), SIG_DFL);
    raise(LOAD(came));
    _exit(1); /* it is blocked */
}
