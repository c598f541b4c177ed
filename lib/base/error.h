/* SPDX-License-Identifier: MIT
 *
 * Errors: a negative errno for the program, and a sentence for the person who reads it.
 */
#ifndef FASTSPOOL_ERROR_H
#define FASTSPOOL_ERROR_H

/** Bytes of a sentence, its NUL included: FASTSPOOL_ERROR_MAX of the public header. */
#define ERROR_MAX 512

/** Write the sentence to @error (ERROR_MAX bytes), cut where it is longer; returns @code, for `return error_set(...)`.
 */
int error_set(char *error, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
