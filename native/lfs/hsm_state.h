/* The HSM state of an open file. */
#ifndef LUSTRITE_LFS_HSM_STATE_H
#define LUSTRITE_LFS_HSM_STATE_H

#include "../abi.h"

/* Restores nothing and waits for no restore. 0 or an errno; ENOTTY for what has no HSM state. */
int hsm_state_of(int fd, const char *path, struct hsm_user_state *state);

#endif
