/* SPDX-License-Identifier: MIT
 *
 * Pointers that a program gives to a system call: the kernel answers EFAULT to a bad one, and so does the library.
 */
#ifndef FASTSPOOL_POINTERS_H
#define FASTSPOOL_POINTERS_H

#include <stdbool.h>
#include <stddef.h>

/** How many of @size bytes at @pointer can be read: @size, or those of the pages before the first bad one. */
size_t pointers_readable(const void *pointer, size_t size);
/** How many of @size bytes at @pointer can be written, likewise.  Changes none of them. */
size_t pointers_writable(void *pointer, size_t size);
/** Can @text be read up to its NUL, which is among the first PATH_MAX bytes or in the page of the last one?  (Else the
 *  kernel takes it for no path, and looks no further.) */
bool pointers_text(const char *text);

#endif
