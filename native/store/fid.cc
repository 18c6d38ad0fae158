#include "fid.h"

#include <charconv>
#include <cinttypes>
#include <cstdio>
#include <string_view>

namespace lustrite {

struct lu_fid ToLustre(const Fid& fid) {
  struct lu_fid lustre = {};
  lustre.f_seq = kFidSequence + (fid.ino >> 32);
  lustre.f_oid = static_cast<uint32_t>(fid.ino);
  lustre.f_ver = fid.generation;
  return lustre;
}

bool FromLustre(const struct lu_fid& lustre, Fid* fid) {
  if (lustre.f_seq < kFidSequence || lustre.f_seq - kFidSequence > UINT32_MAX) return false;
  fid->ino = (lustre.f_seq - kFidSequence) << 32 | lustre.f_oid;
  fid->generation = lustre.f_ver;
  return fid->ino != 0;
}

std::string ToString(const Fid& fid) {
  const struct lu_fid lustre = ToLustre(fid);
  char text[64];
  snprintf(text, sizeof text, "[0x%" PRIx64 ":0x%x:0x%x]", lustre.f_seq, lustre.f_oid,
           lustre.f_ver);
  return text;
}

namespace {

// "0x" and hexadecimal digits that fit, as ToString writes them, in front of `text`, which loses
// them.
template <typename T>
bool TakeHex(std::string_view* text, T* value) {
  if (!text->starts_with("0x")) return false;
  text->remove_prefix(2);
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), *value, 16);
  text->remove_prefix(static_cast<size_t>(end - text->data()));
  return error == std::errc();
}

bool Take(std::string_view* text, char wanted) {
  if (!text->starts_with(wanted)) return false;
  text->remove_prefix(1);
  return true;
}

}  // namespace

bool ScanFid(const std::string& text, struct lu_fid* lustre) {
  std::string_view left = text;
  const bool bracket = Take(&left, '[');
  uint64_t seq = 0;
  uint32_t oid = 0;
  uint32_t ver = 0;
  if (!TakeHex(&left, &seq) || !Take(&left, ':') || !TakeHex(&left, &oid) || !Take(&left, ':') ||
      !TakeHex(&left, &ver) || (bracket && !Take(&left, ']')) || !left.empty()) {
    return false;
  }
  lustre->f_seq = seq;
  lustre->f_oid = oid;
  lustre->f_ver = ver;
  return true;
}

bool ParseFid(const std::string& text, Fid* fid) {
  struct lu_fid lustre = {};
  return ScanFid(text, &lustre) && FromLustre(lustre, fid);
}

}  // namespace lustrite
