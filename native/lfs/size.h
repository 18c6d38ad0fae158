/* Sizes as Lustre's tools take them. */
#ifndef LUSTRITE_LFS_SIZE_H
#define LUSTRITE_LFS_SIZE_H

#include <stdbool.h>
#include <stdint.h>

/* Reads "4096", "1.5g", "4MiB", "8k": `*unit` is the size of the last digit's unit, at first of a
 * number without one. */
bool size_parse(const char *text, uint64_t *size, uint64_t *unit);

#endif
