/* What plays Lustre's targets: a mount has one MDT and one OST, both on the disk of its store. */
#ifndef LUSTRITE_LFS_TARGET_H
#define LUSTRITE_LFS_TARGET_H

#include "mount.h"

/* "data-OST0000" and its terminator; a container's name has at most 63 characters. */
enum { TARGET_TEXT = 80 };

enum target_kind { TARGET_MDT, TARGET_OST };

/* "MDT" or "OST". */
const char *target_kind_name(enum target_kind kind);

/* "data-OST0000": the target's name, which with "_UUID" behind it is its UUID. */
void target_name(const struct mount *mount, enum target_kind kind, char text[TARGET_TEXT]);

#endif
