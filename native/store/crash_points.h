// Named places where a test lets the process die (`LUSTRITE_CRASH=name[:n]`, the n-th passage, or
// the absolute path of a file that says so as soon as it exists).
#ifndef LUSTRITE_STORE_CRASH_POINTS_H_
#define LUSTRITE_STORE_CRASH_POINTS_H_

#include <string_view>
#include <vector>

namespace lustrite {

// Not defined: a call in a constant expression is the compiler's error message.
void NotInCrashPointsDef();

// SIGKILL, after one line on stderr, when this point is the chosen one. The name is checked at
// compile time.
consteval std::string_view KnownCrashPoint(std::string_view name) {
  constexpr std::string_view kNames[] = {
#define LUSTRITE_CRASH_POINT(point) point,
#include "crash_points.def"
#undef LUSTRITE_CRASH_POINT
  };
  for (const std::string_view known : kNames) {
    if (known == name) return known;
  }
  NotInCrashPointsDef();
  return {};
}

void ReachCrashPoint(std::string_view name);

#define CRASH_POINT(name) ::lustrite::ReachCrashPoint(::lustrite::KnownCrashPoint(name))

std::vector<std::string_view> CrashPoints();

}  // namespace lustrite

#endif  // LUSTRITE_STORE_CRASH_POINTS_H_
