/* lfs hsm_state, hsm_action, hsm_set, hsm_clear: what HSM knows of single files, through Lustre's
 * own ioctls on the file (lustre-hsm 4.3). None of them restores a file or waits for a restore. */
#include "hsm_state.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lfs.h"
#include "socket.h"

/* What a command does to one file: prints its line and answers 0, or answers an errno. `with` is
 * the command's own. */
typedef int (*file_work)(const char *path, const void *with);

struct wording {
  const char *since_2_16;
  const char *until_2_15;
};

/* Does the work on every file and answers the first errno. Lustre 2.15 stops there, 2.16 goes on.
 */
static int each_file(const char *command, char *const files[], int count, file_work work,
                     const void *with, const struct wording *wording) {
  int first_error = 0;
  for (int i = 0; i < count; i++) {
    int error = work(files[i], with);
    if (error == 0) continue;
    if (compat_2_15()) {
      fprintf(stderr, "%s for %s: %s\n", wording->until_2_15, files[i], strerror(error));
      return error;
    }
    fprintf(stderr, "%s %s: %s for '%s' failed: %s\n", program_invocation_short_name, command,
            wording->since_2_16, files[i], strerror(error));
    if (first_error == 0) first_error = error;
  }
  return first_error;
}

/* Opens as llapi does: symlinks followed, and O_NONBLOCK, by which the mount knows that the opener
 * wants the inode and not its data. */
static int open_file(const char *path, int mode) {
  return open(path, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

/* A front end without ioctl answers ENOTTY (the kernel for it, if it answered ENOSYS), and then the
 * daemon's socket may serve regular files. */
static bool ask_socket(int fd, int error) {
  struct stat st;
  return error == ENOTTY && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

int hsm_state_of(int fd, const char *path, struct hsm_user_state *state) {
  int error = ioctl(fd, LL_IOC_HSM_STATE_GET, state) == 0 ? 0 : errno;
  return ask_socket(fd, error) ? socket_state(fd, path, state) : error;
}

static void print_state(const char *path, const struct hsm_user_state *state) {
  /* The order is part of the format: scripts match "released exists archived". */
  static const struct {
    uint32_t flag;
    const char *word;
  } words[] = {
      {HS_RELEASED, "released"},  {HS_EXISTS, "exists"},           {HS_DIRTY, "dirty"},
      {HS_ARCHIVED, "archived"},  {HS_NORELEASE, "never_release"}, {HS_NOARCHIVE, "never_archive"},
      {HS_LOST, "lost_from_hsm"},
  };
  printf("%s: (0x%08" PRIx32 ")", path, state->hus_states);
  for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
    if (state->hus_states & words[i].flag) printf(" %s", words[i].word);
  if (state->hus_archive_id != 0) printf(", archive_id:%" PRId32, (int32_t)state->hus_archive_id);
  putchar('\n');
}

static int show_state(const char *path, const void *with) {
  (void)with;
  int fd = open_file(path, O_RDONLY);
  if (fd < 0) return errno;
  struct hsm_user_state state = {0};
  int error = hsm_state_of(fd, path, &state);
  close(fd);
  if (error == 0) print_state(path, &state);
  return error;
}

int hsm_state(int argc, char *argv[]) {
  static const struct wording wording = {"get HSM state", "can't get hsm state"};
  if (argc < 2) return SHOW_HELP;
  return each_file(argv[0], argv + 1, argc - 1, show_state, NULL, &wording);
}

static const char *action_name(uint32_t action) {
  switch (action) {
    case HUA_NONE:
      return "NOOP";
    case HUA_ARCHIVE:
      return "ARCHIVE";
    case HUA_RESTORE:
      return "RESTORE";
    case HUA_RELEASE:
      return "RELEASE";
    case HUA_REMOVE:
      return "REMOVE";
    case HUA_CANCEL:
      return "CANCEL";
    default:
      return "UNKNOWN";
  }
}

static const char *progress_name(uint32_t progress) {
  switch (progress) {
    case HPS_WAITING:
      return "waiting";
    case HPS_RUNNING:
      return "running";
    case HPS_DONE:
      return "done";
    default:
      return "unknown";
  }
}

static void print_action(const char *path, const struct hsm_current_action *now) {
  printf("%s: %s", path, action_name(now->hca_action));
  if (now->hca_action == HUA_NONE) {
    putchar('\n');
    return;
  }
  printf(" %s ", progress_name(now->hca_state));
  const uint64_t end = now->hca_offset + now->hca_length;
  const bool transfer = now->hca_action == HUA_ARCHIVE || now->hca_action == HUA_RESTORE;
  if (transfer && now->hca_state == HPS_RUNNING)
    printf("(%" PRIu64 " bytes moved)\n", now->hca_length);
  else if (end == UINT64_MAX)
    printf("(from %" PRIu64 " to EOF)\n", now->hca_offset);
  else
    printf("(from %" PRIu64 " to %" PRIu64 ")\n", now->hca_offset, end);
}

static int show_action(const char *path, const void *with) {
  (void)with;
  int fd = open_file(path, O_RDONLY);
  if (fd < 0) return errno;
  struct hsm_current_action action = {0};
  int error = ioctl(fd, LL_IOC_HSM_ACTION, &action) == 0 ? 0 : errno;
  if (ask_socket(fd, error)) error = socket_action(fd, path, &action);
  close(fd);
  if (error == 0) print_action(path, &action);
  return error;
}

int hsm_action(int argc, char *argv[]) {
  static const struct wording wording = {"get hsm action", "can't get hsm action"};
  if (argc < 2) return SHOW_HELP;
  return each_file(argv[0], argv + 1, argc - 1, show_action, NULL, &wording);
}

/* Lustre opens for writing. Whoever does that here counts as a writer: he ends the archive of the
 * file, which is for a change of data to do (lustre-hsm 3.5). The daemon asks whether the caller
 * may write the file. Where the caller may not, or not read it, or it is no file, Lustre's way says
 * so. */
static int open_to_change(const char *path) {
  struct stat st;
  bool may = stat(path, &st) == 0 && S_ISREG(st.st_mode) && eaccess(path, R_OK | W_OK) == 0;
  return open_file(path, may ? O_RDONLY : O_WRONLY);
}

static int change_flags(const char *path, const void *with) {
  const struct hsm_state_set *change = with;
  int fd = open_to_change(path);
  if (fd < 0) return errno;
  int error = ioctl(fd, LL_IOC_HSM_STATE_SET, change) == 0 ? 0 : errno;
  if (ask_socket(fd, error)) error = socket_set(fd, path, change);
  close(fd);
  return error;
}

/* As Lustre, the message names the rest that is no number; unlike Lustre, a number that does not
 * fit is refused instead of cut to another archive's id. */
static bool parse_archive_id(const char *text, uint32_t *id) {
  char *end;
  errno = 0;
  long number = strtol(text, &end, 10);
  if (errno == 0 && *end == '\0' && number >= 0 && number <= UINT32_MAX) {
    *id = (uint32_t)number;
    return true;
  }
  fprintf(stderr, "%s: invalid archive_id: '%s'\n", program_invocation_short_name,
          *end != '\0' ? end : text);
  return false;
}

/* Reads flags and archive id; the files are what getopt leaves in argv. */
static int parse_flags(int argc, char *argv[], uint32_t *flags, uint32_t *archive_id) {
  static const struct option options[] = {
      {"archived", no_argument, NULL, 'A'},
      {"noarchive", no_argument, NULL, 'a'},
      {"dirty", no_argument, NULL, 'd'},
      {"exists", no_argument, NULL, 'e'},
      {"help", no_argument, NULL, 'h'},
      {"archive-id", required_argument, NULL, 'i'},
      {"lost", no_argument, NULL, 'l'},
      {"norelease", no_argument, NULL, 'r'},
      {NULL, 0, NULL, 0},
  };
  if (argc < 3) return SHOW_HELP;
  for (int c; (c = getopt_long(argc, argv, "aAdehi:lr", options, NULL)) != -1;) {
    switch (c) {
      case 'A':
        *flags |= HS_ARCHIVED;
        break;
      case 'a':
        *flags |= HS_NOARCHIVE;
        break;
      case 'd':
        *flags |= HS_DIRTY;
        break;
      case 'e':
        *flags |= HS_EXISTS;
        break;
      case 'l':
        *flags |= HS_LOST;
        break;
      case 'r':
        *flags |= HS_NORELEASE;
        break;
      case 'i':
        if (!parse_archive_id(optarg, archive_id)) return SHOW_HELP;
        break;
      case 'h':
        return SHOW_HELP;
      default:
        return unrecognized_option(argv);
    }
  }
  return *flags == 0 ? SHOW_HELP : 0;
}

static const struct wording change_wording = {"change hsm flags", "Can't change hsm flags"};

int hsm_set(int argc, char *argv[]) {
  uint32_t flags = 0;
  uint32_t archive_id = 0;
  int status = parse_flags(argc, argv, &flags, &archive_id);
  if (status != 0) return status;
  const struct hsm_state_set change = {
      .hss_valid = archive_id != 0 ? HSS_SETMASK | HSS_ARCHIVE_ID : HSS_SETMASK,
      .hss_archive_id = archive_id,
      .hss_setmask = flags,
  };
  return each_file(argv[0], argv + optind, argc - optind, change_flags, &change, &change_wording);
}

int hsm_clear(int argc, char *argv[]) {
  uint32_t flags = 0;
  uint32_t ignored;
  int status = parse_flags(argc, argv, &flags, &ignored);
  if (status != 0) return status;
  const struct hsm_state_set change = {.hss_valid = HSS_CLEARMASK, .hss_clearmask = flags};
  return each_file(argv[0], argv + optind, argc - optind, change_flags, &change, &change_wording);
}
