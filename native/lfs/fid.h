/* FIDs: Lustre's names of inodes. */
#ifndef LUSTRITE_LFS_FID_H
#define LUSTRITE_LFS_FID_H

#include <stdbool.h>

#include "../abi.h"

/* "[0x" + 16 digits + ":0x" + 8 + ":0x" + 8 + "]" and the terminator. */
enum { FID_TEXT = 44 };

/* Lustre's text form, "[0x200000401:0x5:0x0]". */
void fid_print(const struct lu_fid *fid, char text[FID_TEXT]);

/* Reads "[seq:oid:ver]" or "seq:oid:ver", decimal, octal or 0x; nothing may follow. */
bool fid_parse(const char *text, struct lu_fid *fid);

/* The FID of what `path` names, symlinks not followed. 0, or an errno: ENOTSUP for a file that is
 * not on a lustrite mount, as a Lustre client without the server parts answers (lustre-hsm 2.3). */
int fid_of_path(const char *path, struct lu_fid *fid);

/* The same for an open file. */
int fid_of_fd(int fd, struct lu_fid *fid);

#endif
