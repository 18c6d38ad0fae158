/* The commands of `lfs` and what they share: exit codes, option errors, failures of one file. */
#ifndef LUSTRITE_LFS_H
#define LUSTRITE_LFS_H

#include <stdbool.h>

/* What a command returns: 0, a positive errno, or this. It is 4, not a negative number, because
 * that is the exit status of Lustre's lfs for a usage error, printed help included
 * (lustre-hsm 1.3). */
enum { SHOW_HELP = 4 };

/* LUSTRITE_LFS_COMPAT=2.15: the messages of Lustre 2.15, which also stops at the first file that
 * fails. */
bool compat_2_15(void);

/* "lfs: unrecognized option 'X'", where getopt_long just stopped; returns SHOW_HELP. */
int unrecognized_option(char *const argv[]);

/* Every command gets its own name as argv[0] and answers with an exit status. */
int hsm_state(int argc, char *argv[]);
int hsm_action(int argc, char *argv[]);
int hsm_set(int argc, char *argv[]);
int hsm_clear(int argc, char *argv[]);
int hsm_archive(int argc, char *argv[]);
int hsm_restore(int argc, char *argv[]);
int hsm_release(int argc, char *argv[]);
int hsm_remove(int argc, char *argv[]);
int hsm_cancel(int argc, char *argv[]);
int path2fid(int argc, char *argv[]);
int fid2path(int argc, char *argv[]);
int data_version(int argc, char *argv[]);
int setstripe(int argc, char *argv[]);
int getstripe(int argc, char *argv[]);
int setdirstripe(int argc, char *argv[]);
int getdirstripe(int argc, char *argv[]);
int find(int argc, char *argv[]);
int osts(int argc, char *argv[]);
int mdts(int argc, char *argv[]);
int check(int argc, char *argv[]);
int df(int argc, char *argv[]);
int quota(int argc, char *argv[]);

#endif
