#include "convert.h"

#include <cerrno>
#include <cmath>
#include <cstring>

#include "store_object.h"

namespace lustrite {
namespace {

// One N-API call a property would cost more than the walk itself: C++ fills columns, JavaScript
// makes the objects.
constexpr char kBuilder[] = R"((function (count, numbers, times, texts, walked) {
  const types = ['file', 'directory', 'symlink', 'special'];
  const states = new Array(count);
  for (let i = 0; i < count; i++) {
    const n = i * 16;
    const t = i * 7;
    const state = {
      fid: texts[t], type: types[numbers[n]], flags: numbers[n + 1], archiveId: numbers[n + 2],
      modified: numbers[n + 3] !== 0, mode: numbers[n + 4], uid: numbers[n + 5], gid: numbers[n + 6],
      size: numbers[n + 7], mtimeNs: times[i], nlink: numbers[n + 8], allocated: numbers[n + 9],
      writers: numbers[n + 10], readers: numbers[n + 11], restoring: numbers[n + 12] !== 0,
      atimeNs: times[count + i],
    };
    if (numbers[n + 13] !== 0) {
      state.copy = { blob: texts[t + 1], etag: texts[t + 2], size: numbers[n + 14], lastModifiedMs: numbers[n + 15] };
      if (texts[t + 3] !== undefined) state.copy.md5 = texts[t + 3];
    }
    if (walked) {
      state.path = texts[t + 4];
      if (texts[t + 5] !== undefined) state.pathBytes = texts[t + 5];
      if (texts[t + 6] !== undefined) state.target = texts[t + 6];
    }
    states[i] = state;
  }
  return states;
}))";

constexpr char kBase64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

std::string ToBase64(const std::array<uint8_t, 16>& bytes) {
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t left = bytes.size() - i;
    const uint32_t word = static_cast<uint32_t>(bytes[i]) << 16 |
                          (left > 1 ? static_cast<uint32_t>(bytes[i + 1]) << 8 : 0) |
                          (left > 2 ? bytes[i + 2] : 0);
    text += kBase64[word >> 18];
    text += kBase64[word >> 12 & 63];
    text += left > 1 ? kBase64[word >> 6 & 63] : '=';
    text += left > 2 ? kBase64[word & 63] : '=';
  }
  return text;
}

bool FromBase64(const std::string& text, std::array<uint8_t, 16>* bytes) {
  if (text.size() != 24 || text.compare(22, 2, "==") != 0) return false;
  uint32_t word = 0;
  int bits = 0;
  size_t at = 0;
  for (size_t i = 0; i < 22; i++) {
    const char* found = static_cast<const char*>(memchr(kBase64, text[i], 64));
    if (found == nullptr) return false;
    word = word << 6 | static_cast<uint32_t>(found - kBase64);
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    (*bytes)[at++] = static_cast<uint8_t>(word >> bits);
  }
  return at == bytes->size();
}

bool IsUtf8(const std::string& text) {
  const auto* at = reinterpret_cast<const unsigned char*>(text.data());
  const auto* end = at + text.size();
  while (at < end) {
    if (*at < 0x80) {
      at++;
      continue;
    }
    const int more = *at >= 0xf0 ? 3 : *at >= 0xe0 ? 2 : 1;
    if (*at < 0xc2 || *at > 0xf4 || end - at <= more) return false;
    const unsigned char second = at[1];
    if ((*at == 0xe0 && second < 0xa0) || (*at == 0xed && second > 0x9f) ||
        (*at == 0xf0 && second < 0x90) || (*at == 0xf4 && second > 0x8f)) {
      return false;
    }
    for (int i = 1; i <= more; i++) {
      if ((at[i] & 0xc0) != 0x80) return false;
    }
    at += more + 1;
  }
  return true;
}

int64_t Nanoseconds(const struct timespec& time) {
  int64_t ns = 0;
  const bool fits = !__builtin_mul_overflow(int64_t{time.tv_sec}, int64_t{1000000000}, &ns) &&
                    !__builtin_add_overflow(ns, int64_t{time.tv_nsec}, &ns);
  return fits ? ns : time.tv_sec > 0 ? INT64_MAX : INT64_MIN;
}

class Columns {
 public:
  Columns(Napi::Env env, size_t count)
      : env_(env),
        count_(count),
        numbers_(Napi::Float64Array::New(env, count * 16)),
        times_(Napi::BigInt64Array::New(env, count * 2)),
        texts_(Napi::Array::New(env, count * 7)) {}

  void Add(const FileState& state) {
    const mode_t mode = state.st.st_mode;
    double* numbers = numbers_.Data() + at_ * 16;
    numbers[0] = S_ISREG(mode) ? 0 : S_ISDIR(mode) ? 1 : S_ISLNK(mode) ? 2 : 3;
    numbers[1] = state.flags;
    numbers[2] = state.archive_id;
    numbers[3] = state.modified ? 1 : 0;
    numbers[4] = mode & 07777;
    numbers[5] = state.st.st_uid;
    numbers[6] = state.st.st_gid;
    numbers[7] = static_cast<double>(state.st.st_size);
    numbers[8] = static_cast<double>(state.st.st_nlink);
    numbers[9] = static_cast<double>(state.allocated);
    numbers[10] = state.writers;
    numbers[11] = state.readers;
    numbers[12] = state.restoring ? 1 : 0;
    numbers[13] = state.copy ? 1 : 0;
    times_[at_] = Nanoseconds(state.st.st_mtim);
    times_[count_ + at_] = Nanoseconds(state.st.st_atim);
    Text(0, ToString(state.fid));
    if (state.copy) {
      numbers[14] = static_cast<double>(state.copy->size);
      numbers[15] = static_cast<double>(state.copy->last_modified_ms);
      Text(1, state.copy->blob);
      Text(2, state.copy->etag);
      if (state.copy->md5) Text(3, ToBase64(*state.copy->md5));
    }
    at_++;
  }
  void Path(const WalkEntry& entry) {
    at_--;
    Text(4, entry.path);
    if (!IsUtf8(entry.path)) {
      texts_.Set(static_cast<uint32_t>(at_ * 7 + 5),
                 Napi::Buffer<char>::Copy(env_, entry.path.data(), entry.path.size()));
    }
    if (S_ISLNK(entry.state.st.st_mode)) {
      texts_.Set(static_cast<uint32_t>(at_ * 7 + 6),
                 Napi::Buffer<char>::Copy(env_, entry.target.data(), entry.target.size()));
    }
    at_++;
  }
  Napi::Value Build(bool walked) {
    struct Cached {
      Napi::FunctionReference builder;
    };
    auto* cached = env_.GetInstanceData<Cached>();
    if (cached == nullptr) {
      cached = new Cached();
      cached->builder = Napi::Persistent(env_.RunScript(kBuilder).As<Napi::Function>());
      env_.SetInstanceData(cached);
    }
    return cached->builder.Call({Napi::Number::New(env_, static_cast<double>(count_)), numbers_,
                                 times_, texts_, Napi::Boolean::New(env_, walked)});
  }

 private:
  void Text(size_t column, const std::string& text) {
    texts_.Set(static_cast<uint32_t>(at_ * 7 + column), Napi::String::New(env_, text));
  }

  const Napi::Env env_;
  const size_t count_;
  size_t at_ = 0;
  Napi::Float64Array numbers_;
  Napi::BigInt64Array times_;
  Napi::Array texts_;
};

bool Refuse(Napi::Env env, const char* what) {
  if (!env.IsExceptionPending()) Napi::TypeError::New(env, what).ThrowAsJavaScriptException();
  return false;
}

template <typename T>
bool Field(const Napi::Object& object, const char* name, T* field) {
  double number = 0;
  if (!NumberFromJs(object.Get(name), &number)) return false;
  *field = static_cast<T>(number);
  return true;
}

template <typename T>
bool OptionalField(const Napi::Object& object, const char* name, std::optional<T>* field) {
  const Napi::Value value = object.Get(name);
  if (value.IsUndefined()) return true;
  double number = 0;
  if (!NumberFromJs(value, &number)) return false;
  *field = static_cast<T>(number);
  return true;
}

// An object of buffers, null where there is to be none.
bool ExtendedFromJs(const Napi::Value& value, std::vector<ExtendedAttribute>* extended) {
  if (value.IsUndefined()) return true;
  if (!value.IsObject()) return Refuse(value.Env(), "extended attributes are missing");
  const Napi::Object object = value.As<Napi::Object>();
  const Napi::Array names = object.GetPropertyNames();
  for (uint32_t i = 0; i < names.Length(); i++) {
    ExtendedAttribute& attribute = extended->emplace_back();
    if (!TextFromJs(names.Get(i), &attribute.name)) return false;
    const Napi::Value bytes = object.Get(attribute.name);
    if (bytes.IsNull()) continue;
    if (!bytes.IsBuffer()) return Refuse(value.Env(), "an extended attribute is no buffer");
    const auto buffer = bytes.As<Napi::Buffer<char>>();
    attribute.value.emplace(buffer.Data(), buffer.Length());
  }
  return true;
}

}  // namespace

Napi::Value ToJs(Napi::Env env, const Fid& fid) { return Napi::String::New(env, ToString(fid)); }

Napi::Value ToNs(Napi::Env env, const struct timespec& time) {
  return Napi::BigInt::New(env, Nanoseconds(time));
}

Napi::Value ToJs(Napi::Env env, const Copy& copy) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("blob", copy.blob);
  object.Set("etag", copy.etag);
  object.Set("size", static_cast<double>(copy.size));
  object.Set("lastModifiedMs", static_cast<double>(copy.last_modified_ms));
  if (copy.md5) object.Set("md5", ToBase64(*copy.md5));
  return object;
}

Napi::Value ToJs(Napi::Env env, const Change& change) {
  static constexpr const char* kKinds[] = {"state", "release", "restore", "unlink", "rename"};
  const auto bytes = [env](const std::string& text) {
    return Napi::Buffer<char>::Copy(env, text.data(), text.size());
  };
  const auto set_fid = [env](Napi::Object& object, const char* key, const Fid& fid) {
    if (fid.ino != 0) object.Set(key, ToJs(env, fid));
  };
  Napi::Object object = Napi::Object::New(env);
  object.Set("kind", kKinds[change.kind]);
  object.Set("atNs", ToNs(env, change.at));
  set_fid(object, "fid", change.fid);
  object.Set("flags", static_cast<double>(change.flags));
  if (change.kind != Change::kUnlink && change.kind != Change::kRename) return object;
  object.Set("last", change.last);
  object.Set("exists", change.exists);
  set_fid(object, "parent", change.parent);
  object.Set("name", bytes(change.name));
  if (change.kind != Change::kRename) return object;
  set_fid(object, "moved", change.moved);
  set_fid(object, "movedParent", change.moved_parent);
  object.Set("movedName", bytes(change.moved_name));
  return object;
}

Napi::Value StatesToJs(Napi::Env env, const std::vector<const FileState*>& states) {
  Columns columns(env, states.size());
  for (const FileState* state : states) columns.Add(*state);
  return columns.Build(false);
}

Napi::Value WalkToJs(Napi::Env env, const std::vector<WalkEntry>& entries) {
  Columns columns(env, entries.size());
  for (const WalkEntry& entry : entries) {
    const Napi::HandleScope scope(env);
    columns.Add(entry.state);
    columns.Path(entry);
  }
  return columns.Build(true);
}

Napi::Value ShownStatToJs(Napi::Env env, const struct stat& st) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("ino", Napi::BigInt::New(env, static_cast<uint64_t>(st.st_ino)));
  object.Set("mode", static_cast<double>(st.st_mode));
  object.Set("nlink", static_cast<double>(st.st_nlink));
  object.Set("uid", static_cast<double>(st.st_uid));
  object.Set("gid", static_cast<double>(st.st_gid));
  object.Set("rdev", Napi::BigInt::New(env, static_cast<uint64_t>(st.st_rdev)));
  object.Set("size", static_cast<double>(st.st_size));
  object.Set("blocks", static_cast<double>(st.st_blocks));
  object.Set("atimeNs", ToNs(env, st.st_atim));
  object.Set("mtimeNs", ToNs(env, st.st_mtim));
  object.Set("ctimeNs", ToNs(env, st.st_ctim));
  return object;
}

bool NumberFromJs(const Napi::Value& value, double* number) {
  if (!value.IsNumber()) return Refuse(value.Env(), "a number is missing");
  *number = value.As<Napi::Number>().DoubleValue();
  // Not above 2^53, where doubles skip integers; negative only where the caller says so.
  if (!std::isfinite(*number) || *number < 0 || *number > 9007199254740992.0) {
    return Refuse(value.Env(), "a number is out of range");
  }
  return true;
}

bool TextFromJs(const Napi::Value& value, std::string* text) {
  if (!value.IsString()) return Refuse(value.Env(), "a string is missing");
  *text = value.As<Napi::String>().Utf8Value();
  return true;
}

bool TimeFromJs(const Napi::Value& value, struct timespec* time) {
  if (!value.IsBigInt()) return Refuse(value.Env(), "a time in nanoseconds (bigint) is missing");
  bool lossless = false;
  const int64_t ns = value.As<Napi::BigInt>().Int64Value(&lossless);
  if (!lossless) return Refuse(value.Env(), "a time is out of range");
  time->tv_sec = ns / 1000000000;
  time->tv_nsec = ns % 1000000000;
  if (time->tv_nsec < 0) {
    time->tv_sec--;
    time->tv_nsec += 1000000000;
  }
  return true;
}

bool FromJs(const Napi::Value& value, Fid* fid) {
  std::string text;
  if (!TextFromJs(value, &text)) return false;
  if (ParseFid(text, fid)) return true;
  // Of an errno: users name FIDs, too.
  if (!value.Env().IsExceptionPending())
    ErrnoError(value.Env(), EINVAL, text + " is no FID of a file").ThrowAsJavaScriptException();
  return false;
}

bool FromJs(const Napi::Value& value, Copy* copy) {
  if (!value.IsObject()) return Refuse(value.Env(), "a copy is missing");
  const Napi::Object object = value.As<Napi::Object>();
  const Napi::Value modified = object.Get("lastModifiedMs");
  if (!TextFromJs(object.Get("blob"), &copy->blob) ||
      !TextFromJs(object.Get("etag"), &copy->etag) || !Field(object, "size", &copy->size)) {
    return false;
  }
  if (!modified.IsNumber()) return Refuse(value.Env(), "lastModifiedMs is missing");
  copy->last_modified_ms = modified.As<Napi::Number>().Int64Value();
  const Napi::Value md5 = object.Get("md5");
  if (md5.IsString()) {
    std::array<uint8_t, 16> bytes = {};
    // Whatever else a service may have put there is no MD5 of ours to keep.
    if (FromBase64(md5.As<Napi::String>().Utf8Value(), &bytes)) copy->md5 = bytes;
  }
  return true;
}

bool FromJs(const Napi::Value& value, Credentials* who) {
  if (!value.IsObject()) return Refuse(value.Env(), "a caller is missing");
  const Napi::Object object = value.As<Napi::Object>();
  const Napi::Value groups = object.Get("groups");
  const Napi::Value capabilities = object.Get("capabilities");
  if (!Field(object, "uid", &who->uid) || !Field(object, "gid", &who->gid)) return false;
  if (!groups.IsArray() || !capabilities.IsBigInt())
    return Refuse(value.Env(), "groups or capabilities are missing");
  bool lossless = false;
  who->capabilities = capabilities.As<Napi::BigInt>().Uint64Value(&lossless);
  const Napi::Array numbers = groups.As<Napi::Array>();
  for (uint32_t i = 0; i < numbers.Length(); i++) {
    double group = 0;
    if (!NumberFromJs(numbers.Get(i), &group)) return false;
    who->groups.push_back(static_cast<gid_t>(group));
  }
  return true;
}

bool FromJs(const Napi::Value& value, Stub* stub) {
  if (!value.IsObject()) return Refuse(value.Env(), "a stub is missing");
  const Napi::Object object = value.As<Napi::Object>();
  std::string kind;
  if (!TextFromJs(object.Get("path"), &stub->path) || !TextFromJs(object.Get("kind"), &kind) ||
      !Field(object, "mode", &stub->mode) || !Field(object, "uid", &stub->uid) ||
      !Field(object, "gid", &stub->gid) || !TimeFromJs(object.Get("mtimeNs"), &stub->mtime) ||
      !Field(object, "size", &stub->size)) {
    return false;
  }
  stub->kind = kind == "file"        ? StubKind::kFile
               : kind == "directory" ? StubKind::kDirectory
                                     : StubKind::kSymlink;
  const Napi::Value target = object.Get("target");
  if (target.IsBuffer()) {
    const auto bytes = target.As<Napi::Buffer<char>>();
    stub->target.assign(bytes.Data(), bytes.Length());
  }
  if (!ExtendedFromJs(object.Get("extended"), &stub->extended)) return false;
  const Napi::Value copy = object.Get("copy");
  return copy.IsUndefined() || FromJs(copy, &stub->copy.emplace());
}

bool FromJs(const Napi::Value& value, StubDefaults* defaults) {
  if (!value.IsObject()) return Refuse(value.Env(), "defaults are missing");
  const Napi::Object object = value.As<Napi::Object>();
  return Field(object, "dirMode", &defaults->dir_mode) && Field(object, "uid", &defaults->uid) &&
         Field(object, "gid", &defaults->gid) &&
         TimeFromJs(object.Get("mtimeNs"), &defaults->mtime);
}

bool FromJs(const Napi::Value& value, Attributes* attributes) {
  if (!value.IsObject()) return Refuse(value.Env(), "attributes are missing");
  const Napi::Object object = value.As<Napi::Object>();
  const Napi::Value mtime = object.Get("mtimeNs");
  const Napi::Value fid = object.Get("fid");
  return ExtendedFromJs(object.Get("extended"), &attributes->extended) &&
         (fid.IsUndefined() || FromJs(fid, &attributes->fid.emplace())) &&
         OptionalField(object, "mode", &attributes->mode) &&
         OptionalField(object, "uid", &attributes->uid) &&
         OptionalField(object, "gid", &attributes->gid) &&
         (mtime.IsUndefined() || TimeFromJs(mtime, &attributes->mtime.emplace()));
}

}  // namespace lustrite
