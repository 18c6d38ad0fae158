#include "crash_points.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace lustrite {
namespace {

struct Chosen {
  std::string name;
  std::atomic<int> left{0};
  Chosen() {
    const char* text = getenv("LUSTRITE_CRASH");
    if (text == nullptr) return;
    name = text;
    const size_t colon = name.find(':');
    left = colon == std::string::npos ? 1 : atoi(name.c_str() + colon + 1);
    name = name.substr(0, colon);
  }
};

}  // namespace

void ReachCrashPoint(std::string_view name) {
  static Chosen chosen;
  if (chosen.name.empty() || chosen.name != name) return;
  if (chosen.left.fetch_sub(1) != 1) return;
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
