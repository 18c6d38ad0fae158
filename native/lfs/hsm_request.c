/* lfs hsm_archive, hsm_restore, hsm_release, hsm_remove, hsm_cancel: one request for all operands,
 * sent to the root of their mount. Every operand is resolved first, and a bad one means that
 * nothing is sent (lustre-hsm 2.3). */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../abi.h"
#include "fid.h"
#include "lfs.h"
#include "mount.h"
#include "socket.h"

/* How Lustre counts: its header and its items, all below a third of 5120 bytes. */
enum { HEADER_BYTES = 24, ITEM_BYTES = 32, REQUEST_BYTES = 1706 };

struct request_options {
  const char *filelist;
  const char *data;
  const char *mount;
  uint32_t archive_id;
};

struct operands {
  /* More may be named than a request holds; then sending fails, after all were resolved. */
  size_t count;
  struct lu_fid fids[LUSTRITE_REQUEST_FILES];
  /* Of the first file; 0 before. */
  dev_t device;
  /* What messages call the request: the mount, or the first file. */
  const char *name;
};

static int parse_options(int argc, char *argv[], uint32_t action, struct request_options *chosen) {
  static const struct option options[] = {
      {"archive", required_argument, NULL, 'a'}, {"data", required_argument, NULL, 'D'},
      {"help", no_argument, NULL, 'h'},          {"filelist", required_argument, NULL, 'l'},
      {"mntpath", required_argument, NULL, 'm'}, {NULL, 0, NULL, 0},
  };
  if (argc < 2) return SHOW_HELP;
  for (int c; (c = getopt_long(argc, argv, "a:D:hl:m:", options, NULL)) != -1;) {
    switch (c) {
      case 'a':
        if (action != HUA_ARCHIVE && action != HUA_REMOVE) {
          fprintf(stderr, "error: -a is supported only when archiving or removing\n");
          return SHOW_HELP;
        }
        chosen->archive_id = (uint32_t)atoi(optarg);
        break;
      case 'D':
        chosen->data = optarg;
        break;
      case 'l':
        chosen->filelist = optarg;
        break;
      case 'm':
        if (chosen->mount == NULL) chosen->mount = optarg;
        break;
      case 'h':
        return SHOW_HELP;
      default:
        return unrecognized_option(argv);
    }
  }
  /* From 2.16 on that is nothing to do. */
  const bool nothing = optind == argc && chosen->filelist == NULL;
  return nothing && compat_2_15() ? SHOW_HELP : 0;
}

static int resolve_path(const char *path, dev_t *device, struct lu_fid *fid) {
  struct stat st;
  if (lstat(path, &st) != 0) {
    int error = errno;
    fprintf(stderr, "Cannot stat %s: %s\n", path, strerror(error));
    return error;
  }
  if (!S_ISREG(st.st_mode)) {
    fprintf(stderr, "error: \"%s\" is not a regular file\n", path);
    return SHOW_HELP;
  }
  if (*device != 0 && *device != st.st_dev) {
    fprintf(stderr, "All files should be on the same filesystem: %s\n", path);
    return EINVAL;
  }
  *device = st.st_dev;
  int error = fid_of_path(path, fid);
  if (error != 0) fprintf(stderr, "Cannot read FID of %s: %s\n", path, strerror(error));
  return error;
}

static int add_operand(struct operands *operands, const char *text, bool is_fid) {
  struct lu_fid fid;
  if (is_fid) {
    if (!fid_parse(text, &fid)) {
      fprintf(stderr, "hsm: '%s' is not a valid FID\n", text);
      return EINVAL;
    }
  } else {
    int status = resolve_path(text, &operands->device, &fid);
    if (status != 0) return status;
  }
  if (operands->name == NULL && (operands->name = strdup(text)) == NULL) return ENOMEM;
  if (operands->count < LUSTRITE_REQUEST_FILES) operands->fids[operands->count] = fid;
  operands->count++;
  return 0;
}

/* One operand a line; no comments, no quoting, and an empty line is an empty name. */
static int add_filelist(struct operands *operands, const char *filelist, bool are_fids) {
  FILE *list = fopen(filelist, "re");
  if (list == NULL) {
    int error = errno;
    fprintf(stderr, "Cannot read the file list %s: %s\n", filelist, strerror(error));
    return error;
  }
  int status = 0;
  char *line = NULL;
  size_t room = 0;
  ssize_t length;
  errno = 0;
  while (status == 0 && (length = getline(&line, &room, list)) > 0) {
    if (line[length - 1] == '\n') line[length - 1] = '\0';
    status = add_operand(operands, line, are_fids);
    errno = 0;
  }
  if (status == 0 && ferror(list)) {
    status = errno != 0 ? errno : EIO;
    fprintf(stderr, "Cannot read the file list %s: %s\n", filelist, strerror(status));
  }
  free(line);
  fclose(list);
  return status;
}

static int fill(struct lustrite_request *request, const struct operands *operands,
                const char *data) {
  size_t data_length = data == NULL ? 0 : strlen(data);
  if (operands->count > LUSTRITE_REQUEST_FILES || data_length >= REQUEST_BYTES ||
      HEADER_BYTES + ITEM_BYTES * operands->count + data_length >= REQUEST_BYTES)
    return E2BIG;
  request->count = (uint32_t)operands->count;
  memcpy(request->fids, operands->fids, operands->count * sizeof(operands->fids[0]));
  request->data_len = (uint32_t)data_length;
  if (data_length > 0) memcpy(request->data, data, data_length);
  return 0;
}

/* The daemon's socket, for a mount without ioctl or one whose type does not say that it is ours.
 * Without a socket it is not ours. */
static int send_to_socket(int fd, const char *path, const struct lustrite_request *request) {
  int error = socket_request(fd, path, request);
  return error == ENOTTY ? ENODEV : error;
}

static int send_to_root(int root, const char *path, const struct lustrite_request *request) {
  if (ioctl(root, LUSTRITE_IOC_REQUEST, request) == 0) return 0;
  return errno == ENOTTY ? send_to_socket(root, path, request) : errno;
}

static int send_request(const struct operands *operands, struct lustrite_request *request,
                        const char *data) {
  char path[PATH_MAX];
  struct stat st;
  if (realpath(operands->name, path) == NULL || stat(path, &st) != 0) {
    fprintf(stderr, "Could not find path '%s': %s\n", operands->name, strerror(errno));
    return ENODEV;
  }
  int root = mount_open_root(st.st_dev);
  int fd = root;
  if (root == -ENODEV) {
    /* Opening anything else than a file could wake a device. */
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) return ENODEV;
    fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) return errno;
  }
  if (fd < 0) return -fd;
  int error = fill(request, operands, data);
  if (error == 0)
    error = root >= 0 ? send_to_root(fd, path, request) : send_to_socket(fd, path, request);
  close(fd);
  return error;
}

static int hsm_request(int argc, char *argv[], uint32_t action) {
  struct request_options chosen = {0};
  int status = parse_options(argc, argv, action, &chosen);
  if (status != 0) return status;

  struct operands operands = {.name = chosen.mount};
  const bool are_fids = chosen.mount != NULL;
  for (int i = optind; i < argc && status == 0; i++)
    status = add_operand(&operands, argv[i], are_fids);
  if (status == 0 && chosen.filelist != NULL)
    status = add_filelist(&operands, chosen.filelist, are_fids);
  if (status != 0) return status;
  if (operands.count == 0) return 0;

  struct lustrite_request request = {.action = action, .archive_id = chosen.archive_id};
  status = send_request(&operands, &request, chosen.data);
  if (status != 0)
    fprintf(stderr, "Cannot send HSM request (use of %s): %s\n", operands.name, strerror(status));
  return status;
}

int hsm_archive(int argc, char *argv[]) { return hsm_request(argc, argv, HUA_ARCHIVE); }
int hsm_restore(int argc, char *argv[]) { return hsm_request(argc, argv, HUA_RESTORE); }
int hsm_release(int argc, char *argv[]) { return hsm_request(argc, argv, HUA_RELEASE); }
int hsm_remove(int argc, char *argv[]) { return hsm_request(argc, argv, HUA_REMOVE); }
int hsm_cancel(int argc, char *argv[]) { return hsm_request(argc, argv, HUA_CANCEL); }
