/* SPDX-License-Identifier: MIT
 *
 * ^C, and the other signals that ask a command to end.
 */
#ifndef FASTSPOOL_INTERRUPT_H
#define FASTSPOOL_INTERRUPT_H

#include <stdbool.h>

/** From here on such a signal ends this process at once, as it did before, with "fastspool: interrupted: SENTENCE".
 *  @sentence stays valid. */
void interrupt_says(const char *sentence);

/** From here on the first such signal is only noted; the second one, whichever it is, ends this process at once, with
 *  the same words.  @sentence stays valid. */
void interrupt_note(const char *sentence);
bool interrupt_came(void);
/** How the operator ends this process, and what that costs: "^C ends ...". */
const char *interrupt_way_out(void);
/** End by the signal that was noted, as without a handler: a shell's script ends, too. */
_Noreturn void interrupt_end(void);

#endif
