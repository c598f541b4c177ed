/* SPDX-License-Identifier: MIT
 *
 * The image: which program this process runs, and how it came to have the library.
 */
#ifndef FASTSPOOL_IMAGE_H
#define FASTSPOOL_IMAGE_H

#include <stdbool.h>
#include <stddef.h>

struct fastspool_config;
struct stat;

/** The library's bare name, for LD_PRELOAD. */
#define IMAGE_LIBRARY "libfastspool.so"

/** The library's entry in LD_PRELOAD, and its *@length.  NULL: none. */
const char *image_preload(size_t *length);
/** Does the image itself name the library? */
bool image_links(void);
/** Does /etc/ld.so.preload? */
bool image_is_preloaded_for_all(void);
/** Why a secure execution would not load this library by its bare name.  NULL: it would. */
const char *image_installation_problem(void);

/** What file the image is, and whether /proc has said so.  False: nothing says it. */
bool image_find(struct stat *image, bool *by_proc);
/** Its path into @path, of PATH_MAX, for a message. */
void image_path(char *path);
/** Is @image the file of a `program` of @config? */
bool image_is_program(const struct fastspool_config *config, const struct stat *image);
/** Does a `program` of @config have the image's path?  So it is where an upgrade has removed its file. */
bool image_has_listed_path(const struct fastspool_config *config);
/** Is @image, this process's own, a `program` by its file or by its path? */
bool image_is_listed(const struct fastspool_config *config, const struct stat *image);
/** Is @image the fastspool command?  It uses the store itself, and a served mirror would wait for itself.
 *  (/etc/ld.so.preload brings the library to it, too.) */
bool image_is_tool(const struct stat *image);

#endif
