/* lfs osts, mdts, check: the targets of a mount and whether they answer. */
#include "target.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/statfs.h>

#include "lfs.h"

const char *target_kind_name(enum target_kind kind) { return kind == TARGET_MDT ? "MDT" : "OST"; }

void target_name(const struct mount *mount, enum target_kind kind, char text[TARGET_TEXT]) {
  snprintf(text, TARGET_TEXT, "%.63s-%s0000", mount->fsname, target_kind_name(kind));
}

static int print_target(const struct mount *mount, void *with) {
  const enum target_kind *kind = with;
  char name[TARGET_TEXT];
  target_name(mount, *kind, name);
  printf("%s:\n0: %s_UUID ACTIVE\n", *kind == TARGET_MDT ? "MDTS" : "OBDS", name);
  return 0;
}

static int list_targets(int argc, char *argv[], enum target_kind kind) {
  if (argc > 2) return SHOW_HELP;
  if (argc == 1) return mount_each(print_target, &kind);
  int error = mount_of(argv[1], print_target, &kind);
  /* As Lustre, which finds no mount to list, a path elsewhere is no failure. */
  if (error == 0 || error == ENODEV) return 0;
  fprintf(stderr, "error: invalid path '%s': %s\n", argv[1], strerror(error));
  return error;
}

int osts(int argc, char *argv[]) { return list_targets(argc, argv, TARGET_OST); }
int mdts(int argc, char *argv[]) { return list_targets(argc, argv, TARGET_MDT); }

/* The servers that check knows, in the order of a client's list of devices. */
enum server { SERVER_MGT = 1, SERVER_MDT = 2, SERVER_OST = 4 };

struct check {
  int servers;
  bool any;
};

/* One line, in which the device of a client is named: with the instance of its mount. */
static void print_server(const char *device, int error) {
  if (error == 0)
    printf("%s active.\n", device);
  else if (error == ENOTCONN)
    printf("%s inactive.\n", device);
  else
    fprintf(stderr, "error: check '%s': %s (%d)\n", device, strerror(error), error);
}

static int check_mount(const struct mount *mount, void *with) {
  struct check *check = with;
  check->any = true;
  struct statfs ignored;
  const int error = statfs(mount->point, &ignored) == 0 ? 0 : errno;
  char device[TARGET_TEXT + 32];
  if (check->servers & SERVER_MGT) {
    snprintf(device, sizeof(device), "MGC%.*s@tcp", (int)strcspn(mount->source, "/:"),
             mount->source);
    print_server(device, error);
  }
  const enum target_kind kinds[] = {TARGET_MDT, TARGET_OST};
  for (int i = 0; i < 2; i++) {
    const bool mdt = kinds[i] == TARGET_MDT;
    if (!(check->servers & (mdt ? SERVER_MDT : SERVER_OST))) continue;
    char name[TARGET_TEXT];
    target_name(mount, kinds[i], name);
    snprintf(device, sizeof(device), "%s-%s-%016" PRIx64, name, mdt ? "mdc" : "osc",
             (uint64_t)mount->device);
    print_server(device, error);
  }
  return 0;
}

static int servers_of(const char *name) {
  static const struct {
    const char *name;
    int servers;
  } types[] = {
      {"osts", SERVER_OST},
      {"mdts", SERVER_MDT},
      {"mds", SERVER_MDT},
      {"mgts", SERVER_MGT},
      {"all", SERVER_MGT | SERVER_MDT | SERVER_OST},
      {"servers", SERVER_MGT | SERVER_MDT | SERVER_OST},
  };
  for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
    if (strcmp(types[i].name, name) == 0) return types[i].servers;
  return 0;
}

int check(int argc, char *argv[]) {
  if (argc < 2 || argc > 3) {
    fprintf(stderr, "%s check: server type must be specified\n", program_invocation_short_name);
    return SHOW_HELP;
  }
  struct check chosen = {.servers = servers_of(argv[1])};
  if (chosen.servers == 0) {
    fprintf(stderr, "%s check: unrecognized option '%s'\n", program_invocation_short_name, argv[1]);
    return SHOW_HELP;
  }
  int error =
      argc == 3 ? mount_of(argv[2], check_mount, &chosen) : mount_each(check_mount, &chosen);
  if (argc == 3 && error != 0 && error != ENODEV) {
    fprintf(stderr, "error: invalid path '%s': %s\n", argv[2], strerror(error));
    return error;
  }
  if (chosen.any) return 0;
  fprintf(stderr, "%s %s: cannot find mounted Lustre filesystem: %s\n",
          program_invocation_short_name, argv[0], strerror(ENODEV));
  return ENODEV;
}
