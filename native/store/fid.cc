#include "fid.h"

#include <cinttypes>
#include <cstdio>
#include <cstdlib>

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

bool ScanFid(const std::string& text, struct lu_fid* lustre) {
  int end = 0;
  const char* at = text.c_str();
  const bool bracket = *at == '[';
  if (bracket) at++;
  if (sscanf(at, "0x%16" SCNx64 ":0x%8x:0x%8x%n", &lustre->f_seq, &lustre->f_oid, &lustre->f_ver,
             &end) != 3) {
    return false;
  }
  at += end;
  if (bracket && *at++ != ']') return false;
  return *at == '\0' && at == text.c_str() + text.size();
}

bool ParseFid(const std::string& text, Fid* fid) {
  struct lu_fid lustre = {};
  return ScanFid(text, &lustre) && FromLustre(lustre, fid);
}

}  // namespace lustrite
