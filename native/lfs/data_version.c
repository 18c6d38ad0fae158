/* lfs data_version: a number that changes with a file's data. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "hsm_state.h"
#include "lfs.h"

static uint64_t ns(const struct timespec *time) {
  return (uint64_t)time->tv_sec * 1000000000u + (uint64_t)time->tv_nsec;
}

/* As the mount would, where it has no ioctl. */
static int compute(int fd, const char *path, uint64_t *version) {
  struct hsm_user_state state = {0};
  struct stat st;
  int error = hsm_state_of(fd, path, &state);
  if (error == 0 && fstat(fd, &st) != 0) error = errno;
  if (error != 0) return error;
  const bool data = !(state.hus_states & HS_RELEASED) && (st.st_size > 0 || state.hus_states != 0);
  *version =
      data ? lustrite_data_version((uint64_t)st.st_size, ns(&st.st_mtim), ns(&st.st_ctim)) : 0;
  return 0;
}

static int ask_version(int fd, const char *path, uint64_t *version) {
  struct ioc_data_version answer = {0};
  if (ioctl(fd, LL_IOC_DATA_VERSION, &answer) != 0)
    return errno == ENOTTY ? compute(fd, path, version) : errno;
  *version = answer.idv_version;
  return 0;
}

/* What Lustre would put down as the version of the copy, so that a release trusts the caller, is
 * put down here by archives and imports alone. Where they have done so there is nothing to do;
 * where they have not, the container does not have the data. */
static int set_hsm(int fd, const char *path) {
  const uint32_t archived = HS_EXISTS | HS_ARCHIVED;
  struct hsm_user_state state = {0};
  int error = hsm_state_of(fd, path, &state);
  if (error != 0) return error;
  char blob[1];
  const bool copy = fgetxattr(fd, "user.hsm.blob", blob, 0) > 0;
  const bool clean = (state.hus_states & (archived | HS_DIRTY | HS_LOST)) == archived;
  return copy && clean ? 0 : EPERM;
}

int data_version(int argc, char *argv[]) {
  static const struct option options[] = {
      {"help", no_argument, NULL, 'h'},       {"nosync", no_argument, NULL, 'n'},
      {"read", no_argument, NULL, 'r'},       {"read-lock", no_argument, NULL, 'r'},
      {"set-hsm", no_argument, NULL, 's'},    {"write", no_argument, NULL, 'w'},
      {"write-lock", no_argument, NULL, 'w'}, {NULL, 0, NULL, 0},
  };
  bool flush = true;
  bool set = false;
  for (int c; (c = getopt_long(argc, argv, "hnrsw", options, NULL)) != -1;) {
    if (c == '?') {
      fprintf(stderr, "%s data_version: unrecognized option '%s'\n", program_invocation_short_name,
              argv[optind - 1]);
      return SHOW_HELP;
    }
    if (c == 'h') return SHOW_HELP;
    if (c == 's')
      set = true;
    else
      flush = c != 'n';
  }
  if (optind == argc) {
    fprintf(stderr, "%s data_version: FILENAME must be specified\n", program_invocation_short_name);
    return SHOW_HELP;
  }
  const char *path = argv[optind];
  int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd < 0) {
    int error = errno;
    fprintf(stderr, "%s data_version: cannot open file '%s': %s\n", program_invocation_short_name,
            path, strerror(error));
    return error;
  }
  /* What mappings wrote changes times when it is written back. */
  if (flush)
    sync_file_range(
        fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
  uint64_t version = 0;
  int error = ask_version(fd, path, &version);
  if (error != 0) {
    fprintf(stderr, "%s data_version: cannot get version for '%s': %s\n",
            program_invocation_short_name, path, strerror(error));
  } else {
    printf("%" PRIu64 "\n", version);
    error = set ? set_hsm(fd, path) : 0;
    if (error != 0)
      fprintf(stderr, "%s data_version: cannot set version %" PRIu64 " for '%s': %s\n",
              program_invocation_short_name, version, path, strerror(error));
  }
  close(fd);
  return error;
}
