#include "crash_points.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "unique_fd.h"

namespace lustrite {
namespace {

struct Chosen {
  std::string name;
  int passage = 1;
};

Chosen Parse(const std::string& text) {
  const size_t colon = text.find(':');
  return {text.substr(0, colon), colon == std::string::npos ? 1 : atoi(text.c_str() + colon + 1)};
}

// The text of the file, or nothing while there is none.
std::string TextOf(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  char text[128];
  const ssize_t length = fd.ok() ? read(fd.get(), text, sizeof text) : 0;
  return length > 0 ? std::string(text, static_cast<size_t>(length)) : std::string();
}

}  // namespace

void ReachCrashPoint(std::string_view name) {
  static const std::string text = getenv("LUSTRITE_CRASH") ? getenv("LUSTRITE_CRASH") : "";
  static std::atomic<int> passages{0};
  if (text.empty()) return;
  const Chosen chosen = Parse(text[0] == '/' ? TextOf(text) : text);
  if (chosen.name != name || ++passages != chosen.passage) return;
  const std::string line = "crash point " + chosen.name + "\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

std::vector<std::string_view> CrashPoints() {
  return {
#define LUSTRITE_CRASH_POINT(point) point,
#include "crash_points.def"
#undef LUSTRITE_CRASH_POINT
  };
}

}  // namespace lustrite
