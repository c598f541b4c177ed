/* SPDX-License-Identifier: MIT
 *
 * A library with nothing in it: what any preloaded library costs (start).
 */
void nothing(void);

void nothing(void)
{
}
