#include "socket.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fid.h"
#include "mount.h"

/* Longest answer that is believed, and how long the daemon may think. */
enum { ANSWER_BYTES = 2 * LUSTRITE_PATH_BYTES + 256, ANSWER_SECONDS = 60 };

static bool read_address(int fd, struct sockaddr_un *address) {
  *address = (struct sockaddr_un){.sun_family = AF_UNIX};
  ssize_t size =
      fgetxattr(fd, LUSTRITE_XATTR_SOCKET, address->sun_path, sizeof(address->sun_path) - 1);
  return size > 0 && address->sun_path[0] == '/';
}

/* user.* of a file needs read permission on it; the mount's root is readable by (almost) everybody.
 */
static int find_daemon(int fd, struct sockaddr_un *address) {
  if (read_address(fd, address)) return 0;
  struct stat st;
  if (fstat(fd, &st) != 0) return ENOTTY;
  int root = mount_open_root(st.st_dev);
  if (root < 0) return ENOTTY;
  bool found = read_address(root, address);
  close(root);
  return found ? 0 : ENOTTY;
}

static void print_string(FILE *to, const char *text) {
  putc('"', to);
  for (const unsigned char *c = (const unsigned char *)text; *c != '\0'; c++) {
    if (*c < 0x20)
      fprintf(to, "\\u%04x", *c);
    else if (*c == '"' || *c == '\\')
      fprintf(to, "\\%c", *c);
    else
      putc(*c, to);
  }
  putc('"', to);
}

static void print_fid(FILE *to, const struct lu_fid *fid) {
  char text[FID_TEXT];
  fid_print(fid, text);
  print_string(to, text);
}

static int send_all(int daemon, const char *text, size_t size) {
  while (size > 0) {
    ssize_t sent = send(daemon, text, size, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return errno == EAGAIN ? ETIMEDOUT : errno;
    text += sent;
    size -= (size_t)sent;
  }
  return 0;
}

/* Reads up to the first newline. */
static int receive_line(int daemon, char line[ANSWER_BYTES]) {
  size_t have = 0;
  while (have < ANSWER_BYTES - 1) {
    ssize_t got = recv(daemon, line + have, ANSWER_BYTES - 1 - have, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno == EAGAIN ? ETIMEDOUT : errno;
    if (got == 0) return ENOTCONN;
    line[have + (size_t)got] = '\0';
    char *newline = strchr(line + have, '\n');
    have += (size_t)got;
    if (newline != NULL) {
      *newline = '\0';
      return 0;
    }
  }
  return EPROTO;
}

static int connect_error(int error) {
  if (error == ENOENT || error == ECONNREFUSED) return ENOTCONN;
  return error == EAGAIN ? ETIMEDOUT : error;
}

static int converse(const struct sockaddr_un *address, const char *question, size_t size,
                    char answer[ANSWER_BYTES]) {
  int daemon = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (daemon < 0) return errno;
  const struct timeval patience = {.tv_sec = ANSWER_SECONDS};
  setsockopt(daemon, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  setsockopt(daemon, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  int error = 0;
  if (connect(daemon, (const struct sockaddr *)address, sizeof(*address)) != 0)
    error = connect_error(errno);
  if (error == 0) error = send_all(daemon, question, size);
  if (error == 0) error = receive_line(daemon, answer);
  close(daemon);
  return error;
}

/* The number of one member of a flat object. A number too large is the largest: JavaScript writes
 * the end of a file, 2^64 - 1, as 18446744073709552000. */
static bool read_number(const char *answer, const char *key, uint64_t *number) {
  char quoted[32];
  int length = snprintf(quoted, sizeof(quoted), "\"%s\"", key);
  const char *at = strstr(answer, quoted);
  if (at == NULL) return false;
  at += length;
  at += strspn(at, " ");
  if (*at++ != ':') return false;
  at += strspn(at, " \"");
  if (*at < '0' || *at > '9') return false;
  *number = strtoull(at, NULL, 10);
  return true;
}

static bool read_number32(const char *answer, const char *key, uint32_t *number) {
  uint64_t wide;
  if (!read_number(answer, key, &wide) || wide > UINT32_MAX) return false;
  *number = (uint32_t)wide;
  return true;
}

/* A question being written. */
struct question {
  FILE *to;
  char *text;
  size_t size;
};

static int begin(struct question *question, const char *op, const char *path) {
  question->to = open_memstream(&question->text, &question->size);
  if (question->to == NULL) return errno;
  char absolute[PATH_MAX];
  fprintf(question->to, "{\"op\":\"%s\",\"path\":", op);
  print_string(question->to, realpath(path, absolute) != NULL ? absolute : path);
  return 0;
}

static int begin_file(struct question *question, const char *op, int fd, const char *path) {
  int error = begin(question, op, path);
  struct lu_fid fid;
  if (error == 0 && fid_of_fd(fd, &fid) == 0) {
    fputs(",\"fid\":", question->to);
    print_fid(question->to, &fid);
  }
  return error;
}

/* Ends the question, asks it, and answers the errno of the conversation or of the daemon. */
static int ask_daemon(struct question *question, int fd, char answer[ANSWER_BYTES]) {
  fputs("}\n", question->to);
  struct sockaddr_un address;
  int error = fclose(question->to) != 0 ? errno : find_daemon(fd, &address);
  if (error == 0) error = converse(&address, question->text, question->size, answer);
  free(question->text);
  if (error != 0) return error;
  uint64_t refused;
  if (!read_number(answer, "errno", &refused) || refused > INT_MAX) return EPROTO;
  return (int)refused;
}

int socket_state(int fd, const char *path, struct hsm_user_state *state) {
  struct question question;
  char answer[ANSWER_BYTES];
  int error = begin_file(&question, "state", fd, path);
  if (error == 0) error = ask_daemon(&question, fd, answer);
  if (error != 0) return error;
  bool whole = read_number32(answer, "states", &state->hus_states) &&
               read_number32(answer, "archive_id", &state->hus_archive_id);
  return whole ? 0 : EPROTO;
}

int socket_action(int fd, const char *path, struct hsm_current_action *action) {
  struct question question;
  char answer[ANSWER_BYTES];
  int error = begin_file(&question, "action", fd, path);
  if (error == 0) error = ask_daemon(&question, fd, answer);
  if (error != 0) return error;
  bool whole = read_number32(answer, "state", &action->hca_state) &&
               read_number32(answer, "action", &action->hca_action) &&
               read_number(answer, "offset", &action->hca_offset) &&
               read_number(answer, "length", &action->hca_length);
  return whole ? 0 : EPROTO;
}

int socket_set(int fd, const char *path, const struct hsm_state_set *change) {
  struct question question;
  char answer[ANSWER_BYTES];
  int error = begin_file(&question, "set", fd, path);
  if (error != 0) return error;
  fprintf(question.to,
          ",\"valid\":%" PRIu32 ",\"archive_id\":%" PRIu32 ",\"setmask\":%" PRIu64
          ",\"clearmask\":%" PRIu64,
          change->hss_valid, change->hss_archive_id, change->hss_setmask, change->hss_clearmask);
  return ask_daemon(&question, fd, answer);
}

int socket_request(int fd, const char *path, const struct lustrite_request *request) {
  struct question question;
  char answer[ANSWER_BYTES];
  int error = begin(&question, "request", path);
  if (error != 0) return error;
  fprintf(question.to, ",\"action\":%" PRIu32 ",\"archive_id\":%" PRIu32 ",\"fids\":[",
          request->action, request->archive_id);
  for (uint32_t i = 0; i < request->count; i++) {
    if (i > 0) putc(',', question.to);
    print_fid(question.to, &request->fids[i]);
  }
  fputs("],\"data\":\"", question.to);
  for (uint32_t i = 0; i < request->data_len; i++) fprintf(question.to, "%02x", request->data[i]);
  putc('"', question.to);
  return ask_daemon(&question, fd, answer);
}

/* Two digits a byte, in a string that ends the member. */
static bool read_path(const char *answer, char path[LUSTRITE_PATH_BYTES]) {
  static const char key[] = "\"path\":\"";
  const char *at = strstr(answer, key);
  if (at == NULL) return false;
  at += strlen(key);
  size_t length = 0;
  unsigned byte;
  for (; length < LUSTRITE_PATH_BYTES - 1 && sscanf(at, "%2x", &byte) == 1; at += 2)
    path[length++] = (char)byte;
  path[length] = '\0';
  return *at == '"';
}

int socket_fid2path(int fd, const char *path, struct lustrite_fid2path *ask) {
  struct question question;
  char answer[ANSWER_BYTES];
  int error = begin(&question, "fid2path", path);
  if (error != 0) return error;
  fputs(",\"fid\":", question.to);
  print_fid(question.to, &ask->fid);
  fprintf(question.to, ",\"link\":%" PRIu32, ask->link);
  error = ask_daemon(&question, fd, answer);
  if (error != 0) return error;
  return read_number32(answer, "links", &ask->links) && read_path(answer, ask->path) ? 0 : EPROTO;
}
