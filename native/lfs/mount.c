#include "mount.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "../abi.h"

/* The kernel writes blank, tab, newline and backslash of a mount point as three octal digits. */
static void unescape(char *text) {
  char *to = text;
  for (const char *from = text; *from != '\0'; to++) {
    if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' && from[2] <= '7' &&
        from[3] >= '0' && from[3] <= '7') {
      *to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
      from += 4;
    } else {
      *to = *from++;
    }
  }
  *to = '\0';
}

struct mount_line {
  dev_t device;
  const char *root;
  char *point;
  const char *type;
  char *source;
};

/* proc(5), mountinfo: "36 35 98:0 /root /mnt/point rw,noatime shared:1 - fuse.lustrite source rw".
 */
static bool parse_line(char *line, struct mount_line *mount) {
  char *rest = line;
  char *field[5];
  for (int i = 0; i < 5; i++)
    if ((field[i] = strsep(&rest, " ")) == NULL || rest == NULL) return false;
  unsigned major_number, minor_number;
  if (sscanf(field[2], "%u:%u", &major_number, &minor_number) != 2) return false;
  char *dash = strstr(rest, " - ");
  if (dash == NULL) return false;
  char *after = dash + 3;
  const char *type = strsep(&after, " ");
  char *source = strsep(&after, " ");
  unescape(field[4]);
  if (source != NULL) unescape(source);
  *mount =
      (struct mount_line){makedev(major_number, minor_number), field[3], field[4], type, source};
  return true;
}

static bool is_ours(const struct mount_line *mount) {
  return strcmp(mount->type, "fuse." LUSTRITE_FSTYPE) == 0;
}

/* The root directory behind a mount point, unless something else is mounted over it by now. */
static int open_point(const char *point, dev_t device) {
  int fd = open(point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -errno;
  struct stat st;
  int error = fstat(fd, &st) != 0 ? errno : st.st_dev != device ? ENODEV : 0;
  if (error == 0) return fd;
  close(fd);
  return -error;
}

int mount_open_root(dev_t device) {
  FILE *mounts = fopen("/proc/self/mountinfo", "re");
  if (mounts == NULL) return -errno;
  /* A bind mount of a directory inside has the same device; it serves only if the whole is not
   * mounted. */
  int whole = -ENODEV;
  int part = -ENODEV;
  char *line = NULL;
  size_t room = 0;
  while (whole < 0 && getline(&line, &room, mounts) > 0) {
    struct mount_line mount;
    if (!parse_line(line, &mount) || mount.device != device) continue;
    if (!is_ours(&mount)) continue;
    if (strcmp(mount.root, "/") == 0)
      whole = open_point(mount.point, device);
    else if (part < 0)
      part = open_point(mount.point, device);
  }
  free(line);
  fclose(mounts);
  if (whole < 0 && part >= 0) return part;
  if (part >= 0) close(part);
  return whole == -ENODEV ? part : whole;
}

int mount_each(mount_visitor visit, void *with) {
  FILE *mounts = fopen("/proc/self/mountinfo", "re");
  if (mounts == NULL) return errno;
  int status = 0;
  char *line = NULL;
  size_t room = 0;
  while (status == 0 && getline(&line, &room, mounts) > 0) {
    struct mount_line at;
    if (!parse_line(line, &at) || !is_ours(&at) || strcmp(at.root, "/") != 0) continue;
    char *source = at.source == NULL ? "" : at.source;
    const char *slash = strrchr(source, '/');
    const struct mount mount = {
        .device = at.device,
        .point = at.point,
        .source = source,
        .fsname = slash == NULL ? source : slash + 1,
    };
    status = visit(&mount, with);
  }
  free(line);
  fclose(mounts);
  return status;
}

struct search {
  const char *path;
  dev_t device;
  /* The mount cannot be asked, and only its mount point is compared. */
  bool dead;
  mount_visitor visit;
  void *with;
  bool found;
  int status;
};

static bool same_path(const char *path, const char *point) {
  size_t length = strlen(path);
  while (length > 1 && path[length - 1] == '/') length--;
  return strlen(point) == length && memcmp(path, point, length) == 0;
}

static int compare(const struct mount *mount, void *with) {
  struct search *search = with;
  if (search->dead ? !same_path(search->path, mount->point) : mount->device != search->device)
    return 0;
  search->found = true;
  search->status = search->visit(mount, search->with);
  /* Ends the walk also where the visitor has nothing to complain about. */
  return 1;
}

int mount_of(const char *path, mount_visitor visit, void *with) {
  struct search search = {.path = path, .visit = visit, .with = with};
  struct stat st;
  if (stat(path, &st) == 0)
    search.device = st.st_dev;
  else if (errno == ENOTCONN)
    search.dead = true;
  else
    return errno;
  mount_each(compare, &search);
  return search.found ? search.status : ENODEV;
}
